"""Which version of Manta this is."""

from __future__ import annotations


def installed_version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # 20 ms: only when asked

    try:
        return version("manta")
    except PackageNotFoundError:
        return "unknown"
