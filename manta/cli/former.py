"""Answers to commands of Manta 0.6 with those that do the same here. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

Verbs = Mapping[str, str | tuple[str, str]]
"""Old verbs -> the command; with what came behind them, where the command doesn't name that."""
DEPLOY = "manta deploy --cluster CLUSTER FILE"
_SWARM: Verbs = {
    "list list-ids ls status": "manta ps",
    "deploy run send create": DEPLOY,
    "start": ("SWARM", DEPLOY),
    "show get info tasks": "manta explain SWARM",
    "stop": "manta stop SWARM",
    "pause": "manta pause SWARM",
    "resume": "manta resume SWARM",
    "delete remove rm": "manta rm SWARM",
    "results": "manta results SWARM",
    "globals": "manta globals SWARM",
    "metrics": "manta metrics SWARM",
    "logs errors": "manta logs SWARM",
    "monitor": "manta logs -f SWARM",
}
_MODULE: Verbs = {
    "push upload send create": "manta module push PATH",
    "update": ("MODULE PATH", "manta module push PATH"),
    "list list-ids": "manta module list",
    "show get": "manta module show MODULE",
    "delete remove": "manta module rm MODULE",
}
_CLUSTER: Verbs = {
    "create": "manta cluster create NAME",
    "list list-ids": "manta cluster list",
    "show get": "manta cluster show NAME",
    "start": "manta cluster start NAME",
    "stop": "manta cluster stop NAME",
    "delete remove": "manta cluster rm NAME",
    "nodes": "manta node list CLUSTER",
}
_NODE: Verbs = {"list": "manta node list CLUSTER", "show get": "manta node show NAME"}
_USER: Verbs = {
    "list": "manta user list",
    "status show get get-user": "manta user show",
    "list-clusters": "manta cluster list",
    "list-swarms": "manta ps",
    "create add": "manta user add EMAIL",
    "delete": "manta user rm USER",
    "login": "manta sign-in",
    "logout": "manta sign-out",
}
_CONFIG: Verbs = {
    "init create": "manta sign-in",
    "list": "manta config list",
    "show": "manta config show",
    "set edit": ("", "manta config set KEY VALUE"),
    "use activate": "manta config use NAME",
    "delete": "manta config rm NAME",
}
_RESULTS: Verbs = {
    "get list-tags": "manta results SWARM",
    "stream": "manta results SWARM --wait",
    "export": "manta pull SWARM",
}
_GLOBALS: Verbs = {"get list-tags stream": "manta globals SWARM", "export": "manta pull SWARM"}
_LOGS: Verbs = {"get": "manta logs SWARM", "stream": "manta logs -f SWARM"}
_INSTALL = "pip install 'manta-swarm[node,manager]'"

_GROUPS: dict[str, tuple[Verbs, str]] = {
    "swarm": (_SWARM, "manta ps"),
    "swarms": (_SWARM, "manta ps"),
    "module": (_MODULE, "manta module --help"),
    "cluster": (_CLUSTER, "manta cluster --help"),
    "node": (_NODE, "manta node --help"),
    "nodes": (_NODE, "manta node --help"),
    "user": (_USER, "manta user show"),
    "config": (_CONFIG, "manta config show"),
    "credentials": (_CONFIG, "manta token show"),
    "results": (_RESULTS, "manta results SWARM"),
    "globals": (_GLOBALS, "manta globals SWARM"),
    "logs": (_LOGS, "manta logs SWARM"),
    "metrics": ({}, "manta metrics SWARM"),
    "errors": ({}, "manta logs SWARM"),
    "login": ({}, "manta sign-in"),
    "logout": ({}, "manta sign-out"),
    "deploy": ({}, DEPLOY),
    "status": ({}, "manta manager status"),
    "install": ({}, _INSTALL),
    "doc": ({}, "manta --help"),
}
_ALONE = ("swarm", "swarms", "status", "install", "doc")
"""Those that came without `sdk` as well, and do not exist here."""
_DAEMON = ("start", "status", "logs", "config", "cluster", "doctor", "instances")
"""What `manta node` did to a daemon of this machine, which is `manta_node` here."""
_FLAGS = ("--force", "--debug", "--interactive", "--open", "--all")
"""Options without a value."""
PAGE = "The page `Coming from Manta 0.6` of the documentation lists all."


def answer(words: Sequence[str]) -> str | None:
    """Returns what to say to `manta WORDS`, if Manta 0.6 had such a command."""
    sdk = bool(words) and words[0] == "sdk"
    said = _arguments(words[1:] if sdk else words)
    if not sdk and (not said or said[0] not in _ALONE):
        return None
    old = " ".join(["manta", *(["sdk"] if sdk else []), *said[:2]])
    return f"`{old}` was a command of Manta 0.6; here it is `{_meant(said)}`. {PAGE}"


def answer_of_node(words: Sequence[str]) -> str | None:
    """Returns what to say to `manta node WORDS`."""
    if not words or words[0] not in _DAEMON:
        return None
    verb = "status --all" if words[0] == "instances" else words[0]
    here = " ".join(["manta_node", verb, *_arguments(words[1:])])
    return f"A node of this machine has a command of its own: `{here}`. {PAGE}"


def _arguments(words: Iterable[str]) -> list[str]:
    """Returns the words that are neither options nor their values."""
    found, is_value = [], False
    for word in words:
        if word.startswith("-"):
            is_value = word.startswith("--") and "=" not in word and word not in _FLAGS
        else:
            if not is_value:
                found.append(word)
            is_value = False
    return found


def _meant(said: Sequence[str]) -> str:
    """Returns a command, with what was given in the place of names."""
    if not said or said[0] not in _GROUPS:
        return "manta --help"
    verbs, otherwise = _GROUPS[said[0]]
    found = next((verbs[one] for one in verbs if said[1:] and said[1] in one.split()), None)
    given = said[1:] if found is None else said[2:]
    names, command = found if isinstance(found, tuple) else ("", found or otherwise)
    if not isinstance(found, tuple):
        names = " ".join(word for word in command.split() if word.isupper())
    places = names.split()
    for place, word in zip(places[-len(given) :] if given else [], given, strict=False):
        command = command.replace(place, word)
    return command
