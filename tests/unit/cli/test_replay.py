"""A folder that is replayed may be anybody's."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from manta.cli.commands.replay import _of_folder
from manta.cli.exit_codes import LocalError


def pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def junk(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (pipe, "cannot be read"),
        (junk(b"\xff\xff"), "is not what `manta pull` wrote"),
        (junk(b"[" * 100_000), "is not what `manta pull` wrote"),
        (junk(b"3\n"), "is not what `manta pull` wrote"),
    ],
    ids=["pipe", "no-text", "deep", "other"],
)
@pytest.mark.parametrize("name", ["swarm.json", "events.ndjson", "logs.ndjson"])
def test_what_is_no_history_is_told_and_waited_for_by_nobody(
    tmp_path: Path, name: str, spoil: Callable[[Path], object], words: str
) -> None:
    swarm = {
        **dict.fromkeys(("swarm_id", "name", "cluster_id", "reason"), "a"),
        **dict.fromkeys(("max_iteration", "started_at", "ended_at")),
        "status": "COMPLETED",
        "iteration": 0,
        "created_at": 0.0,
        "task_count": 0,
    }
    (tmp_path / "swarm.json").write_text(json.dumps({"swarm": swarm, "tasks": []}))
    for feed in ("events", "metrics", "logs"):
        (tmp_path / f"{feed}.ndjson").write_text("")
    spoil(tmp_path / name)
    with pytest.raises(LocalError, match=words):
        _of_folder(tmp_path)
