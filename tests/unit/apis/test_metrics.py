from __future__ import annotations

import math
import sys

import pytest

from manta.apis.errors import MissingPackage
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
