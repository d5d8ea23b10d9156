"""An overview of something with an id stands for it wherever a text does."""

from __future__ import annotations

from typing import Any

import pytest

from manta.apis.overviews import (
    ClusterOverview,
    EventOverview,
    ModuleOverview,
    SwarmOverview,
    UserOverview,
)

CLUSTER = ClusterOverview("c1", "lab", "RUNNING", "u1", 3)
SWARM = SwarmOverview("s1", "mean", "c1", "ACTIVE", "", 2, None, 1.0, 1.0, None, 1)
USER = UserOverview("u1", "ada@example.org", False, 1.0, ())
MODULE = ModuleOverview("m1", "worker", "1.0.0", None, 0, "i", (), (), None, "u1", 1.0, 1.0)


@pytest.mark.parametrize(
    ("overview", "kind", "shown"),
    [
        (CLUSTER, "cluster", "<Cluster c1 lab RUNNING>"),
        (SWARM, "swarm", "<Swarm s1 mean ACTIVE>"),
        (USER, "user", "<User u1 ada@example.org>"),
        (MODULE, "module", "<Module m1 worker>"),
    ],
)
def test_its_text_is_its_id(overview: Any, kind: str, shown: str) -> None:
    assert str(overview) == f"{overview}" == overview.id == overview["id"]
    assert getattr(overview, f"{kind}_id") == overview[f"{kind}_id"] == overview.id
    assert repr(overview) == shown
    assert [*overview] == [*dict(overview)] == list(overview.keys())


def test_others_show_what_they_hold() -> None:
    event = EventOverview(1.0, "state", "s", 0, "a", 0, "n", None)
    assert repr(event).startswith("EventOverview(at=1.0, kind='state'")
    with pytest.raises(KeyError, match="'id': there are at"):
        event["id"]
