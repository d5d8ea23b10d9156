"""The `manta_node` command. What a command needs is imported when it is called."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NoReturn

import click

from manta.console.commands import Group, as_json_option, run, say, show_example
from manta.console.completion import completion_command
from manta.console.exit_codes import Exit
from manta.console.terminal import print_lines, say_error, say_note
from manta.node.cli.approve import approve, deny, revoke
from manta.node.cli.audit import audit
from manta.node.cli.cluster import cluster
from manta.node.cli.config import DEFAULT, NAME, config
from manta.node.cli.doctor import doctor
from manta.node.cli.orders import drain, reload
from manta.node.cli.policy import policy
from manta.node.cli.results import results
from manta.node.cli.service import service
from manta.node.cli.who import who
from manta.node.daemon.places import (
    config_of,
    config_path,
    members,
    must_be_known,
    names,
    state_folder,
)
from manta.node.errors import NodeError, OperatorError
from manta.protocol.version import VERSION

if TYPE_CHECKING:
    from pathlib import Path

    from manta.node.config import NodeConfig
    from manta.node.state import StateFolder


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="manta_node")
def cli() -> None:
    """Run a Manta node on this machine. NAME is its configuration, `default` when left out."""


@cli.command()
@NAME
@click.option("--background", is_flag=True, help="Return once the node is running.")
@click.option("--json", "as_json", is_flag=True, help="With --background: print JSON.")
def start(name: str, background: bool, as_json: bool) -> None:
    """Start the node; in the foreground, Ctrl-C stops it."""
    if as_json and not background:
        raise click.UsageError("--json goes with --background: without it the node's log is shown.")
    is_made = name == DEFAULT and _configured_from_environment(config_path(name))
    found = config_of(name)
    if name == DEFAULT and not is_made:
        _note_overruled(found)
    folder = state_folder(name)
    if not background:
        _start_here(found, folder)
        return
    from manta.node.daemon import background as daemons

    status = daemons.start(found, folder)
    sentence = f"The node {name} runs (process {status.pid}). {status.sentence}"
    say(daemons.record(name, folder), sentence, as_json=as_json)


def _start_here(config: NodeConfig, folder: StateFolder) -> None:
    from manta.node.config import become_clean
    from manta.node.daemon import background, logs, process
    from manta.transports.security.keys import make_private_folder

    background.await_end(config.name, folder)
    background.must_not_run(config.name, folder)
    become_clean(config.token_variables)
    make_private_folder(folder.path)
    logs.configure(
        config.log_level,
        file=folder.log_file,
        limit=config.log_rotation,
        console=config.log_to_console,
    )
    process.run(config, folder.path)


def _configured_from_environment(path: Path) -> bool:
    """Make the configuration from MANTA_NODE_* variables if it does not exist: in containers.

    One with which the node could not run is not made, so that the variables can be corrected.
    """
    if path.exists():
        return False
    from manta.node.capabilities import datasets
    from manta.node.cli.environment import from_environment
    from manta.node.config import environment, parse
    from manta.node.runners.selection import choose
    from manta.node.service.node import belongs_to
    from manta.transports.security.keys import write_private

    text = from_environment(environment())
    if text is None:
        return False
    found = parse(text, path, environment())
    try:
        datasets.check(found)
        belongs_to(found, state_folder(DEFAULT))
        choose(found, state_folder(DEFAULT).path)
    except NodeError:
        say_note(f"{path} was not made: correct the MANTA_NODE_* variables that it is made from.")
        raise
    write_private(path, text)
    print_lines(f"{path} was made from the MANTA_NODE_* variables.", err=True)
    return True


def _note_overruled(config: NodeConfig) -> None:
    from manta.node.cli.environment import overruled
    from manta.node.config import environment

    if sentence := overruled(config, environment()):
        say_note(sentence)


@cli.command()
@NAME
@as_json_option
def stop(name: str, as_json: bool) -> None:
    """Stop the node; its tasks end, and the manager is told."""
    from manta.node.daemon import background as daemons

    must_be_known(name)
    folder = state_folder(name)
    pid = daemons.ask_to_stop(folder)
    if pid is not None:
        daemons.wait_for_end(name, folder, pid)
    sentence = f"The node {name} {'does not run' if pid is None else 'was stopped'}."
    say({"name": name, "pid": pid, "stopped": pid is not None}, sentence, as_json=as_json)


@cli.command()
@NAME
@click.option("--all", "all_", is_flag=True, help="All nodes of this machine.")
@as_json_option
def status(name: str, all_: bool, as_json: bool) -> int:
    """Show the state of the node, or of the nodes of the cluster NAME.

    Exits with 0 if it is connected, with 6 if it was denied, with 7 otherwise.
    """
    from manta.console import json_form, text
    from manta.node.daemon import background as daemons

    several = names() if all_ else _nodes_of(name)
    if not (several or all_):
        must_be_known(name)
    shown = several if all_ else several or [name]
    records = [daemons.record(each, state_folder(each)) for each in shown]
    if as_json:
        json_form.show(records if several or all_ else records[0])
    elif several:
        print_lines(*text.table(_COLUMNS, [_row(record) for record in records]))
    elif all_:
        print_lines("There is no node yet; make one with `manta_node config init`.")
    else:
        print_lines(*_lines(records[0]))
        others = [each for each in names() if each != name]
        if name == DEFAULT and others:
            print_lines(
                f"That is the node {DEFAULT}; there are others, which `manta_node status --all` "
                f"shows: {', '.join(others)}."
            )
    if not records:
        return Exit.UNREACHABLE
    states = {record["state"] for record in records} - {"connected"}
    if not states:
        return Exit.OK
    return Exit.DENIED if states <= {"denied", "refused"} else Exit.UNREACHABLE


def _nodes_of(cluster: str) -> list[str]:
    """Returns the cluster's nodes on this machine, and the node of the same name if it runs."""
    found = list(members(cluster))
    return [cluster, *found] if found and state_folder(cluster).running_pid() else found


