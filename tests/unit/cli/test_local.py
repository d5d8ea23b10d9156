from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from manta.apis.errors import ClusterDied, DatasetMissing
from manta.cli.commands.run import Run
from manta.cli.local.cluster import check_installed, dataset_paths, node_config
from manta.console.exit_codes import Exit
from manta.console.interrupts import Interrupted, Interrupts
from manta.node.config import parse


@pytest.mark.parametrize("name", ["plain", 'with "quotes" and \\', "ünï $${x} ${HOME} \x7f\t"])
def test_node_config_says_what_was_meant(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.touch()
    config = parse(node_config("node-1", 1234, {"digits": path}), tmp_path / "node.toml", {})
    assert config.datasets == {"digits": path}
    assert (config.alias, config.manager_port, config.runner) == ("node-1", 1234, "limits")
    assert config.allow_unsandboxed


def test_what_is_not_installed_is_named_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check_installed()
    monkeypatch.setitem(sys.modules, "tomli", None)
    said = r"A cluster on this machine needs tomli, .*pip install 'manta-swarm\[node,manager\]'"
    with pytest.raises(ClusterDied, match=said):
        check_installed()


def test_dataset_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "node1.npz").touch()
    (tmp_path / "node-2").mkdir()
    patterns = {"a": "node{i}.npz", "b": "{alias}"}
    assert dataset_paths(patterns, 1, "node-2") == {
        "a": tmp_path / "node1.npz",
        "b": tmp_path / "node-2",
    }
    with pytest.raises(
        DatasetMissing, match=r"'a' of node-3 is not there: .*node2.npz; \{i\} counts"
    ):
        dataset_paths(patterns, 2, "node-3")


def critical(interrupts: Interrupts, done: list[str]) -> None:
    with interrupts.held():
        os.kill(os.getpid(), signal.SIGTERM)
        done.append("as a whole")


def test_first_signal_raises_where_it_does_no_harm_later_ones_insist() -> None:
    with Interrupts() as interrupts:
        interrupts.begin()
        done: list[str] = []
        with pytest.raises(Interrupted) as interrupted:
            critical(interrupts, done)
        assert done == ["as a whole"]
        assert interrupted.value.exit is Exit.TERMINATED
        assert not interrupts.insisted
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.insisted


def test_ctrl_c_outside_of_what_is_held() -> None:
    with Interrupts() as interrupts:
        interrupts.begin()
        with pytest.raises(Interrupted) as interrupted:
            os.kill(os.getpid(), signal.SIGINT)
    assert interrupted.value.exit is Exit.INTERRUPTED


def test_after_the_end_a_signal_raises_nothing() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interrupts() as interrupts:
        interrupts.finish()
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.insisted
    assert signal.getsignal(signal.SIGINT) is before


def test_a_run_ends_its_processes_though_the_api_cannot_be_closed() -> None:
    ended = []

    class Cluster:
        def stop(self, *, keep: bool) -> None:
            ended.append(keep)

    class Api:
        def close(self) -> None:
            raise RuntimeError("it cannot be closed")

    run = Run(cast(Any, Cluster()), cast(Any, None), 0.0)
    run._api = cast(Any, Api())
    with pytest.raises(RuntimeError, match="cannot be closed"):
        run.stop(keep=True)
    assert ended == [True]
