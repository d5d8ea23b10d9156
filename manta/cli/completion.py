"""Shell completion of names and ids, which are asked of the manager."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from manta.console.completion import files, folders, mapped
from manta.console.visible import visible

if TYPE_CHECKING:
    from manta.apis.user_api import UserAPI

PATIENCE = 0.8
"""Seconds after which completion gives up."""

Given = Mapping[str, Any]
"""The parameters given so far, by name."""
Names = Callable[["UserAPI", Given], list[CompletionItem]]


def swarms(api: UserAPI, _: Given) -> list[CompletionItem]:
    return [
        CompletionItem(swarm.swarm_id, help=f"{swarm.name}, {swarm.status}")
        for swarm in reversed(api.list_swarms())
    ]


def clusters(api: UserAPI, _: Given) -> list[CompletionItem]:
    return [CompletionItem(found.name, help=found.status) for found in api.list_clusters()]


def nodes(api: UserAPI, given: Given) -> list[CompletionItem]:
    """Completes nodes of the given cluster, of the swarm's cluster, or of all."""
    if swarm := given.get("swarm"):
        where = [api.get_swarm(swarm).cluster_id]
    elif cluster := given.get("cluster"):
        where = [cluster]
    else:
        where = [cluster.id for cluster in api.list_clusters()]
    found = [node for cluster in where for node in api.list_nodes(cluster)]
    return [CompletionItem(node.alias, help=node.status) for node in found]


def users(api: UserAPI, _: Given) -> list[CompletionItem]:
    return [CompletionItem(found.email) for found in api.list_users()]


def roles(api: UserAPI, _: Given) -> list[CompletionItem]:
    return [CompletionItem(role.name, help=", ".join(role.rights)) for role in api.list_roles()]


def quotas(api: UserAPI, _: Given) -> list[CompletionItem]:
    return [CompletionItem(quota.name, help=quota.counts) for quota in api.get_quotas()]


def modules(api: UserAPI, _: Given) -> list[CompletionItem]:
    return [CompletionItem(name) for name in dict.fromkeys(m.name for m in api.list_modules())]


def result_tags(api: UserAPI, given: Given) -> list[CompletionItem]:
    return [CompletionItem(tag) for tag in api.list_result_tags(given["swarm"])]


def global_tags(api: UserAPI, given: Given) -> list[CompletionItem]:
    return [CompletionItem(tag) for tag in api.list_global_tags(given["swarm"])]


def tasks(api: UserAPI, given: Given) -> list[CompletionItem]:
    found = api.get_tasks(given["swarm"])
    return [CompletionItem(alias) for alias in dict.fromkeys(task.alias for task in found)]


def profiles() -> list[CompletionItem]:
    from manta.apis.connect import profiles as kept

    return [CompletionItem(name) for name in kept.profiles(kept.home())]


OF_MANAGER: dict[str, Names] = {
    "swarm": swarms,
    "other": swarms,
    "swarms": swarms,
    "cluster": clusters,
    "node": nodes,
    "user": users,
    "user_": users,
    "role_": roles,
    "role": roles,
    "quota_": quotas,
    "module": modules,
    "task": tasks,
    "results tag": result_tags,
    "globals tag": global_tags,
}
"""By the name of the parameter; `name` stands for the name of its group, and `tag` has the name
of its command in front."""
FILES = {"target", "program"}
"""Parameters that name a file."""
FOLDERS = {"home"}
CREATES = {"create", "add", "set", "push"}
"""Commands whose `name` does not exist yet."""


def equip(command: click.Command, group: str = "") -> None:
    """Makes the parameters of a command and its subcommands complete what exists."""
    if isinstance(command, click.Group):
        for below in command.commands.values():
            equip(below, str(command.name))
        return
    for parameter in command.params:
        name = _kind(command, parameter, group)
        if name == "profile":
            parameter._custom_shell_complete = _profiles
        elif name in FILES:
            parameter._custom_shell_complete = files
        elif parameter.metavar == "NAME=PATH":
            parameter._custom_shell_complete = mapped
        elif name in FOLDERS:
            parameter._custom_shell_complete = folders
        elif name in OF_MANAGER:
            parameter._custom_shell_complete = _asking(OF_MANAGER[name])


def _kind(command: click.Command, parameter: click.Parameter, group: str) -> str:
    """Returns what a parameter names, as in OF_MANAGER."""
    name = str(parameter.name)
    if name == "name" and command.name not in CREATES:
        return group if group != "config" else "profile"
    return f"{command.name} tag" if name == "tag" else name


Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _profiles(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    try:
        return _fitting(profiles(), incomplete)
    except Exception:  # as below
        return []


def _asking(names: Names) -> Completer:
    def complete(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Completes nothing on an error, since nobody would read it."""
        signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
        signal.setitimer(signal.ITIMER_REAL, PATIENCE)
        from manta.apis.user_api import UserAPI

        given = _given(ctx)
        try:
            with UserAPI(*(given.get(key) for key in ("token", "host", "port", "profile"))) as api:
                return _fitting(names(api, given), incomplete)
        except Exception:
            return []
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    return complete


def _given(ctx: click.Context) -> Given:
    """Names the arguments, which click does not before the value of an option is complete."""
    arguments = [str(p.name) for p in ctx.command.params if isinstance(p, click.Argument)]
    named = {name: value for name, value in ctx.params.items() if value is not None}
    return {**dict(zip(arguments, ctx.args, strict=False)), **named}


def _fitting(items: list[CompletionItem], incomplete: str) -> list[CompletionItem]:
    """Returns those that begin like this; none that a shell could not take as one word."""
    return [
        CompletionItem(item.value, item.type, item.help and visible(item.help))
        for item in items
        if item.value.startswith(incomplete) and visible(item.value) == item.value
    ]
