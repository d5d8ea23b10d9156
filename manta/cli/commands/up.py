"""`manta up`: a manager and nodes on this machine, until they are stopped."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import click
from msgspec.structs import replace

from manta.apis.errors import ClusterDied
from manta.cli.local import up_state
from manta.cli.local.cluster import (
    CLUSTER,
    HOST,
    Child,
    LocalCluster,
)
from manta.cli.options import (
    dataset_option,
    links_option,
    nodes_option,
    runner_option,
    split_datasets,
)
from manta.console import json_form, text
from manta.console.commands import say
from manta.console.exit_codes import Exit
from manta.console.interrupts import Interrupted, Interrupts
from manta.console.lines import Words, styled
from manta.console.modules import module_command
from manta.console.terminal import Screen, print_lines, say_note

READY = 60.0
STOPPED = 30.0


@click.command()
@nodes_option(0)
@dataset_option
@links_option
@runner_option
@click.option("--background", is_flag=True, help="Return once they run; --stop stops them.")
@click.option("--stop", "stopping", is_flag=True, help="Stop what `manta up` started.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON once they run.")
def up(
    nodes: int,
    datasets: Sequence[str],
    links: str,
    runner: str,
    background: bool,
    stopping: bool,
    as_json: bool,
) -> int:
    """Start a manager and nodes on this machine; Ctrl-C stops and removes them.

    While they run, the profile `up` is in use, so that `manta deploy --cluster local FILE` works
    in another terminal. Tasks run in a sandbox where bubblewrap is installed, otherwise confined by
    the kernel where it has Landlock, otherwise as this user.
    """
    from manta.apis.connect.profiles import home

    where = home()
    if stopping:
        return _stop(where, as_json)
    mapped = split_datasets(datasets)
    if (found := up_state.running(where)) is not None and found.port:
        say(_record(found), f"Already running: {_words(found)}", as_json=as_json)
        return Exit.OK
    if background:
        return _start_in_background(where, nodes, datasets, links, runner, as_json)
    with Interrupts() as interrupts:
        held = up_state.lock(where)
        if held is None:
            raise ClusterDied("Another `manta up` is starting or stopping: try again in a moment.")
        try:
            up_state.clear(where)  # what a killed `manta up` left
            _must_be_free(where)
            return _run(where, nodes, mapped, links, runner, interrupts, as_json)
        finally:
            up_state.clear(where)
            up_state.leave(where)
            os.close(held)


def _must_be_free(home: Path) -> None:
    if (home / "profiles" / f"{up_state.PROFILE}.json").exists():
        raise ClusterDied(
            f"There is a profile {up_state.PROFILE!r} that `manta up` did not create: "
            f"remove it with `manta config rm {up_state.PROFILE}`."
        )


def _run(
    home: Path,
    count: int,
    datasets: dict[str, str],
    links: str,
    runner: str,
    interrupts: Interrupts,
    as_json: bool,
) -> int:
    from manta.apis.connect import profiles

    screen = Screen(quiet=as_json)
    previous = profiles.used_profile(home)
    died: queue.Queue[Child] = queue.Queue()
    code: int = Exit.OK
    cluster: LocalCluster | None = None
    keep = False
    try:
        keys = profiles.user_key(home, up_state.PROFILE)
        cluster = LocalCluster(
            count, datasets, interrupts, runner, keys=keys, home=home, links=links
        )
        folder, aliases = str(cluster.folder), tuple(cluster.aliases)
        found = up_state.Up(os.getpid(), folder, HOST, 0, CLUSTER, aliases, previous)
        up_state.write(home, found)  # from here on, `clear` knows what to take away
        interrupts.begin()
        screen.show([], [styled("starting ...", dim=True)])
        cluster.start()
        if cluster.note:
            say_note(cluster.note)
        found = replace(found, port=cluster.user_port)
        _open(home, cluster)
        up_state.write(home, found)
        if as_json:
            json_form.show(_record(found))
        screen.show(_welcome(found))
        cluster.watch(died.put)
        while True:
            _report_end(died.get(), cluster, screen)
    except Interrupted as interrupted:
        screen.show([f"{interrupted}: stopping all that was started."])
        code = interrupted.exit
    except BaseException:
        keep = cluster is not None and bool(cluster.dead)
        raise
    finally:
        interrupts.finish()
        if cluster is not None:
            cluster.stop(keep=keep)
            if keep:
                print_lines(f"Logs and state are kept in {cluster.folder}", err=True)
    return code


def _open(home: Path, cluster: LocalCluster) -> None:
    """Waits until the nodes are connected, then signs the profile in and uses it."""
    from manta.apis.connect import profiles
    from manta.apis.user_api import UserAPI

    key = cluster.manager_keys.public
    profile = profiles.Profile(HOST, cluster.user_port, key, "user@localhost")
    profiles.save_profile(home, up_state.PROFILE, profile)
    with UserAPI(host=HOST, port=cluster.user_port, profile=up_state.PROFILE) as api:
        cluster.wait_for_nodes(api, lambda connected: None)
        api.rotate_token()  # with a token this is a sign-in like any other
    profiles.use_profile(home, up_state.PROFILE)


def _report_end(child: Child, cluster: LocalCluster, screen: Screen) -> None:
    """Gives up without the manager; goes on without a node. Raises ClusterDied."""
    if child is cluster.children[0]:
        raise ClusterDied(child.describe_end())
    screen.show([styled(one, fg="yellow") for one in child.describe_end().split("\n")])


def _words(found: up_state.Up) -> str:
    return (
        f"the manager at {found.host}:{found.port} with {text.count(len(found.nodes), 'node')} in "
        f"the cluster {found.cluster} (process {found.pid}). `manta up --stop` stops it; until "
        f"then the profile {up_state.PROFILE!r} is in use: commands go to this manager."
    )


def _welcome(found: up_state.Up) -> list[Words]:
    return [
        f"A manager at {found.host}:{found.port}, and {text.count(len(found.nodes), 'node')} in "
        "the cluster " + styled(found.cluster, bold=True) + ". In another terminal:",
        "",
        f"    manta deploy --cluster {found.cluster} FILE",
        "",
        f"The profile {up_state.PROFILE!r} is now in use: commands go to this manager"
        + (f", and to that of {found.previous!r} again afterwards." if found.previous else "."),
        f"Logs are in {found.folder}/logs; Ctrl-C stops everything and removes it.",
    ]


def _record(found: up_state.Up) -> dict[str, Any]:
    names = ("pid", "folder", "host", "port", "cluster", "nodes")
    fields = {name: getattr(found, name) for name in names}
    return {"running": True, "profile": up_state.PROFILE, **fields}


def _start_in_background(
    home: Path, nodes: int, datasets: Sequence[str], links: str, runner: str, as_json: bool
) -> int:
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    words = [word for pair in datasets for word in ("--dataset", pair)]
    ways = ("--links", links, "--runner", runner)
    command = module_command("manta", "up", "--nodes", str(nodes), *ways, *words)
    log = home / "up.log"
    with Interrupts() as interrupts:
        with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            with open(log, "rb") as said:  # it is removed with all else when that ends
                interrupts.begin()
                found = _wait_for_start(home, process, said)
        except BaseException:
            interrupts.finish()
            process.terminate()
            process.wait()
            raise
        process.returncode = 0  # it lives on by itself
    say(_record(found), f"Running: {_words(found)}", as_json=as_json)
    return Exit.OK


def _wait_for_start(home: Path, process: subprocess.Popen[bytes], said: IO[bytes]) -> up_state.Up:
    """Raises ClusterDied."""
    deadline = time.monotonic() + READY
    while True:
        found = up_state.running(home)
        if found is not None and found.pid == process.pid and b"deploy" in said.read():
            return found
        said.seek(0)
        if process.poll() is not None or time.monotonic() > deadline:
            process.terminate()
            process.wait()
            said.seek(0)
            words = said.read().decode(errors="replace").strip()
            raise ClusterDied(f"Manager and nodes did not start:\n{words}")
        time.sleep(0.05)


def _stop(home: Path, as_json: bool) -> int:
    found = up_state.running(home)
    if found is None:
        raise ClusterDied("`manta up` is not running.")
    try:
        process = os.pidfd_open(found.pid)
    except ProcessLookupError:
        process = -1
    if process >= 0:
        try:
            if up_state.running(home) == found:  # else its id may be another's by now
                with contextlib.suppress(ProcessLookupError):  # it has just ended
                    signal.pidfd_send_signal(process, signal.SIGTERM)
        finally:
            os.close(process)
    deadline = time.monotonic() + STOPPED
    while up_state.is_locked(home):
        if time.monotonic() > deadline:
            raise ClusterDied(
                f"Process {found.pid} did not end within {STOPPED:g} s: "
                f"end it with `kill -9 {found.pid}`."
            )
        time.sleep(0.02)
    stopped = {**_record(found), "running": False}
    say(stopped, "Stopped the manager and the nodes.", as_json=as_json)
    return Exit.OK
