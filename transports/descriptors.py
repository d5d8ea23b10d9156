"""Open files and sockets, and their limit."""

from __future__ import annotations

import os


def raise_descriptor_limit() -> None:
    """Raise it to what the system allows: a daemon may need more than the usual 1024."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def descriptor_limit() -> int:
    """How many files and sockets this process may have open."""
    import resource

    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 1 << 20 if soft == resource.RLIM_INFINITY else soft


def descriptors_in_use() -> int:
    """How many this process has open; the limit where none is left to look with."""
    try:
        return len(os.listdir("/dev/fd"))
    except OSError:
        return descriptor_limit()
