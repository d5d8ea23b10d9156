from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

from manta.apis.errors import InvalidArgument, MissingPackage
from manta.apis.metrics import Metrics
from manta.apis.overviews import MetricsOverview

LOGGED = Metrics(
    [
        MetricsOverview(1.0, "id", "node-1", "w", 0, 0, 0, {"loss": 0.5}, None),
        MetricsOverview(2.0, "id", "node-1", "w", 0, 1, 0, {"loss": 0.25, "at": 9.0}, 3),
    ]
)


def test_metrics_as_a_data_frame() -> None:
    frame = LOGGED.to_pandas()
    assert frame["loss"].tolist() == [0.5, 0.25]
    assert frame["iteration"].tolist() == [0, 1]
    assert frame["at"].tolist() == [1.0, 2.0]
    assert math.isnan(frame["metric.at"][0])
    assert frame["metric.at"][1] == 9.0
    assert len(Metrics().to_pandas()) == 0


def test_without_pandas_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingPackage, match=r"pip install 'manta-swarm\[data\]'"):
        LOGGED.to_pandas()


def test_metrics_as_a_table_of_csv(tmp_path: Path) -> None:
    nan = MetricsOverview(3.0, "id", "a,b", "w", 0, 1, 0, {"loss": math.nan, "e\x1b\n": 1.0}, 4)
    Metrics([*LOGGED, nan]).to_csv(tmp_path / "logged.csv")
    assert (tmp_path / "logged.csv").read_text().splitlines() == [
        r"iteration,step,node_id,node_alias,alias,index,attempt,at,loss,metric.at,e\x1b\n",
        "0,,id,node-1,w,0,0,1.0,0.5,,",
        "1,3,id,node-1,w,0,0,2.0,0.25,9.0,",
        '1,4,id,"a,b",w,0,0,3.0,nan,,1.0',
    ]


NAMED = {"$\\frac{": 1.0, "_hidden": math.inf, "数\x1b": math.nan}
ODD = Metrics([MetricsOverview(1.0, "id", "_node", "w", 0, 0, 0, NAMED, None)])


@pytest.fixture(scope="module")
def _fonts(tmp_path_factory: pytest.TempPathFactory) -> None:
    """matplotlib keeps those open that it has once read."""
    folder = tmp_path_factory.mktemp("fonts")
    for suffix in (".png", ".svg", ".pdf"):
        ODD.plot(folder / f"loss{suffix}")


@pytest.mark.usefixtures("_fonts")
@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_metrics_as_a_picture_whatever_they_are_called(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"loss{suffix}"
    ODD.plot(path)
    assert path.stat().st_size > 1000
    if suffix == ".svg":
        assert "\x1b" not in path.read_text()


def test_a_picture_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"loss.gif is none of .png, .svg, .pdf"):
        LOGGED.plot(tmp_path / "loss.gif")


def test_without_matplotlib_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingPackage, match=r"pip install 'manta-swarm\[plot\]'"):
        LOGGED.plot(tmp_path / "loss.png")
