"""Which safekd this is, for the records that it writes."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def find_own_version() -> str:
    """Return the version of safekd as installed, "source" where it is run without being installed."""
    try:
        return version("safekd")
    except PackageNotFoundError:
        return "source"
