"""Looks up the versions of installed packages without importing them."""

from __future__ import annotations


def installed_version(package: str) -> str | None:
    """Return the version of ``package``, None where it is not installed."""
    from importlib.metadata import PackageNotFoundError, version  # 2 MB, which a supervisor never needs

    try:
        return version(package)
    except PackageNotFoundError:
        return None
