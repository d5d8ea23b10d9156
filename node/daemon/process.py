"""The node as a process: `python -m manta.node --config FILE --state DIR [--log FILE]`."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from manta.actors.process import prepare_process
from manta.console.exit_codes import Exit
from manta.console.stopping import Stopping
from manta.console.visible import visible_lines
from manta.node.config import NodeConfig, become_clean, instance, load
from manta.node.daemon import logs
from manta.node.daemon.exit_codes import of_error, sentence_of
from manta.node.daemon.orders import Orders
from manta.node.errors import DaemonEnded
from manta.node.service import Node
from manta.node.state import StateFolder
from manta.transports.codec.stored import Damaged
from manta.transports.descriptors import raise_descriptor_limit

if TYPE_CHECKING:
    import argparse

log = logging.getLogger("manta.node")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    try:
        config = load(options.config)
        become_clean(config.token_variables)
        if options.number is not None:
            config = instance(config, options.number)
        logs.configure(
            config.log_level,
            file=options.log,
            limit=config.log_rotation,
            console=options.log is None or options.console,
        )
        run(config, options.state, follows=0 if options.while_stdin else None)
    except Exception as error:
        with contextlib.suppress(OSError):  # nobody listens any more
            for line in visible_lines(sentence_of(error)):
                sys.stderr.write(f"{line}\n")
        return of_error(error)
    return Exit.OK


def run(config: NodeConfig, state: Path, *, follows: int | None = None) -> None:
    """Run a node until a signal or the node itself ends it, or the end of what is read from the
    descriptor `follows`.

    Raises DaemonEnded, and what Node raises.
    """
    prepare_process()
    for note in config.notes:
        log.warning("%s: %s.", config.path, note)
    raise_descriptor_limit()
    stopping = Stopping(follows=follows)
    orders = Orders(config, StateFolder(state))
    try:
        with Node(config, state, on_finish=stopping.stop) as node:
            orders.begin(node)
            code, sentence = stopping.wait()
        if code:
            raise DaemonEnded(sentence, code)
    except Exception as error:
        _note_failure(StateFolder(state), sentence_of(error))
        raise


def _note_failure(folder: StateFolder, sentence: str) -> None:
    """Leaves in its status why this daemon ended, so that it is not taken for a killed one."""
    try:
        status = folder.read_status()
    except (Damaged, OSError):
        return  # which `status` tells
    if status is None or status.pid != os.getpid() or status.state == "refused":
        return  # another daemon's, or it says why already
    with contextlib.suppress(OSError):  # the disk may be why
        folder.write_status(replace(status, state="failed", sentence=sentence))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    import argparse

    parser = argparse.ArgumentParser(
        prog="python -m manta.node", description="Run a Manta node in the foreground."
    )
    parser.add_argument("--config", type=Path, required=True, help="its configuration (TOML)")
    parser.add_argument("--number", type=int, help="which node of those that it describes")
    parser.add_argument("--state", type=Path, required=True, help="its state folder")
    parser.add_argument("--log", type=Path, help="log to this file, not to the console")
    parser.add_argument("--console", action="store_true", help="log to the console as well")
    parser.add_argument("--while-stdin", action="store_true", help="end when standard input does")
    return parser.parse_args(arguments)
