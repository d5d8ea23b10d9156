"""`manta_node results`: what stays on a node, and what its operator deletes of it."""

from __future__ import annotations

import click

from manta.console.commands import as_json_option, say
from manta.console.terminal import print_lines
from manta.node.cli.config import NAME
from manta.node.daemon.places import must_be_known, state_folder
from manta.node.errors import OperatorError


@click.command()
@NAME
@click.option("--delete", "swarm", metavar="SWARM", help="Delete those of this swarm, by its id.")
@as_json_option
def results(name: str, swarm: str | None, as_json: bool) -> None:
    """Show of which swarms results stay on the node, or delete those of one.

    They go when users remove the swarm. Those of a swarm that the manager does not know are the
    only copies, and stay until they are deleted here, while the node is stopped.
    """
    from manta.console import json_form, text
    from manta.node.blobs.held_results import HeldResults
    from manta.node.daemon import background

    must_be_known(name)
    folder = state_folder(name)
    held = None
    if folder.results.is_dir():
        held = HeldResults(folder.results, 0, folder.shredder())
    sizes = held.sizes() if held is not None else {}
    if swarm is None:
        records = [
            {"swarm_id": swarm_id, "values": count, "bytes": size}
            for swarm_id, (count, size) in sizes.items()
        ]
        if as_json:
            json_form.show(records)
        elif records:
            rows = [[id_, str(count), text.size(size)] for id_, (count, size) in sizes.items()]
            print_lines(*text.table(("SWARM", "VALUES", "SIZE"), rows))
        else:
            print_lines(f"No results stay on the node {name}.")
        return
    background.await_end(name, folder)
    background.must_not_run(name, folder)
    if held is None or swarm not in sizes:
        there = f"; there are some of {', '.join(sizes)}" if sizes else ""
        raise OperatorError(f"No results of swarm {swarm} stay on the node {name}{there}.")
    count, size = sizes[swarm]
    held.free(swarm)
    record = {"name": name, "swarm_id": swarm, "values": count, "bytes": size}
    sentence = f"Deleted the results of swarm {swarm} on the node {name}: {text.size(size)}."
    say(record, sentence, as_json=as_json)
