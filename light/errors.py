"""Exceptions that task code may raise or meet."""

from __future__ import annotations


class LightError(Exception):
    """Root of this package's errors."""


# What task code may raise, so that the user sees what kind of failure it was.


class DataCorruptionError(LightError):
    """Data that is not what it should be."""


class ResourceExhaustionError(LightError):
    """Memory, disk or another resource ran out."""


# What task code may meet.


class NotInTask(LightError, RuntimeError):
    """World, Local or Results was used outside a running task."""


class SwarmStopped(LightError):
    """The swarm was stopped while the task waited for something."""


class PeerLost(LightError):
    """Another instance, or its node, went away while the task waited for it."""


class Timeout(LightError, TimeoutError):
    """What the task waited for did not come in time."""


class ReceiverFull(Timeout):
    """The node that a message was for has too many that nobody received; it was not sent."""


class UnknownPeer(LightError):
    """There is no such node, or a network of the swarm forbids to talk to it."""


class UnknownTask(LightError):
    """The swarm has no task with this alias."""


class NothingSent(LightError):
    """Nobody sent what the task waited for, and nobody is left who could."""


class CollectiveError(LightError):
    """The instances of a task cannot meet in this call: they make different ones, never run at the
    same time, or give values that make no outcome together."""


class NodeLost(LightError):
    """The node's service did not come back in time."""


class RequestFailed(LightError):
    """The node could not do what the task asked for."""


class DatasetNotFound(LightError, KeyError):
    """A dataset that the module did not declare, or the operator does not allow."""

    __str__ = Exception.__str__


class UnsupportedData(LightError, ValueError):
    """Data that is whole but that Manta does not open; the message names what does."""


class GlobalNotFound(LightError, KeyError):
    """A global that nobody has set."""

    __str__ = Exception.__str__


class MissingPackage(LightError, ImportError):
    """A format whose package is not installed on the node."""


BY_NAME: dict[str, type[LightError]] = {
    kind.__name__: kind
    for kind in (
        DataCorruptionError,
        ResourceExhaustionError,
        SwarmStopped,
        PeerLost,
        Timeout,
        ReceiverFull,
        UnknownPeer,
        UnknownTask,
        NothingSent,
        CollectiveError,
    )
}
"""Kinds of refused requests that have an exception of their own."""