_COLUMNS = ("NAME", "STATE", "ALIAS", "PROCESS", "TASKS", "MANAGER")


def _row(record: dict[str, Any]) -> list[str]:
    fields = (record["name"], record["state"], record["alias"], record["pid"])
    tasks = f"{record['tasks_running']}+{record['tasks_queued']}" if record["pid"] else ""
    return [str(field or "") for field in (*fields, tasks, record["manager"])]


def _lines(record: dict[str, Any]) -> list[str]:
    if record["since"] is None:
        return [record["sentence"]]
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record["since"]))
    lines = [
        f"{record['alias']}: {record['state']} since {since} (process {record['pid']})",
        record["sentence"],
    ]
    if record["notice"]:
        lines.append(record["notice"])
    if record["node_id"]:
        lines.append(f"node {record['node_id']}, cluster {record['cluster_id']}")
    if record["isolation"]:
        lines.append(f"isolation: {record['isolation']}")
    return [*lines, f"tasks: {record['tasks_running']} running, {record['tasks_queued']} queued"]


@cli.command()
@NAME
@click.option("-f", "--follow", is_flag=True, help="Keep showing new lines.")
@click.option(
    "-n", "--lines", default=100, type=click.IntRange(0), help="How many of the last lines; 0: all."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object per line.")
def logs(name: str, follow: bool, lines: int, as_json: bool) -> None:
    """Show the node's own log, or those of the nodes of the cluster NAME."""
    from manta.console import json_form
    from manta.node.cli import log_tail

    several = _nodes_of(name)
    if not several:
        must_be_known(name)
    paths = {each: state_folder(each).log_file for each in several or [name]}
    if not any(path.exists() for path in paths.values()):
        where = ", ".join(map(str, paths.values()))
        raise OperatorError(
            f"The node {name} has no log yet ({where}): `manta_node start {name}` starts it."
        )
    for each, line in log_tail.read(paths, lines, follow=follow):
        if as_json:
            json_form.show_line({"name": each, **log_tail.parsed(line)})
        else:
            print_lines(f"{each} | {line}" if several else line)


completion = completion_command("manta_node")

for _command, _example in {
    start: "manta_node start edge --background",
    stop: "manta_node stop edge",
    status: "manta_node status edge --json",
    service: "manta_node service install edge",
    reload: "manta_node reload edge",
    drain: "manta_node drain edge --deadline 10m --wait",
    logs: "manta_node logs edge -f",
    who: "manta_node who edge -f",
    policy: "manta_node policy test edge --user ada@example.org --module sums --dataset ward",
    approve: "manta_node approve edge 3f2a77c1 --until friday",
    deny: "manta_node deny edge 3f2a77c1",
    revoke: "manta_node revoke edge 3f2a77c1",
    audit: "manta_node audit verify edge",
    results: "manta_node results edge",
    config: "manta_node config init edge --manager-host manager.lan --dataset digits=/data/d.npz",
    cluster: "manta_node cluster start 3 --config edge",
    doctor: "manta_node doctor edge",
    completion: 'eval "$(manta_node completion bash)"',
}.items():
    show_example(_command, _example)
    cli.add_command(_command)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run a command and exit. Errors are sentences, never tracebacks."""
    run(cli, arguments, "manta_node", tell)


def tell(error: Exception) -> Exit:
    """Print what went wrong to stderr, and return the exit code."""
    from manta.node.daemon.exit_codes import of_error, sentence_of

    say_error(sentence_of(error))
    return of_error(error)
