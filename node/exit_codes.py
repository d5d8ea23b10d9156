"""The exit code of `manta_node`, and of a node's daemon, for what went wrong."""

from __future__ import annotations

from manta.console.exit_codes import Exit
from manta.node.errors import NoConfig, NodeError, NotStarted, TokenError
from manta.protocol.codes import Code

_REFUSED = (Code.ALIAS_TAKEN, Code.INVALID)


def of_error(error: BaseException) -> Exit:
    from manta.actors import ActorError
    from manta.transports.errors import TransportError

    match error:
        case NoConfig():
            return Exit.NOT_FOUND
        case TokenError():
            return Exit.DENIED
        case NotStarted(code=code) if code in list(Exit):
            return Exit(code)
        case NodeError() | TransportError() | ActorError() | OSError():
            return Exit.LOCAL
        case _:
            return Exit.INTERNAL


def of_refusal(code: str) -> Exit:
    """Of what the manager said to a node that wanted to join."""
    return Exit.REFUSED if code in _REFUSED else Exit.DENIED
