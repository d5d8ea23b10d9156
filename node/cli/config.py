"""`manta_node config`: make, show, check, change and delete configurations."""

from __future__ import annotations

import functools
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from manta.console.commands import Group, as_json_option, say, show_example
from manta.console.completion import mapped
from manta.console.exit_codes import Exit
from manta.console.terminal import confirm, print_lines, say_error, say_note
from manta.node.config import KEYS, Key
from manta.node.daemon import places
from manta.node.daemon.exit_codes import of_error
from manta.node.daemon.places import config_of, config_path
from manta.node.errors import ConfigError, Flaw, NoConfig, NodeError, OperatorError

if TYPE_CHECKING:
    from manta.node.state import StateFolder

DEFAULT = "default"


def _names(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Completes the names of configurations."""
    from manta.node.daemon.places import names

    return [name for name in names() if name.startswith(incomplete)]


NAME = click.argument("name", default=DEFAULT, metavar="[NAME]", shell_complete=_names)


@click.group(cls=Group)
def config() -> None:
    """Make, show, check, change and delete configurations."""


def _one_for_each_key(command: Callable[..., None]) -> Callable[..., None]:
    """Add an option for each key; the command receives `answers` by the keys' paths."""

    @functools.wraps(command)
    def with_answers(**given: Any) -> None:
        answers = {path: given.pop(_parameter(key)) for path, key in KEYS.items()}
        command(**given, answers=answers)

    command_with_options: Callable[..., None] = with_answers
    for key in reversed(KEYS.values()):
        command_with_options = _option(key)(command_with_options)
    return command_with_options


def _parameter(key: Key) -> str:
    return key.path.replace(".", "_")


def _option(key: Key) -> Callable[[Callable[..., None]], Callable[..., None]]:
    default = f"  [default: {key.shown_default}]" if key.shown_default else ""
    option = key.option
    how: dict[str, Any] = {"metavar": key.metavar, "help": key.help + default}
    if key.is_repeated:
        how["multiple"] = True
        how["shell_complete"] = mapped if key.metavar == "NAME=PATH" else None
    elif key.type is bool:
        option = f"{option}/--no-{option[2:]}"
        how["default"] = None
    elif key.choices:
        how["type"] = click.Choice(key.choices)
    elif key.type is int:
        how["type"] = click.IntRange(key.low, key.high)
    elif key.type is float:
        how["type"] = click.FloatRange(key.low, key.high)
    return click.option(option, _parameter(key), **how)


@config.command("init")
@NAME
@_one_for_each_key
@click.option("--force", is_flag=True, help="Replace an existing configuration.")
@as_json_option
def config_init(name: str, force: bool, as_json: bool, answers: dict[str, Any]) -> None:
    """Make a configuration; on a terminal, asks for what no option answers."""
    from manta.node.cli import init

    path = config_path(name)
    if path.exists() and not force:
        raise OperatorError(f"{path} exists already; --force replaces it.")
    init.make(name, path, answers)
    sentence = f"{path} written. Start the node with `manta_node start {name}`."
    say({"name": name, "path": path}, sentence, as_json=as_json)


@config.command("show")
@NAME
@as_json_option
def config_show(name: str, as_json: bool) -> None:
    """Show the configuration in force, defaults included, secrets left out."""
    from manta.console import json_form
    from manta.node.config import render

    text = render(config_of(name))
    if as_json:
        import tomli

        json_form.show(tomli.loads(text))
    else:
        print_lines(*text.removesuffix("\n").split("\n"))


@config.command("validate")
@NAME
@as_json_option
def config_validate(name: str, as_json: bool) -> int:
    """Check a configuration and its datasets; everything that is wrong is listed."""
    from manta.console import json_form
    from manta.node.capabilities import datasets
    from manta.node.policy import reading

    path = config_path(name)
    try:
        found = config_of(name)
        datasets.check(found)
        if found.policy is not None:
            reading.load(found.policy)
    except ConfigError as error:
        if not as_json:
            raise
        flaws = [{**asdict(flaw), "where": ".".join(flaw.where)} for flaw in error.flaws]
        json_form.show({"name": name, "path": path, "valid": False, "flaws": flaws})
        return of_error(error)
    say(
        {"name": name, "path": path, "valid": True, "flaws": []},
        f"{path} is valid.",
        as_json=as_json,
    )
    for note in found.notes:
        say_note(f"{path}: {note}.")
    return Exit.OK


@config.command("list")
@as_json_option
def config_list(as_json: bool) -> None:
    """List the configurations."""
    from manta.console import json_form

    paths = sorted((places.home() / "nodes").glob("*.toml"))
    if as_json:
        running = {path.stem: places.state_folder(path.stem).running_pid() for path in paths}
        json_form.show([{"name": p.stem, "path": p, "pid": running[p.stem]} for p in paths])
        return
    for path in paths:
        print_lines(path.stem)
    if not paths:
        print_lines("There are none yet; `manta_node config init` makes one.", err=True)


@config.command("edit")
@NAME
@as_json_option
def config_edit(name: str, as_json: bool) -> None:
    """Change a configuration in $VISUAL or $EDITOR; it is replaced once it is valid."""
    from manta.node.capabilities import datasets
    from manta.node.config import parse
    from manta.transports.security.keys import write_private

    path = config_path(name)
    _must_exist(name, path)
    draft = path.with_name(f".{name}.draft")
    if not draft.exists():  # else it is one that was not valid: go on with that
        write_private(draft, path.read_text(encoding="utf-8", errors="replace"))
    while True:
        try:
            _edit(draft)
        except OperatorError:
            if draft.read_bytes() == path.read_bytes():
                draft.unlink()
            raise
        text = draft.read_text(encoding="utf-8", errors="replace")
        try:
            datasets.check(parse(text, path, os.environ))
            break
        except NodeError as error:
            say_error(str(error))
            if not (sys.stdin.isatty() and confirm("Edit it again", default=True)):
                raise OperatorError(
                    f"{path} is unchanged; what you wrote is in {draft}, and the next "
                    f"`manta_node config edit {name}` continues with it."
                ) from None
    if text == path.read_text(encoding="utf-8", errors="replace"):
        draft.unlink()
        unchanged = {"name": name, "path": path, "changed": False}
        say(unchanged, f"{path} is unchanged.", as_json=as_json)
        return
    os.replace(draft, path)
    restart = f" Restart the node {name} for it." if _pid(name) else ""
    say(
        {"name": name, "path": path, "changed": True},
        f"{path} was changed.{restart}",
        as_json=as_json,
    )


@config.command("delete")
@NAME
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--state", is_flag=True, help="Delete its key, journal and logs too.")
@as_json_option
def config_delete(name: str, yes: bool, state: bool, as_json: bool) -> None:
    """Delete a configuration; refused while its node runs."""
    from manta.node.daemon.background import await_end

    path = config_path(name)
    folder = places.state_folder(name).path
    _must_exist(name, path)
    await_end(name, places.state_folder(name))
    if (pid := _pid(name)) is not None:
        raise OperatorError(
            f"The node {name} runs (process {pid}): stop it first, with `manta_node stop {name}`."
        )
    what = f"{path} and {folder}, with the node's key," if state else str(path)
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError(f"{what} would be deleted: confirm it with --yes.")
        confirm(f"Delete {what} for good", abort=True)
    if state and folder.exists():
        _delete_state(places.state_folder(name))
    path.unlink()
    deleted = {"name": name, "path": path, "state": state, "deleted": True}
    say(deleted, f"Deleted {what.rstrip(',')}.", as_json=as_json)


def _delete_state(state: StateFolder) -> None:
    """Delete a state folder, the key last: until all else is gone the node keeps its identity.

    Raises OperatorError.
    """
    from manta.node.state import remove_folder

    for path in state.path.iterdir():
        if path.is_dir() and not path.is_symlink():
            remove_folder(path)
        elif path != state.key_file:
            path.unlink()
    left = [path for path in state.path.iterdir() if path != state.key_file]
    if left:
        raise OperatorError(
            f"{left[0]} could not be removed completely: remove it, as the user whose files are in "
            "it, and delete again. The configuration and the node's key are still there."
        )
    remove_folder(state.path)


def _edit(draft: Path) -> None:
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        code = subprocess.run([*shlex.split(editor), str(draft)], check=False).returncode
    except (OSError, ValueError) as error:
        raise OperatorError(
            f"The editor {editor!r} cannot be started ({error}): set VISUAL or EDITOR."
        ) from None
    if code:
        raise OperatorError(f"The editor {editor!r} failed ({code}); nothing was changed.")


def _must_exist(name: str, path: Path) -> None:
    if not path.exists():
        make = f"make one with `manta_node config init {name}`"
        raise NoConfig(path, Flaw(f"there is no configuration {name!r}", make))


def _pid(name: str) -> int | None:
    return places.state_folder(name).running_pid()


for _command, _example in {
    config_init: "manta_node config init edge --manager-host manager.lan --label room=lab-3",
    config_show: "manta_node config show edge",
    config_validate: "manta_node config validate edge --json",
    config_list: "manta_node config list",
    config_edit: "EDITOR=nano manta_node config edit edge",
    config_delete: "manta_node config delete edge --state",
}.items():
    show_example(_command, _example)
