"""The limit of open files and sockets."""

from __future__ import annotations


def raise_descriptor_limit() -> None:
    """Raise it to what the system allows: a daemon may need more than the usual 1024."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
