"""Metrics that are sent to Weights & Biases by its own library: to files, and to nobody there."""

from __future__ import annotations

import gc
import math
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import psutil
import pytest
import wandb

from manta.cli.tracking import trackers
from manta.cli.tracking.forwarding import Cursor, forward
from manta.protocol.user import FeedPage
from manta.testing import wait_until
from tests.support.events import rows
from tests.support.tracked import SWARM, Answers, answering, entry, page

# It waits for its process by a socket, not by its id.
pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")


@pytest.fixture
def server() -> Iterator[Answers]:
    with answering() as one:
        yield one


@pytest.fixture
def wandb_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where W&B writes, whose settings are read once in a process. Without a key of the user's."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", f"{tmp_path}")
    monkeypatch.setenv("WANDB_DIR", f"{tmp_path}")
    monkeypatch.setenv("WANDB_CONFIG_DIR", f"{tmp_path}/config")
    wandb.teardown()
    yield tmp_path
    wandb.teardown()
    gc.collect()


OFFLINE = {"WANDB_MODE": "offline"}


def environ(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def test_wandb_offline_has_each_value_in_files_that_are_sent_later(
    wandb_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environ(monkeypatch, **OFFLINE)
    target = trackers.named("wandb:study")
    for end, loss in ((3, 1.0), (5, math.inf)):
        one = trackers.connect(target, SWARM)
        one.send([entry(7, loss=loss), entry(8, loss=0.5)], end)
        one.close()
        told = " ".join(capsys.readouterr().err.split())
        assert "W&B is offline: `wandb sync" in told
        assert "sends them to its server" in told
    wait_until(lambda: len(rows(wandb_folder)) == 4)
    found = [
        [row[name] for name in ("_step", "step", "_timestamp", "loss/w.0/a")]
        for row in rows(wandb_folder)
    ]
    assert found == [[1, 7, 1.5, 1.0], [2, 8, 1.5, 0.5], [3, 7, 1.5, math.inf], [4, 8, 1.5, 0.5]]
    runs = {file.name for file in wandb_folder.rglob("offline-run-*/*.wandb")}
    assert runs == {"run-5eed.wandb"}, "the swarm's id, each time"


def test_wandb_has_what_it_was_sent_when_its_process_is_killed(
    wandb_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ(monkeypatch, **OFFLINE)
    # Its thread goes on in whoever has lost it.
    code = f"from {__name__} import lose_wandb; lose_wandb({str(wandb_folder)!r})"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stderr.count("it is tried again") == 1
    wait_until(lambda: len(rows(wandb_folder)) == 3)
    assert [(row["_step"], row["loss/w.0/node_201"]) for row in rows(wandb_folder)] == [
        (0, 1.0), (1, 0.5), (2, 0.25),
    ]  # fmt: skip


def lose_wandb(folder: str) -> None:
    """Sends three values to W&B, whose process is killed after the first."""

    def pages() -> Iterator[FeedPage]:
        yield page(1, 1.0)
        wait_until(lambda: len(rows(Path(folder))) == 1)
        for process in psutil.Process().children():
            if process.name() == "wandb-core":
                process.kill()
        yield page(3, 0.5, 0.25, ended=True)

    with closing(Cursor(Path(folder), "5eed", "wandb:study")) as cursor:
        connect = partial(trackers.connect, "wandb:study", SWARM)
        assert forward(pages(), connect, cursor, lambda _: None) == 3
        assert cursor.value == 3


def test_nothing_of_the_machine_is_in_what_wandb_gets(
    wandb_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ(monkeypatch, **OFFLINE)
    one = trackers.connect("wandb:study", SWARM)
    one.send([entry(0, loss=1.0)], 1)
    one.close()
    wait_until(lambda: len(rows(wandb_folder)) == 1)
    (file,) = (path for path in wandb_folder.rglob("offline-run-*/*.wandb"))
    said = file.read_bytes()
    assert b"study" in said
    for word in (sys.executable, os.getcwd(), platform.release(), "test_tracking"):
        assert word.encode() not in said
    assert not [path for path in file.parent.rglob("files/*") if path.is_file()]


@pytest.mark.parametrize(
    ("project", "settings", "said"),
    [
        ("study", {}, "no API key is configured"),
        ("study", {"WANDB_API_KEY": "short"}, "API key must have 40"),
        ("study", {"WANDB_MODE": "disabled"}, "nothing is sent anywhere"),
        ("a#b", OFFLINE, "project"),
    ],
)
def test_wandb_without_a_key_or_a_project_is_not_tried_again(
    project: str,
    settings: dict[str, str],
    said: str,
    wandb_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    environ(monkeypatch, **settings)
    with pytest.raises(trackers.TrackerRefuses, match=said) as told:
        trackers.connect(f"wandb:{project}", SWARM)
    assert "WANDB_MODE=offline" in str(told.value)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_wandb_that_refuses_is_not_tried_again(
    status: int, server: Answers, wandb_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.status = status
    address = f"http://127.0.0.1:{server.server_port}"
    environ(monkeypatch, WANDB_BASE_URL=address, WANDB_API_KEY="a" * 40)
    with pytest.raises(trackers.TrackerRefuses, match=rf"error {status}.* project.* goes on"):
        trackers.connect("wandb:lab/study", SWARM)


@pytest.mark.parametrize("status", [500, 503])
def test_wandb_that_can_not_answer_now_is_tried_again(
    status: int, server: Answers, wandb_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "LONGEST_WAIT", 2.0)
    server.status = status
    address = f"http://127.0.0.1:{server.server_port}"
    environ(monkeypatch, WANDB_BASE_URL=address, WANDB_API_KEY="a" * 40)
    with pytest.raises(trackers.TrackerDown, match=f"W&B does not take them .*{status}"):
        trackers.connect("wandb:study", SWARM)


def test_wandb_without_a_server_is_down(
    wandb_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "LONGEST_WAIT", 2.0)
    with socket.socket() as bound:  # and does not listen
        bound.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{bound.getsockname()[1]}"
        environ(monkeypatch, WANDB_BASE_URL=address, WANDB_API_KEY="a" * 40)
        with pytest.raises(trackers.TrackerDown, match="refused"):
            trackers.connect("wandb:study", SWARM)
