"""`manta_node config`: make, look at, check, change and delete configurations."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from manta.node import places
from manta.node.errors import NodeError
from manta.node.places import config_path

NAME = click.argument("name", default="default", metavar="[NAME]")
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def config() -> None:
    """Make and look at configurations."""


@config.command("init")
@NAME
@click.option("--token", help="To enrol; better left to the variable MANTA_NODE_TOKEN.")
@click.option("--alias", help="What the node is called in its cluster.")
@click.option("--id", "id_mode", type=click.Choice(["hardware", "random", "alias"]))
@click.option("--manager-host", metavar="HOST")
@click.option("--manager-port", type=click.IntRange(1, 65535))
@click.option("--max-concurrent-tasks", type=click.IntRange(0, 10_000))
@click.option("--reserve-cpu-percent", type=click.FloatRange(0, 100))
@click.option("--reserve-memory-mb", type=click.IntRange(0))
@click.option("--runner", type=click.Choice(["auto", "docker", "process"]))
@click.option("--gpu-enabled/--no-gpu-enabled", default=None)
@click.option("--allow-unsandboxed/--no-allow-unsandboxed", default=None)
@click.option("--dataset", "datasets", multiple=True, metavar="NAME=PATH")
@click.option("--label", "labels", multiple=True, metavar="NAME=TEXT")
@click.option("--log-level", type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"]))
@click.option("--force", is_flag=True, help="Replace a configuration that is there.")
def config_init(name: str, force: bool, **answers: object) -> None:
    """Make a configuration: asks on a terminal what no option answers."""
    from manta.node import config_init as init
    from manta.node.config import parse

    path = config_path(name)
    if path.exists() and not force:
        raise click.ClickException(f"{path} exists already; --force replaces it.")
    if sys.stdin.isatty():
        init.ask(name, answers)
    text = init.render(name, answers)
    parse(text, path, os.environ)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    click.echo(f"{path} written. Start the node with `manta_node start {name}`.")


@config.command("show")
@NAME
@AS_JSON
def config_show(name: str, as_json: bool) -> None:
    """Show the configuration in force, defaults included, secrets left out."""
    from manta.node.config import load, render

    text = render(load(config_path(name)))
    if as_json:
        import tomli

        _print(tomli.loads(text))
    else:
        click.echo(text, nl=False)


@config.command("validate")
@NAME
@AS_JSON
def config_validate(name: str, as_json: bool) -> None:
    """Check a configuration, and that its datasets are there."""
    path = config_path(name)
    try:
        _check(path.read_text(encoding="utf-8") if path.exists() else None, path)
    except NodeError as error:
        if not as_json:
            raise
        _print({"name": name, "path": str(path), "valid": False, "error": str(error)})
        raise click.exceptions.Exit(1) from None
    if as_json:
        _print({"name": name, "path": str(path), "valid": True, "error": None})
    else:
        click.echo(f"{path} is valid.")


@config.command("list")
@AS_JSON
def config_list(as_json: bool) -> None:
    """List the configurations."""
    paths = sorted((places.home() / "nodes").glob("*.toml"))
    if as_json:
        running = {path.stem: places.state_folder(path.stem).running_pid() for path in paths}
        _print([{"name": p.stem, "path": str(p), "pid": running[p.stem]} for p in paths])
        return
    for path in paths:
        click.echo(path.stem)


@config.command("edit")
@NAME
def config_edit(name: str) -> None:
    """Change a configuration in $VISUAL or $EDITOR; it is replaced once it is valid."""
    path = config_path(name)
    _must_exist(name, path)
    draft = path.with_name(f".{name}.draft")
    if not draft.exists():  # else it is one that was not valid: go on with that
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(path.read_bytes())
    while True:
        try:
            _edit(draft)
        except click.ClickException:
            if draft.read_bytes() == path.read_bytes():
                draft.unlink()
            raise
        text = draft.read_text(encoding="utf-8", errors="replace")
        try:
            _check(text, path)
            break
        except NodeError as error:
            click.echo(f"Error: {error}", err=True)
            if not (sys.stdin.isatty() and click.confirm("Edit it again", default=True)):
                raise click.ClickException(
                    f"{path} is as it was; what you wrote is in {draft}, and the next "
                    f"`manta_node config edit {name}` goes on with it."
                ) from None
    if text == path.read_text(encoding="utf-8", errors="replace"):
        draft.unlink()
        click.echo(f"{path} is unchanged.")
        return
    os.replace(draft, path)
    restart = f" Restart the node {name} for it." if _pid(name) else ""
    click.echo(f"{path} was changed.{restart}")


@config.command("delete")
@NAME
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--state", is_flag=True, help="Its key, journal and logs too.")
def config_delete(name: str, yes: bool, state: bool) -> None:
    """Delete a configuration; refused while its node runs."""
    path = config_path(name)
    folder = places.state_folder(name).path
    _must_exist(name, path)
    if (pid := _pid(name)) is not None:
        raise click.ClickException(
            f"The node {name} runs (process {pid}): stop it first, with `manta_node stop {name}`."
        )
    what = f"{path} and {folder}, with the node's key," if state else str(path)
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError(f"{what} would be deleted: confirm it with --yes.")
        click.confirm(f"Delete {what} for good", abort=True)
    if state and folder.exists():
        import shutil

        shutil.rmtree(folder)
    path.unlink()
    click.echo(f"Deleted {what.rstrip(',')}.")


def _check(text: str | None, path: Path) -> None:
    """Raises ConfigError. Without a text, `load` says what is the matter with the file."""
    from manta.node import datasets
    from manta.node.config import load, parse

    datasets.check(load(path) if text is None else parse(text, path, os.environ))


def _edit(draft: Path) -> None:
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        code = subprocess.run([*shlex.split(editor), str(draft)], check=False).returncode
    except (OSError, ValueError) as error:
        raise click.ClickException(
            f"The editor {editor!r} cannot be started ({error}): set VISUAL or EDITOR."
        ) from None
    if code:
        raise click.ClickException(f"The editor {editor!r} failed ({code}); nothing was changed.")


def _must_exist(name: str, path: Path) -> None:
    if not path.exists():
        raise click.ClickException(
            f"There is no configuration {name!r} ({path}); make one with "
            f"`manta_node config init {name}`."
        )


def _pid(name: str) -> int | None:
    return places.state_folder(name).running_pid()


def _print(data: Any) -> None:
    click.echo(json.dumps(data, indent=2))
