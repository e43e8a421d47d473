"""Returns the version of this package, as recorded in the run state, the server's hello and checkpoints."""

from importlib.metadata import PackageNotFoundError, version


def package_version() -> str:
    try:
        return version("mla-tui")
    except PackageNotFoundError:  # a source tree that is not installed
        return "source"
