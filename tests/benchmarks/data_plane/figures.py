"""The figures that the data plane is measured by, and the goals of each. Pure.

Samples are in seconds, bytes, bytes a second or calls a second; a figure's unit says how they are
shown. Sizes are in bytes, a MB has 1,000,000.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.benchmarks.data_plane.samples import ratio, spread

MANTA = "manta"
GLOO = "gloo"
MPI, MPI_TCP = "Open MPI", "Open MPI, TCP"
TCP, CURVE = "TCP", "pyzmq, CURVE"
FLOWER, RAY, DASK, HIVEMIND = "Flower", "Ray", "Dask", "hivemind"
IDLE = "idle"
FORKS, POOL = "bare forks", "process pool"
TASKS, MESH = "tasks", "mesh"
FLOOR = "messages and syncs"

RESIDENT, OF_NODE = "resident", "node"
SEALED, LOCAL = "sealed", "local"
"""How nodes of one machine are linked: as across a network, or by what they share."""


class Unit(NamedTuple):
    name: str
    scale: float
    """Times a sample gives what is shown."""
    more_is_better: bool = False


MS = Unit("ms", 1e3)
RATE = Unit("GB/s", 1e-9, True)
CALLS = Unit("a second", 1.0, True)
MB = Unit("MB", 1e-6)


class Goal(NamedTuple):
    """At most this much, or at least where more is better: in the figure's unit, or times what the
    side `against` came to in the same run."""

    limit: float
    against: str = ""


@dataclass(frozen=True)
class Figure:
    """`kind` says how it is measured; `seconds` is what its turns may take."""

    name: str
    title: str
    kind: str
    unit: Unit
    goals: tuple[Goal, ...] = ()
    seconds: float = 10.0
    size: int = 0
    nodes: int = 1
    form: str = SEALED
    stages: int = 0
    variant: str = ""
    """Which of several things that are measured alike."""
    optional: bool = False
    """It takes much memory or time: measured only where it is named."""


@dataclass
class Outcome:
    figure: Figure
    samples: dict[str, list[float]] = field(default_factory=dict)
    """By side; Manta's own are under "manta"."""
    missing: dict[str, str] = field(default_factory=dict)
    """By side: why it was not measured."""
    notes: list[str] = field(default_factory=list)

    def ratio(self, side: str) -> float | None:
        """How many times that side's outcome Manta's is."""
        ours, theirs = self.samples.get(MANTA), self.samples.get(side)
        return ratio(ours, theirs) if ours and theirs else None

    def holds(self, goal: Goal) -> bool | None:
        """None where either side was not measured."""
        if goal.against:
            reached = self.ratio(goal.against)
        elif ours := self.samples.get(MANTA):
            reached = spread(ours).median * self.figure.unit.scale
        else:
            reached = None
        if reached is None:
            return None
        return reached >= goal.limit if self.figure.unit.more_is_better else reached <= goal.limit


KB64, MB1, MB16, MB100, GB1, GB4 = 65_536, 10**6, 16 * 10**6, 100 * 10**6, 10**9, 4 * 10**9

_PLACES = {
    ("one-node", SEALED): (1, "on one node"),
    ("four-nodes", SEALED): (4, "on four nodes, sealed"),
    ("four-nodes-local", LOCAL): (4, "on four nodes, by local links"),
}
_SIZES = {"64KiB": KB64, "1MB": MB1, "16MB": MB16, "100MB": MB100}
_TOGETHER = {KB64: (0.3,), MB16: (1.0,), MB100: (0.8,)}
"""all_reduce where memory is shared: times gloo's plain TCP."""
_APART = {KB64: (0.5,), MB1: (1.5,), MB16: (2.5,), MB100: (2.5, 1.5)}
"""The same, sealed between nodes."""


def _all_reduces() -> Iterator[Figure]:
    for (place, form), (nodes, where) in _PLACES.items():
        limits = _APART if (nodes, form) == (4, SEALED) else _TOGETHER
        for label, size in _SIZES.items():
            yield Figure(
                f"all_reduce-{place}-{label}",
                f"all_reduce of {label} over four members {where}",
                "all_reduce",
                MS,
                tuple(Goal(limit, GLOO) for limit in limits.get(size, ())),
                {MB100: 24.0, MB16: 10.0}.get(size, 6.0),
                size,
                nodes,
                form,
            )


def _broadcasts() -> Iterator[Figure]:
    for (place, form), (nodes, where) in _PLACES.items():
        shared = (nodes, form) != (4, SEALED)
        yield Figure(
            f"broadcast-{place}-100MB",
            f"broadcast of 100MB from one to four, {where}",
            "broadcast",
            MS,
            (Goal(1.0, RAY if shared else DASK),),
            18.0,
            MB100,
            1 if nodes == 1 else 5,
            form,
        )


