"""The exit code and the sentence for an error of `manta_node` or of a daemon."""

from __future__ import annotations

from manta.console.exit_codes import Exit
from manta.node.errors import DaemonEnded, NoConfig, NodeError, TokenError, UnknownName


def of_error(error: BaseException) -> Exit:
    from manta.actors import ActorError
    from manta.transports.errors import TransportError

    match error:
        case NoConfig() | UnknownName():
            return Exit.NOT_FOUND
        case TokenError():
            return Exit.DENIED
        case DaemonEnded(code=code) if code in list(Exit):
            return Exit(code)
        case NodeError() | TransportError() | ActorError() | OSError():
            return Exit.LOCAL
        case _:
            return Exit.INTERNAL


def sentence_of(error: BaseException) -> str:
    """Returns what a person reads. A fault of Manta's own is written to a file, which is named."""
    if of_error(error) is Exit.INTERNAL:
        from manta.protocol.faults import sentence

        return sentence(error)
    if isinstance(error, OSError):
        from manta.node.daemon.places import home
        from manta.transports.errors import remedied

        return f"{error.filename or home()}: {remedied(error)}."
    said = str(error)
    return said if said.endswith((".", "?")) else f"{said}."
