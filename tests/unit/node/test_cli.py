"""What `manta_node` says of an exception that nobody expected."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from manta.console.exit_codes import Exit
from manta.node import cli, places


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
