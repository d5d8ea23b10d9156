"""Exit codes and their meaning. docs/exit-codes.md is this table; a test compares them."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    OK = 0
    SWARM_FAILED = 1
    USAGE = 2
    SWARM_STOPPED = 3
    INVALID_SWARM = 4
    NOT_FOUND = 5
    DENIED = 6
    UNREACHABLE = 7
    REFUSED = 8
    UNPLACEABLE = 9
    TIMEOUT = 10
    LOCAL = 11
    INTERNAL = 70
    INTERRUPTED = 130
    TERMINATED = 143


MEANING = {
    Exit.OK: "Success; a swarm that was followed is COMPLETED.",
    Exit.SWARM_FAILED: "The swarm that was run or followed is FAILED; its reason was shown.",
    Exit.USAGE: "The command line is wrong: an unknown command or option, or a missing argument.",
    Exit.SWARM_STOPPED: "The swarm that was run or followed was STOPPED by a user.",
    Exit.INVALID_SWARM: "The swarm's file or the swarm itself is not valid; nothing was deployed.",
    Exit.NOT_FOUND: (
        "No such cluster, node, swarm, tag, result or configuration, or an ambiguous name."
    ),
    Exit.DENIED: "Not signed in, not allowed, or a token that is not valid.",
    Exit.UNREACHABLE: (
        "The manager cannot be reached, or has another key or version; or no node connected."
    ),
    Exit.REFUSED: "The manager refused the request; the message says why.",
    Exit.UNPLACEABLE: "No node can run one of the swarm's tasks; nothing was deployed.",
    Exit.TIMEOUT: "What was waited for did not happen in time.",
    Exit.LOCAL: (
        "A problem of this machine: a profile, configuration, key, port, an audit log that is not "
        "as it was written, or a process that died."
    ),
    Exit.INTERNAL: "A bug in Manta; the message names the file with the details.",
    Exit.INTERRUPTED: (
        "Ctrl-C, or a question answered with no; "
        "everything that the command had started was stopped."
    ),
    Exit.TERMINATED: "SIGTERM or SIGHUP; everything that the command had started was stopped.",
}
