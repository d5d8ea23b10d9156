"""What `manta_node` says of an exception that nobody expected."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from manta.console.exit_codes import Exit
from manta.node.cli import main as cli
from manta.node.daemon import places


def commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from commands(below, f"{path} {name}")
    yield path, command


def test_every_command_and_option_is_explained() -> None:
    for path, command in commands(cli.cli, "manta_node"):
        assert command.help, path
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{path} {parameter.opts[0]}"


def test_a_fault_of_its_own_is_one_sentence_and_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(places, "home", lambda: 1 / 0)
    with pytest.raises(SystemExit) as exit_:
        cli.main(["config", "list"])
    assert exit_.value.code == Exit.INTERNAL
    said = capsys.readouterr().err
    assert "ZeroDivisionError: division by zero" in said
    assert "Traceback" not in said
    (path,) = re.findall(r"\S+manta-error-\S+\.txt", said)
    assert "1 / 0" in Path(path).read_text()
