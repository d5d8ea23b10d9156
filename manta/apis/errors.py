"""Every error that the SDK raises, in one tree, split by whose fault it is.

Each is one sentence that says what was wrong, where, and the remedy.
"""

from __future__ import annotations

from typing import Any

from manta.protocol.codes import Code


class MantaError(Exception):
    """Root of the SDK's errors."""


# The swarm, as it is written.


class InvalidSwarm(MantaError, ValueError):
    """The swarm cannot be deployed as it is written."""


class InvalidArgument(InvalidSwarm, TypeError):
    """An argument of a wrong type, out of range, or in conflict with another."""


class InvalidValue(InvalidSwarm, TypeError):
    """A value that cannot be sent: names the place inside it and the remedy."""


class GraphError(InvalidSwarm):
    """A cycle, an unconnected task, an alias used twice."""


class ModuleError(InvalidSwarm):
    """A module that is not there, cannot be read or packaged, or has a syntax error."""


# This machine.


class ProfileError(MantaError):
    """A profile, key or credential under `~/.manta` that is missing, malformed or exposed."""


class DatasetMissing(MantaError):
    """A path that was given as a dataset does not exist."""


# The way to the manager.


class ConnectionFailed(MantaError, ConnectionError):
    """The manager could not be talked to."""


class ManagerUnreachable(ConnectionFailed):
    """Nobody answers at the address."""


class WrongServerKey(ConnectionFailed):
    """Who answers does not hold the key that is expected there: by the token, the
    profile or a manager of this machine."""


class Denied(ConnectionFailed):
    """The manager refused this machine's key."""


class ManagerBusy(ConnectionFailed):
    """The manager cannot take the request now: ask again."""


class VersionMismatch(ConnectionFailed):
    """The manager speaks another major version."""


class NoAnswer(ConnectionFailed, TimeoutError):
    """The request was sent and not answered: it may have been carried out."""


class ProtocolViolation(ConnectionFailed):
    """The manager sent what the protocol forbids."""


class TransferFailed(ConnectionFailed):
    """A large value did not arrive whole."""


class MissingPackage(MantaError, ImportError):
    """A package that this form needs is not installed."""


class WaitTimeout(MantaError, TimeoutError):
    """What was waited for did not happen in the time given."""


class ApiClosed(MantaError):
    """The API object was closed and is still used."""


# What the manager refuses.


class RequestRefused(MantaError):
    """The manager's no. `code` is stable (`manta.protocol.codes`), `data` holds plain values."""

    def __init__(self, sentence: str, code: str = "", data: dict[str, Any] | None = None) -> None:
        super().__init__(sentence)
        self.code = code
        self.data = data or {}


class NotAuthenticated(RequestRefused):
    """Not signed in, wrong credentials, or a token that does not serve."""


class TokenRefused(NotAuthenticated):
    """A token that is missing, malformed, expired, used, foreign or bound to another key."""


class Forbidden(RequestRefused):
    """This user may not do this."""


class RateLimited(RequestRefused):
    """Too many attempts: wait."""


class NotFound(RequestRefused, LookupError):
    """No such cluster, node, swarm or tag."""


class Ambiguous(RequestRefused, LookupError):
    """The prefix fits more than one."""


class NameTaken(RequestRefused):
    """Another one has this name or alias."""


class WrongState(RequestRefused):
    """Not possible in the state in which the cluster or swarm is."""


class Unplaceable(RequestRefused):
    """No node can run one of the tasks; `problems` names each task, the reason and the remedy."""

    @property
    def problems(self) -> tuple[str, ...]:
        """A sentence for each task that no node can run."""
        return tuple(self.data.get("problems", ()))


class InvalidRequest(RequestRefused, ValueError):
    """The manager does not accept a value in the request."""


class ManagerFault(RequestRefused):
    """The manager's disk or one of its parts does not serve now."""


_BY_CODE: dict[str, type[RequestRefused]] = {
    Code.NOT_SIGNED_IN: NotAuthenticated,
    Code.BAD_CREDENTIALS: NotAuthenticated,
    Code.FORBIDDEN: Forbidden,
    Code.RATE_LIMITED: RateLimited,
    Code.TOKEN_MISSING: TokenRefused,
    Code.TOKEN_MALFORMED: TokenRefused,
    Code.TOKEN_EXPIRED: TokenRefused,
    Code.TOKEN_USED: TokenRefused,
    Code.TOKEN_FOREIGN: TokenRefused,
    Code.TOKEN_AUDIENCE: TokenRefused,
    Code.TOKEN_KEY: TokenRefused,
    Code.TOKEN_REVOKED: TokenRefused,
    Code.ALIAS_TAKEN: NameTaken,
    Code.NODE_REMOVED: Forbidden,
    Code.UNKNOWN_CLUSTER: NotFound,
    Code.UNKNOWN_NODE: NotFound,
    Code.UNKNOWN_SWARM: NotFound,
    Code.UNKNOWN_TAG: NotFound,
    Code.UNKNOWN_TASK: NotFound,
    Code.UNKNOWN_USER: NotFound,
    Code.UNKNOWN_ROLE: NotFound,
    Code.UNKNOWN_MODULE: NotFound,
    Code.VERSION_TAKEN: NameTaken,
    Code.NOT_A_NEIGHBOR: Forbidden,
    Code.AMBIGUOUS: Ambiguous,
    Code.NAME_TAKEN: NameTaken,
    Code.INVALID: InvalidRequest,
    Code.WRONG_STATE: WrongState,
    Code.UNPLACEABLE: Unplaceable,
    Code.BLOB_MISSING: ManagerFault,
    Code.UNAVAILABLE: ManagerFault,
    Code.STORAGE: ManagerFault,
}


def refusal(code: str, sentence: str, data: dict[str, Any]) -> RequestRefused:
    """The typed form of the manager's no; a code of a newer manager is the plain form."""
    return _BY_CODE.get(code, RequestRefused)(sentence, code, data)
