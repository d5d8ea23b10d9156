"""Names and ids that a shell completes, asked of the manager, which must not keep it waiting."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from manta.apis.user_api import UserAPI

PATIENCE = 0.8
"""Seconds after which nothing is offered."""

Names = Callable[["UserAPI"], list[CompletionItem]]


def swarms(api: UserAPI) -> list[CompletionItem]:
    return [
        CompletionItem(swarm.swarm_id, help=f"{swarm.name}, {swarm.status}")
        for swarm in reversed(api.list_swarms())
    ]


def clusters(api: UserAPI) -> list[CompletionItem]:
    return [CompletionItem(found.name, help=found.status) for found in api.list_clusters()]


def profiles() -> list[CompletionItem]:
    from manta.apis import profiles as kept

    return [CompletionItem(name) for name in kept.profiles(kept.home())]


OF_MANAGER: dict[str, Names] = {"swarm": swarms, "swarms": swarms, "cluster": clusters}
"""By the name of a parameter."""
CREATES = {"create", "add", "set"}
"""Commands whose `name` is a new one."""


def equip(command: click.Command, group: str = "") -> None:
    """Have the parameters of the command, and of those below it, complete what there is."""
    if isinstance(command, click.Group):
        for below in command.commands.values():
            equip(below, str(command.name))
        return
    for parameter in command.params:
        name = str(parameter.name)
        if name == "name" and command.name not in CREATES:
            name = group if group != "config" else "profile"
        if name == "profile":
            parameter._custom_shell_complete = _profiles
        elif name in OF_MANAGER:
            parameter._custom_shell_complete = _asking(OF_MANAGER[name])


Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _profiles(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    try:
        return _fitting(profiles(), incomplete)
    except Exception:
        return []


def _asking(names: Names) -> Completer:
    def complete(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Nobody is there to read an error; the shell goes on as if there were nothing."""
        signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
        signal.setitimer(signal.ITIMER_REAL, PATIENCE)
        from manta.apis.user_api import UserAPI

        given = ctx.params
        try:
            with UserAPI(*(given.get(key) for key in ("token", "host", "port", "profile"))) as api:
                return _fitting(names(api), incomplete)
        except Exception:
            return []
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    return complete


def _fitting(items: list[CompletionItem], incomplete: str) -> list[CompletionItem]:
    return [item for item in items if str(item.value).startswith(incomplete)]
