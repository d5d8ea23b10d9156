"""How many files and sockets this process may hold open."""

from __future__ import annotations


def raise_descriptor_limit() -> None:
    """To what the system allows: a daemon may need more than the usual 1024."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
