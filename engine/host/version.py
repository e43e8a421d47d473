"""The version of the package that runs, as written into state, hello and checkpoints."""

from importlib.metadata import PackageNotFoundError, version


def package_version() -> str:
    try:
        return version("mla-tui")
    except PackageNotFoundError:  # run from a bare source tree
        return "source"
