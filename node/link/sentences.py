"""The sentences that tell an operator about the connection to the manager."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from manta.console.exit_codes import Exit
from manta.protocol.codes import Code
from manta.transports.errors import DownReason

if TYPE_CHECKING:
    from manta.node.config import NodeConfig
    from manta.protocol.enrolment import Standing

PERMANENT = frozenset(
    {
        Code.TOKEN_MISSING,
        Code.TOKEN_MALFORMED,
        Code.TOKEN_EXPIRED,
        Code.TOKEN_USED,
        Code.TOKEN_FOREIGN,
        Code.TOKEN_AUDIENCE,
        Code.TOKEN_KEY,
        Code.ALIAS_TAKEN,
        Code.NODE_REMOVED,
        Code.NODE_TAKEN_OVER,
        Code.BAD_CREDENTIALS,
        Code.FORBIDDEN,
        Code.INVALID,
    }
)
"""Refusals that waiting does not heal: the daemon ends."""
_REFUSED = (Code.ALIAS_TAKEN, Code.INVALID, Code.NODE_TAKEN_OVER)
HELD = "held"
"""The state while another daemon with the node's key is connected."""

_KEEPS_TRYING = "the node keeps trying"


def exit_code(code: str) -> Exit:
    """Returns the daemon's exit code for a refusal to let the node join."""
    return Exit.REFUSED if code in _REFUSED else Exit.DENIED


def at_the_wrong_port(standing: Standing, config: NodeConfig) -> str:
    """Returns a sentence if the node dialled the manager's port for users, else ""."""
    nodes, users = (int(each.rpartition(":")[2]) for each in (standing.nodes, standing.users))
    if config.manager_port != users or users == nodes:
        return ""
    return (
        f"{config.manager_address} is the manager's port for users: "
        f"set network.manager_port = {nodes} in {config.path}."
    )


def down(reason: DownReason, address: str, config: str, *, enrolled: bool = True) -> str:
    """Returns what is wrong with the connection and what to do about it."""
    where = f"{config}: network.manager_host and manager_port"
    match reason:
        case DownReason.CONNECTING:
            return f"Connecting to the manager at {address}."
        case DownReason.UNREACHABLE:
            return (
                f"Nobody answers at {address}: start the manager there (manta manager start), or "
                f"correct {where}; {_KEEPS_TRYING}."
            )
        case DownReason.UNKNOWN_HOST:
            return (
                f"The host name of {address} is not known on this machine: correct {where}, or "
                f"put its name service right; {_KEEPS_TRYING}."
            )
        case DownReason.SILENT:
            return (
                f"The manager at {address} has fallen silent: it hangs, or the network is cut; "
                f"{_KEEPS_TRYING}."
            )
        case DownReason.LOST:
            return f"The connection to the manager at {address} broke off; {_KEEPS_TRYING}."
        case DownReason.DENIED if not enrolled:
            # Where nodes are admitted, an unknown key may enrol.
            return (
                f"The manager at {address} denies an unknown key, so this is not its port for "
                f"nodes (50051 unless it was told another), or this key was revoked: correct "
                f"{where}; {_KEEPS_TRYING}."
            )
        case DownReason.DENIED:
            return (
                f"The manager at {address} denies this node's key: the node was removed, or was "
                "never enrolled there; give it a new token (manta node token) and start it again."
            )
        case DownReason.BUSY:
            return (
                f"The manager at {address} is busy and cannot admit this node now; {_KEEPS_TRYING}."
            )
        case DownReason.WRONG_KEY:
            return (
                f"Who answers at {address} is not this node's manager: it does not hold the key "
                f"that the node's token names; correct {where}, or enrol anew with a token of "
                "that manager."
            )
        case DownReason.REVOKED:
            return f"The connection to the manager at {address} was cut: this side revoked it."
        case DownReason.PROTOCOL:
            return (
                f"The manager at {address} and this node do not understand each other; see the "
                f"node's log, and bring both to one version; {_KEEPS_TRYING}."
            )
        case DownReason.VERSION:
            return (
                f"The manager at {address} speaks another major version of the protocol: install "
                "the manager's version of Manta on this node."
            )
        case DownReason.CLOSED:
            return f"The manager at {address} closed the connection; {_KEEPS_TRYING}."
        case _:
            assert_never(reason)
