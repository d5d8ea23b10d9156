"""Answers to commands of Manta 0.6 with those that do the same here. Pure."""

from __future__ import annotations

from collections.abc import Sequence

_SWARM = {
    "list": "ps",
    "ls": "ps",
    "deploy": "deploy --cluster CLUSTER FILE",
    "run": "deploy --cluster CLUSTER FILE",
    "send": "deploy --cluster CLUSTER FILE",
    "create": "deploy --cluster CLUSTER FILE",
    "start": "deploy --cluster CLUSTER FILE",
    "show": "explain SWARM",
    "get": "explain SWARM",
    "info": "explain SWARM",
    "status": "ps",
    "tasks": "explain SWARM",
    "stop": "stop SWARM",
    "pause": "pause SWARM",
    "resume": "resume SWARM",
    "delete": "rm SWARM",
    "remove": "rm SWARM",
    "rm": "rm SWARM",
    "results": "results SWARM",
    "globals": "globals SWARM",
    "metrics": "metrics SWARM",
    "logs": "logs SWARM",
    "errors": "logs SWARM",
    "monitor": "logs -f SWARM",
}
_MODULE = {
    "upload": "module push PATH",
    "send": "module push PATH",
    "create": "module push PATH",
    "update": "module push PATH",
    "list": "module list",
    "show": "module show MODULE",
    "get": "module show MODULE",
    "delete": "module rm MODULE",
    "remove": "module rm MODULE",
}
_CLUSTER = {
    "create": "cluster create NAME",
    "list": "cluster list",
    "show": "cluster show NAME",
    "get": "cluster show NAME",
    "start": "cluster start NAME",
    "stop": "cluster stop NAME",
    "delete": "cluster rm NAME",
    "remove": "cluster rm NAME",
    "nodes": "node list CLUSTER",
}
_USER = {
    "list": "user list",
    "create": "user add EMAIL",
    "delete": "user rm USER",
    "login": "sign-in",
    "logout": "sign-out",
}
_CONFIG = {
    "init": "sign-in",
    "list": "config list",
    "show": "config show",
    "set": "config set KEY VALUE",
    "use": "config use NAME",
    "activate": "config use NAME",
    "delete": "config rm NAME",
}
_GROUPS = {
    "swarm": (_SWARM, "ps"),
    "swarms": (_SWARM, "ps"),
    "module": (_MODULE, "module --help"),
    "cluster": (_CLUSTER, "cluster --help"),
    "user": (_USER, "user show"),
    "config": (_CONFIG, "config show"),
    "credentials": (_CONFIG, "token show"),
    "node": ({"list": "node list CLUSTER", "show": "node show NAME"}, "node --help"),
}
_ALONE = {name: f"{name} SWARM" for name in ("results", "globals", "logs", "metrics")}
_ALONE |= {
    "errors": "logs SWARM",
    "login": "sign-in",
    "logout": "sign-out",
    "deploy": _SWARM["run"],
}
_DAEMON = ("start", "status", "logs", "config", "cluster", "doctor", "instances")
"""What `manta node` did to a daemon of this machine, which is `manta_node` here."""
PAGE = "The page `Coming from Manta 0.6` of the documentation lists all."


def answer(words: Sequence[str]) -> str | None:
    """Returns what to say to `manta WORDS`, if Manta 0.6 had such a command."""
    sdk = bool(words) and words[0] == "sdk"
    said = [word for word in words[1 if sdk else 0 :] if not word.startswith("-")]
    if not sdk and (not said or said[0] not in ("swarm", "swarms")):
        return None
    meant = _meant(said)
    old = " ".join(["manta", *(["sdk"] if sdk else []), *said[:2]])
    return f"`{old}` was a command of Manta 0.6; here it is `manta {meant}`. {PAGE}"


def answer_of_node(words: Sequence[str]) -> str | None:
    """Returns what to say to `manta node WORDS`."""
    if not words or words[0] not in _DAEMON:
        return None
    verb = "status --all" if words[0] == "instances" else words[0]
    more = " ".join(word for word in words[1:] if not word.startswith("-"))
    here = f"manta_node {verb} {more}".rstrip()
    return f"A node of this machine has a command of its own: `{here}`. {PAGE}"


def _meant(said: Sequence[str]) -> str:
    """Returns a command, with what was given in the place of names."""
    if not said:
        return "--help"
    if said[0] in _GROUPS:
        verbs, otherwise = _GROUPS[said[0]]
        verb, given = (said[1] if len(said) > 1 else ""), list(said[2:])
        command = verbs.get(verb, otherwise)
    else:
        command, given = _ALONE.get(said[0], "--help"), list(said[1:])
    places = [word for word in command.split() if word.isupper()]
    for place, word in zip(places[-len(given) :] if given else [], given, strict=False):
        command = command.replace(place, word)
    return command