def _letters() -> Iterator[Figure]:
    for place, form, nodes, where, trips, rates in (
        ("one-node", SEALED, 1, "on one node", 2.0, (Goal(3.0),)),
        ("two-nodes", SEALED, 2, "across nodes, sealed", 4.0, (Goal(1.0, CURVE), Goal(0.6))),
        ("two-nodes-local", LOCAL, 2, "across nodes, by local links", 2.0, (Goal(3.0),)),
    ):
        yield Figure(
            f"letter-{place}-64B",
            f"a letter of 64 bytes there and back, {where}",
            "trip",
            MS,
            (Goal(trips, CURVE),),
            6.0,
            64,
            nodes,
            form,
        )
        yield Figure(
            f"letter-{place}-100MB",
            f"a letter of 100MB one way, {where}",
            "stream",
            RATE,
            rates,
            12.0,
            MB100,
            nodes,
            form,
        )


def _rounds() -> Iterator[Figure]:
    for form, suffix, links in ((SEALED, "", "sealed"), (LOCAL, "-local", "by local links")):
        for stages in (2, 4):
            for label, megabytes, limit, seconds in (
                ("0.4MB", 0.4, 5.0, 12.0),
                ("10MB", 10, 1.5, 20.0),
                ("100MB", 100, 1.0, 40.0),
            ):
                against = Goal(limit, CURVE) if form == SEALED else Goal(1.0, FLOWER)
                yield Figure(
                    f"fedavg-{stages}-stages{suffix}-{label}",
                    f"a round of FedAvg of {label} without training, 8 nodes, {stages} stages, "
                    f"{links}",
                    "fedavg",
                    MS,
                    (against,) if stages == 2 else (),
                    seconds,
                    int(megabytes * 1e6),
                    8,
                    form,
                    stages,
                )


def _meshes() -> Iterator[Figure]:
    for label, size, operation, peers, what in (
        ("letter-64B", 64, "trip", 2, "a letter of 64 bytes there and back, between peers"),
        ("all_reduce-64KiB", KB64, "all_reduce", 4, "all_reduce of 64KiB over four peers"),
        ("all_reduce-16MB", MB16, "all_reduce", 4, "all_reduce of 16MB over four peers"),
    ):
        yield Figure(
            f"mesh-{label}",
            f"{what} of a mesh",
            "mesh",
            MS,
            (Goal(1.1, TASKS),),
            10.0,
            size,
            peers,
            LOCAL,
            variant=operation,
        )
    for name, kind, limit, how, what in (
        ("start", "mesh_start", 1500, "", "eight peers of a script, until all have met"),
        ("killed", "mesh_loss", 1000, "KILL", "a killed peer of eight, until all others name it"),
        ("frozen", "mesh_loss", 3000, "STOP", "a stopped peer of eight, until all others name it"),
    ):
        yield Figure(
            f"mesh-{name}",
            what,
            kind,
            MS,
            (Goal(limit),),
            30.0,
            nodes=8,
            form=LOCAL,
            variant=how,
        )


FIGURES: tuple[Figure, ...] = (
    *_all_reduces(),
    *_broadcasts(),
    *_letters(),
    *_rounds(),
    *_meshes(),
    Figure(
        "stage",
        "what one stage more takes, no data, 8 nodes",
        "stage",
        MS,
        (Goal(8.0),),
        20.0,
        nodes=8,
    ),
    Figure(
        "no-ops-forked",
        "instances that do nothing, each in a process of its own",
        "no_ops",
        CALLS,
        (Goal(1000),),
        25.0,
        nodes=2,
    ),
    Figure(
        "no-ops-resident",
        "instances that do nothing, in a living object",
        "no_ops",
        CALLS,
        (Goal(2500),),
        20.0,
        nodes=2,
        variant=RESIDENT,
    ),
    Figure(
        "asks-user",
        "p95 of a user's asks while 1 GB moves from node to node",
        "asks",
        MS,
        (Goal(2.0, IDLE),),
        20.0,
        GB1,
        2,
    ),
    Figure(
        "asks-node",
        "p95 of the asks, on the way of its heartbeats, of a node that sends 1 GB meanwhile",
        "asks",
        MS,
        (Goal(2.0, IDLE),),
        20.0,
        GB1,
        2,
        variant=OF_NODE,
    ),
    Figure(
        "large-value",
        "the most that a process grows by, of all but its owners', while a value of 4 GB moves "
        "from node to node",
        "growth",
        MB,
        (Goal(64),),
        120.0,
        GB4,
        2,
        optional=True,
    ),
)
"""In the order in which they are measured but for their form: figures of one form follow each
other."""


def chosen(names: Sequence[str]) -> list[Figure]:
    """All that are not optional, or those whose names begin with one of `names`.

    Raises LookupError for a name with which none begins.
    """
    for name in names:
        if not any(figure.name.startswith(name) for figure in FIGURES):
            known = "\n  ".join(figure.name for figure in FIGURES)
            raise LookupError(f"No figure's name begins with {name!r}. There are\n  {known}")
    wanted = [
        figure
        for figure in FIGURES
        if any(map(figure.name.startswith, names)) or not (names or figure.optional)
    ]
    return sorted(wanted, key=lambda figure: figure.form == LOCAL)
