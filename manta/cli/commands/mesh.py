"""`manta mesh`: peers that talk to each other with no manager."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import click

from manta.cli.exit_codes import LocalError
from manta.console import json_form, text
from manta.console.commands import Group, as_json_option
from manta.console.exit_codes import Exit
from manta.console.interrupts import Interrupted, Interrupts
from manta.console.lines import Line, Words, line, styled
from manta.console.terminal import Screen, print_lines
from manta.transports.errors import remedied

_COLOURS = {"self": "green", "alive": "green", "suspect": "yellow", "joining": "yellow"}
_EVERY = 1.0
"""Seconds between two looks."""


@click.group(cls=Group)
def mesh() -> None:
    """Run peers that talk to each other with no manager, and see how they are."""


@mesh.command(context_settings={"ignore_unknown_options": True})
@click.argument("script", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--peers",
    "count",
    type=click.IntRange(1, 256),
    default=4,
    show_default=True,
    help="How many peers run the script.",
)
@click.option(
    "--listen",
    default="127.0.0.1",
    show_default=True,
    metavar="HOST[:PORT]",
    help="Where peers can be reached; each takes three ports from PORT on, or free ones.",
)
@click.option(
    "--topology",
    default="full",
    show_default=True,
    help="Who may talk to whom: full, ring, star, torus or random-regular.",
)
@click.option(
    "--loss",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.0,
    help="Lose that fraction of messages.",
)
@click.option("--delay", metavar="TIME", help="Delay messages: 20ms, or 10ms..50ms.")
@click.option(
    "--partition",
    "partitions",
    multiple=True,
    metavar="SIDES@TIMES",
    help="Keep peers from each other: 0-4/5-7@10s..20s.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    default=0,
    show_default=True,
    help="By which loss and delays are drawn.",
)
def run(
    script: Path,
    arguments: tuple[str, ...],
    count: int,
    listen: str,
    topology: str,
    loss: float,
    delay: str | None,
    partitions: tuple[str, ...],
    seed: int,
) -> None:
    """Run SCRIPT as several peers on this machine, each with the ARGUMENTS.

    In each, `Mesh.join()` joins the others and waits until all are there. What they print follows
    their names. Exits with the first exit code of theirs that is not 0.

    For experiments, faults are injected where messages leave a peer, by seed.
    """
    from manta.mesh.fault_words import plan
    from manta.mesh.faults import InvalidFaults
    from manta.mesh.run import Run
    from manta.roster.topologies import InvalidTopology, Topology

    try:
        Topology.of(topology)
    except InvalidTopology as error:
        raise click.BadParameter(str(error), param_hint="--topology") from None
    try:
        faults = plan(loss, delay, partitions, seed)
    except InvalidFaults as error:
        raise click.UsageError(str(error)) from None
    screen, width = Screen(), len(f"peer-{count - 1}")

    def say(name: str, line: str) -> None:
        screen.show([styled(name.ljust(width), fg="cyan") + " | " + line])

    with Interrupts() as interrupts:
        try:
            running = Run(
                str(script), arguments, count, topology, say, faults=faults, listen=listen
            )
        except ValueError as error:
            raise click.BadParameter(f"{error}.", param_hint="--listen") from None
        except OSError as error:
            raise LocalError(f"The peers could not be started: {remedied(error)}") from error
        try:
            interrupts.begin()
            code = running.wait()
        except Interrupted as interrupted:
            interrupts.finish()
            is_int = interrupted.exit is Exit.INTERRUPTED
            running.end(signal.SIGINT if is_int else signal.SIGTERM)
            raise
    raise click.exceptions.Exit(code)


@mesh.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@as_json_option
def key(file: Path, as_json: bool) -> None:
    """Make this peer's key pair in FILE, unless it is there, and print its public half.

    A mesh admits by keys where all its peers are given the public halves, one a line, in the file
    MANTA_MESH_KNOWN, and each its own pair in the file MANTA_MESH_KEY.
    """
    from manta.transports.errors import KeyFileError
    from manta.transports.security.keys import KeyPair

    try:
        if file.exists():
            pair = KeyPair.load(file)
        else:
            pair = KeyPair.generate()
            pair.save(file)
    except (KeyFileError, OSError) as error:
        why = remedied(error) if isinstance(error, OSError) else str(error)
        raise LocalError(f"This peer has no key: {why}.") from None
    if as_json:
        json_form.show({"public": pair.public, "file": str(file)})
    else:
        print_lines(line(pair.public))


@mesh.command()
@click.argument("address", metavar="HOST:PORT")
@click.option("--watch", is_flag=True, help="Show it anew each second, until Ctrl-C.")
@click.option(
    "--svg",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Draw who is there, and who may talk to whom, into that file as well.",
)
@as_json_option
def status(address: str, watch: bool, svg: Path | None, as_json: bool) -> None:
    """Show who is in a mesh, as one of its peers sees it.

    HOST:PORT is where others join by it. The secret is taken from MANTA_MESH_SECRET; for a mesh
    that admits by keys, MANTA_MESH_KEY and MANTA_MESH_KNOWN are the files with your key pair, one
    of those, and with the public keys. With --watch and --json, what happens in the mesh is
    printed, an object per line.
    """
    screen, last = Screen(), 0
    while True:
        found = _asked(address)
        if svg is not None:
            _draw(svg, found)
        if as_json and watch:
            last = _show_events(found["events"], last)
        elif as_json:
            json_form.show(found)
        else:
            screen.show([], _lines(found, screen.room)) if watch else print_lines(
                *_lines(found, screen.room)
            )
        if not watch:
            return
        time.sleep(_EVERY)


def _asked(address: str) -> dict[str, Any]:
    """What the peer there knows."""
    from manta.mesh.door import NotAdmitted, ask_status, ask_status_by_key
    from manta.mesh.errors import JoinFailed
    from manta.mesh.settings import KEY, KNOWN, SECRET, trust
    from manta.transports.addresses import split_host
    from manta.transports.security.keys import KeyPair

    try:
        trusted = trust()
    except JoinFailed as error:
        raise LocalError(str(error)) from None
    if trusted is None:
        raise LocalError(
            f"The mesh's secret is wanted: set {SECRET}; or, where it admits by keys, {KEY} and "
            f"{KNOWN} to the files with your key pair and its public keys."
        )
    try:
        host, port = split_host(address)
    except ValueError as error:
        raise click.BadParameter(f"{address}: {error}", param_hint="HOST:PORT") from None
    if port is None:
        raise click.BadParameter(f"{address} has no port.", param_hint="HOST:PORT")
    try:
        if isinstance(trusted, str):
            return ask_status((host, port), trusted)
        return ask_status_by_key(
            (host, port), KeyPair.from_secret(trusted.secret), frozenset(trusted.known)
        )
    except NotAdmitted as error:
        raise LocalError(f"{address} tells nothing: {error}.") from error
    except OSError as error:
        raise LocalError(f"No peer was reached at {address}: {error}.") from error


def _show_events(events: list[dict[str, Any]], last: int) -> int:
    """Those after that number, and how many went before they were asked for."""
    for event in events:
        if last and event["number"] > last + 1:
            json_form.show_line({"event": "missed", "count": event["number"] - last - 1})
        if event["number"] > last:
            last = event["number"]
            json_form.show_line(event)
    return last


def _draw(path: Path, found: dict[str, Any]) -> None:
    """Those in the view, by rank; a member that is dead is in it until the next collective."""
    from manta.mesh.picture import Peer, State, picture
    from manta.roster.topologies import Topology

    states: dict[str, State] = {"self": "alive", "alive": "alive", "suspect": "suspected"}
    now = {one["id"]: states.get(one["state"], "dead") for one in found["peers"]}
    members = [Peer(name, now.get(id_, "dead")) for id_, name in found["view"]["members"]]
    topology = Topology.of(found["topology"])
    plural = "" if len(members) == 1 else "s"
    try:
        path.write_text(picture(topology, members, f"{len(members)} peer{plural}, {topology.name}"))
    except ValueError as error:
        raise LocalError(f"This mesh can't be drawn: {error}") from None
    except OSError as error:
        raise LocalError(f"{path} can't be written: {remedied(error)}") from error


def _lines(found: dict[str, Any], room: int | None) -> list[Line]:
    ranks = {id_: rank for rank, (id_, _) in enumerate(found["view"]["members"])}
    names = ("NAME", "ID", "STATE", "RANK", "LINK", "ROUND TRIP", "SENT", "RECEIVED")
    rows: list[list[Words]] = []
    for one in found["peers"]:
        rank = ranks.get(one["id"])
        trip = one.get("round_trip")
        rows.append(
            [
                one["name"],
                one["id"],
                styled(one["state"], fg=_COLOURS.get(one["state"], "red")),
                "" if rank is None else str(rank),
                one.get("link", ""),
                f"{1000 * trip:.1f} ms" if trip else "",
                text.size(one["sent"]) if "sent" in one else "",
                text.size(one["received"]) if "received" in one else "",
            ]
        )
    header = [styled(name, bold=True) for name in names]
    return [*text.table(header, rows, right=(3, 5, 6, 7), room=room), *_faults(found.get("faults"))]


def _faults(faults: dict[str, Any] | None) -> list[Line]:
    from manta.mesh.fault_words import said

    if faults is None:
        return []
    counts = ", ".join(f"{count} {what}" for what, count in sorted(faults["injected"].items()))
    sentence = f"Faults, for an experiment: {said(faults)}. So far: {counts or 'none'}."
    return [line(""), line(sentence)]
