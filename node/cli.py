"""The `manta_node` command: 0 done, 1 it failed, 2 wrong usage, 70 a fault of Manta's own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, NoReturn

import click

from manta.node.cli_config import NAME, config
from manta.node.errors import NodeError
from manta.node.places import config_path, state_folder
from manta.protocol.version import VERSION

if TYPE_CHECKING:
    from pathlib import Path

    from manta.node.config import NodeConfig
    from manta.node.state import StateFolder, Status

INTERNAL = 70
STOP_PATIENCE = 30.0
START_PATIENCE = 6.0


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="manta_node")
def cli() -> None:
    """Run a Manta node on this machine. NAME is its configuration, `default` when left out."""


cli.add_command(config)


@cli.command()
@NAME
@click.option("--background", is_flag=True, help="Return once the node runs.")
def start(name: str, background: bool) -> None:
    """Start the node; in the foreground, Ctrl-C stops it."""
    from manta.node.config import load

    if name == "default":
        _configure_from_environment(config_path(name))
    found = load(config_path(name))
    folder = state_folder(name)
    if background:
        _start_in_background(name, found, folder)
        return
    from manta.node import daemon, logs
    from manta.transports.keys import make_private_folder

    make_private_folder(folder.path)
    logs.configure(
        found.log_level,
        file=folder.log_file,
        limit=found.log_rotation,
        console=found.log_to_console,
    )
    raise click.exceptions.Exit(daemon.run(found, folder.path))


def _configure_from_environment(path: Path) -> None:
    """Where there is no configuration and MANTA_NODE_* variables ask for one: in containers."""
    if path.exists():
        return
    from manta.node.config_environment import from_environment
    from manta.transports.keys import write_private

    text = from_environment(os.environ)
    if text is not None:
        write_private(path, text)
        click.echo(f"{path} is made from the MANTA_NODE_* variables.", err=True)


def _start_in_background(name: str, config: NodeConfig, folder: StateFolder) -> None:
    from manta.transports.keys import make_private_folder

    if (pid := folder.running_pid()) is not None:
        raise click.ClickException(f"The node {name} runs already (process {pid}).")
    make_private_folder(folder.path)
    said = folder.path / "start.err"
    arguments = ["--config", str(config.path), "--state", str(folder.path)]
    with open(said, "w+b") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "manta.node", *arguments, "--log", str(folder.log_file)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_PATIENCE
    while True:
        code = process.poll()
        status = _current_status(folder)
        if code is not None:
            sentence = said.read_text(errors="replace").strip() or f"exit code {code}"
            raise click.ClickException(f"The node {name} did not start: {sentence}")
        if status is not None and (status.state == "connected" or time.monotonic() > deadline):
            click.echo(f"The node {name} runs (process {process.pid}). {status.sentence}")
            process.returncode = 0  # it lives on by itself
            return
        if time.monotonic() > deadline + START_PATIENCE:
            raise click.ClickException(
                f"The node {name} (process {process.pid}) says nothing; see {folder.log_file}."
            )
        time.sleep(0.05)


@cli.command()
@NAME
def stop(name: str) -> None:
    """Stop the node: its tasks are ended, the manager is told."""
    folder = state_folder(name)
    pid = folder.running_pid()
    if pid is None:
        click.echo(f"The node {name} does not run.")
        return
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_PATIENCE
    while folder.running_pid() == pid:
        if time.monotonic() > deadline:
            raise click.ClickException(
                f"The node {name} (process {pid}) did not stop within {STOP_PATIENCE:g} s; see "
                f"{folder.log_file}."
            )
        time.sleep(0.02)
    click.echo(f"The node {name} was stopped.")


@cli.command()
@NAME
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def status(name: str, as_json: bool) -> None:
    """Say how the node stands; exits with 0 when it is connected, else with 1."""
    folder = state_folder(name)
    found = _current_status(folder)
    if as_json:
        import msgspec

        data = msgspec.to_builtins(found) if found else {"name": name, "state": "stopped"}
        click.echo(msgspec.json.encode(data).decode())
    elif found is None:
        running = folder.running_pid()
        click.echo(f"The node {name} is starting." if running else f"The node {name} is stopped.")
    else:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(found.since))
        click.echo(f"{found.alias}: {found.state} since {since} (process {found.pid})")
        click.echo(found.sentence)
        if found.node_id:
            click.echo(f"node {found.node_id}, cluster {found.cluster_id}")
        click.echo(f"tasks: {found.tasks_running} running, {found.tasks_queued} queued")
    if found is None or found.state != "connected":
        raise click.exceptions.Exit(1)


def _current_status(folder: StateFolder) -> Status | None:
    """Of the daemon that runs, if one does and has said something."""
    from manta.node.state import is_status_of

    found = folder.read_status()
    return found if is_status_of(found, folder.running_pid()) else None


@cli.command()
@NAME
@click.option("-f", "--follow", is_flag=True, help="Go on with what is logged from now.")
@click.option("-n", "--lines", default=100, type=click.IntRange(0), help="Of the end; 0: all.")
def logs(name: str, follow: bool, lines: int) -> None:
    """Show the node's own log."""
    path = state_folder(name).log_file
    try:
        file = open(path, "rb")  # noqa: SIM115
    except FileNotFoundError:
        raise click.ClickException(f"The node {name} has no log yet ({path}).") from None
    try:
        text = file.read().splitlines(keepends=True)
        click.echo(b"".join(text[-lines:] if lines else text), nl=False)
        while follow:
            if data := file.read():
                click.echo(data, nl=False)
                continue
            time.sleep(0.1)
            try:
                turned = os.stat(path).st_ino != os.fstat(file.fileno()).st_ino
            except FileNotFoundError:
                continue  # it is being put aside
            if turned:
                file.close()
                file = open(path, "rb")  # noqa: SIM115
    finally:
        file.close()


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run a command and exit; what is wrong is said in one sentence."""
    code = 0
    try:
        result = cli.main(arguments, prog_name="manta_node", standalone_mode=False)
        code = result if isinstance(result, int) else 0
        sys.stdout.flush()
    except click.exceptions.Exit as exit_:
        code = exit_.exit_code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("Interrupted.", err=True)
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the last flush
    except (NodeError, OSError) as error:
        click.echo(f"Error: {error}", err=True)
        code = 1
    except Exception as error:
        from manta.transports.errors import TransportError

        if isinstance(error, TransportError):
            click.echo(f"Error: {error}", err=True)
            code = 1
        else:
            from manta.protocol.faults import sentence

            click.echo(f"Error: {sentence(error)}", err=True)
            code = INTERNAL
    sys.exit(code)


if __name__ == "__main__":
    main()
