"""The errors that the SDK raises: one tree, split by whose fault it is.

Each message is one sentence that says what is wrong, where, and what to do.
"""

from __future__ import annotations

from typing import Any

from manta.console.visible import visible
from manta.protocol.codes import Code


class MantaError(Exception):
    """Root of the SDK's errors."""


# The swarm.


class InvalidSwarm(MantaError, ValueError):
    """The swarm is not valid and cannot be deployed."""


class InvalidArgument(InvalidSwarm, TypeError):
    """An argument has the wrong type, is out of range, or conflicts with another."""


class InvalidValue(InvalidSwarm, TypeError):
    """A value cannot be sent; the message names the place in it and the remedy."""


class GraphError(InvalidSwarm):
    """The graph has a cycle, an unconnected task, or an alias that is used twice."""


class ModuleError(InvalidSwarm):
    """A module is missing, cannot be read or packaged, or has a syntax error."""


class SwarmFailed(MantaError, RuntimeError):
    """A swarm that was run to its end did not complete; `outcome` is what came of it all the
    same."""

    def __init__(self, message: str, outcome: Any = None) -> None:
        super().__init__(message)
        self.outcome = outcome


# This machine.


class ProfileError(MantaError):
    """A profile, key or token under `~/.manta` is missing, malformed, or readable by others."""


class DatasetMissing(MantaError):
    """The path of a dataset does not exist."""


class ClusterDied(MantaError, RuntimeError):
    """A process of a cluster on this machine has ended, or could not be started."""


# The connection to the manager.


class ConnectionFailed(MantaError, ConnectionError):
    """The manager could not be reached, or the connection to it failed."""


class ManagerUnreachable(ConnectionFailed):
    """Nobody answers at the address."""


class WrongServerKey(ConnectionFailed):
    """The server that answers does not hold the manager's key that the token, the profile or the
    manager of this machine names."""


class Denied(ConnectionFailed):
    """The manager refused this machine's key."""


class ManagerBusy(ConnectionFailed):
    """The manager is overloaded: try again later."""


class VersionMismatch(ConnectionFailed):
    """The manager speaks another major version of the protocol."""


class NoAnswer(ConnectionFailed, TimeoutError):
    """The request was sent but not answered: it may have been carried out."""


class ProtocolViolation(ConnectionFailed):
    """The manager sent something that the protocol does not allow."""


class TransferFailed(ConnectionFailed):
    """A large value did not arrive complete."""


class MissingPackage(MantaError, ImportError):
    """A package that this call needs is not installed."""


class WaitTimeout(MantaError, TimeoutError):
    """What was waited for did not happen in time."""


class Incomplete(UserWarning):
    """What was read lacks what nodes, after an interruption, have yet to report: read it again."""


class NotSealed(UserWarning):
    """There is a passphrase, and the key of the profile is not sealed with it."""


class ApiClosed(MantaError):
    """The API object was used after it was closed."""


# What the manager refuses.


class RequestRefused(MantaError):
    """The manager refused. `code` is stable (`manta.protocol.codes`), `data` has plain values."""

    def __init__(self, sentence: str, code: str = "", data: dict[str, Any] | None = None) -> None:
        super().__init__(sentence)
        self.code = code
        self.data = data or {}


class NotAuthenticated(RequestRefused):
    """Not signed in, wrong credentials, or a token that is not valid."""


class TokenRefused(NotAuthenticated):
    """A token is missing, malformed, expired, used up, foreign, or bound to another key."""


class Forbidden(RequestRefused):
    """This user is not allowed to do this."""


class RateLimited(RequestRefused):
    """Too many attempts: wait before the next one."""


class QuotaExceeded(RequestRefused):
    """More than is left of a quota; `data` has quota, have, asked and limit."""


class NotFound(RequestRefused, LookupError):
    """No such cluster, node, swarm or tag; or a result stays on a node that cannot give it."""


class Ambiguous(RequestRefused, LookupError):
    """The beginning of an id, or the name, fits more than one."""


class NameTaken(RequestRefused):
    """The name or alias is taken."""


class WrongState(RequestRefused):
    """The cluster or swarm is in a state in which this is not possible."""


class Unplaceable(RequestRefused):
    """No node can run one of the tasks; `problems` gives each task, the reason and the remedy."""

    @property
    def problems(self) -> tuple[str, ...]:
        """A sentence for each task that no node can run."""
        return tuple(self.data.get("problems", ()))


class InvalidRequest(RequestRefused, ValueError):
    """The manager rejected a value in the request."""


class ManagerFault(RequestRefused):
    """The manager's disk, or a part of the manager, is not working right now."""


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
    Code.NODE_HELD: Forbidden,
    Code.NODE_TAKEN_OVER: Forbidden,
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
    Code.RESULT_AWAY: NotFound,
    Code.QUOTA: QuotaExceeded,
    Code.UNAVAILABLE: ManagerFault,
    Code.STORAGE: ManagerFault,
}


def refusal(code: str, sentence: str, data: dict[str, Any]) -> RequestRefused:
    """Returns the error for the manager's code; codes of newer managers give RequestRefused.

    Python prints what an error says as it is: what others named in it is made harmless here.
    """
    return _BY_CODE.get(code, RequestRefused)(visible(sentence), code, data)
