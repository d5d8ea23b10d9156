"""The `manta` command. Each command's module is imported when the command is called."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import NoReturn

import click

from manta.cli.exit_codes import of_error
from manta.console.commands import Group, run, show_example
from manta.console.exit_codes import Exit

COMMANDS = {
    "run": (
        "run",
        "Run a swarm on this machine, with its own manager and nodes.",
        "manta run swarm.py -p rounds=3 --nodes 4 --dataset digits='shards/node{i}.npz'",
    ),
    "up": (
        "up",
        "Start a manager and nodes on this machine.",
        "manta up --nodes 4 --dataset digits='shards/node{i}.npz'",
    ),
    "new": ("new", "Create a project that runs right away.", "manta new my-swarm"),
    "check": (
        "deploy",
        "Show where a swarm's tasks would run, or why they cannot.",
        "manta check --cluster lab swarm.py",
    ),
    "deploy": (
        "deploy",
        "Deploy a swarm to a cluster.",
        "manta deploy --cluster lab swarm.py -p rounds=3 --follow",
    ),
    "ps": ("swarms", "List swarms.", "manta ps --cluster lab --json"),
    "explain": (
        "swarms",
        "Explain why tasks run where they do, or what one failed of.",
        "manta explain 3f2a",
    ),
    "stack": (
        "tasks",
        "Show where the threads of a task stand now.",
        "manta stack 3f2a.worker.0",
    ),
    "logs": (
        "swarms",
        "Show the logs of a swarm's tasks.",
        "manta logs -f 3f2a --task worker",
    ),
    "results": (
        "swarms",
        "Show a swarm's results.",
        "manta results 3f2a --tag accuracy --wait",
    ),
    "globals": (
        "values",
        "Show a swarm's globals.",
        "manta globals 3f2a --tag model",
    ),
    "metrics": (
        "values",
        "Show the metrics that a swarm's tasks logged.",
        "manta metrics -f 3f2a",
    ),
    "plot": (
        "plot",
        "Draw a swarm's metrics, on the terminal or to a file.",
        "manta plot 3f2a loss --by node -o loss.png",
    ),
    "compare": (
        "compare",
        "Compare two runs: settings, globals, code and metrics.",
        "manta compare 3f2a 77c0",
    ),
    "stop": ("lifecycle", "Stop a swarm.", "manta stop 3f2a"),
    "pause": (
        "lifecycle",
        "Pause a swarm: running tasks go on, no new ones start.",
        "manta pause 3f2a",
    ),
    "resume": ("lifecycle", "Resume a paused swarm.", "manta resume 3f2a"),
    "rm": (
        "lifecycle",
        "Remove swarms that have ended.",
        "manta rm --stop 3f2a 77c0",
    ),
    "pull": (
        "pull",
        "Copy everything a swarm wrote into a folder.",
        "manta pull 3f2a results/",
    ),
    "replay": (
        "replay",
        "Replay a swarm's history.",
        "manta replay 3f2a --speed 10",
    ),
    "module": (
        "module",
        "Register modules that swarms can use by name.",
        "manta module push worker.py --version 1.0.0",
    ),
    "cluster": (
        "cluster",
        "Create, list, start, stop and delete clusters.",
        "manta cluster create lab",
    ),
    "node": (
        "node",
        "List and remove nodes, and create tokens for new ones.",
        "manta node token lab --uses 2",
    ),
    "user": (
        "accounts",
        "Add, list and delete users.",
        "manta user add ada@example.org",
    ),
    "role": (
        "accounts",
        "Grant and revoke roles, and define new ones.",
        "manta role grant ada@example.org researcher --cluster lab",
    ),
    "quota": (
        "quota",
        "Show how much you may take of the manager, and set how much others may.",
        "manta quota set clusters 50 --user ada@example.org",
    ),
    "sign-in": (
        "identity",
        "Sign in to a manager.",
        "manta sign-in --email admin@localhost",
    ),
    "sign-out": (
        "identity",
        "Sign out: revoke and delete this machine's key and token.",
        "manta sign-out",
    ),
    "whoami": (
        "identity",
        "Show who you are, and the fingerprint of the key that signs your swarms.",
        "manta whoami",
    ),
    "token": (
        "identity",
        "Use, show, renew and revoke tokens.",
        "manta token show",
    ),
    "config": (
        "config",
        "Manage profiles, and show where each setting comes from.",
        "manta config show --origin",
    ),
    "completion": (
        "completion",
        "Print a shell's completion script.",
        'eval "$(manta completion bash)"',
    ),
    "tree": (
        "tree",
        "Show a supervision tree, and which actors crashed.",
        "manta tree --node node-1",
    ),
    "data": (
        "data",
        "Divide data sets among nodes, for experiments.",
        "manta data partition digits.npz --nodes 8 --dirichlet 0.3 --plot digits.png",
    ),
    "mesh": (
        "mesh",
        "Run peers that talk to each other with no manager, and see how they are.",
        "manta mesh run script.py --peers 8",
    ),
    "manager": (
        "manager",
        "Start, stop, back up and restore a manager on this machine.",
        "manta manager start --background",
    ),
}
"""Name -> module (its attribute is the name with `_` for `-`, and a `_` appended where that is a
builtin), help, and an example."""


class LazyGroup(Group):
    """Lists its commands without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        where, _, example = COMMANDS[cmd_name]
        module = import_module(f"manta.cli.commands.{where}")
        name = cmd_name.replace("-", "_")
        command: click.Command = getattr(module, name, None) or getattr(module, f"{name}_")
        show_example(command, example)
        if ctx.resilient_parsing:  # a shell asks for completions
            from manta.cli.completion import equip

            equip(command)
        return command

    def elsewhere(self, words: list[str]) -> str | None:
        from manta.cli.former import answer

        return answer(words)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line, _) in COMMANDS.items()])


def _version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from manta.console.terminal import print_lines
        from manta.protocol.version import VERSION

        print_lines(f"manta {VERSION}, Python {sys.version.split()[0]}")
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Show the version and exit.",
)
def cli() -> None:
    """Distributed and federated algorithms on machines that people own."""


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run a command and exit; a user never sees a traceback of Manta's own code."""
    run(cli, arguments, "manta", tell)


def tell(error: Exception) -> Exit:
    """Say what went wrong in one sentence, on stderr; returns the exit code."""
    from manta.console.terminal import say_error

    code = of_error(error)
    if code is not Exit.INTERNAL:
        said = str(error)
        say_error(said if said.endswith((".", "?")) else f"{said}.")
        return code
    from manta.protocol.faults import sentence

    say_error(sentence(error))
    return code
