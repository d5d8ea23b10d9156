"""Items that peers divide among themselves: fifty seeds in every run; `--seed N` replays one."""

from __future__ import annotations

from collections import Counter
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from manta.mesh.coordination.events import Ignored, Left, Received
from manta.mesh.coordination.stealing import Completed, Finished, Run, Stealing
from tests.simulation.coordination import Net

LONG = 300.0
"""Seconds; there is work of about 20 s."""


class Scenario:
    def __init__(self, seed: int, loss: float) -> None:
        self.seen: Counter[str] = Counter()
        self.started: dict[int, list[tuple[int, str, float]]] = {}
        """By item: run, worker and time."""
        self.completed: set[tuple[int, int, str, bytes]] = set()
        self.finished: set[str] = set()
        self.kills = 0
        """So many are yet to be killed after they gave something away."""
        self.left: dict[str, float] = {}
        """When anybody first counted a peer dead."""
        chance = Net(seed, [], self.machine_of, self.performed).random
        self.names = [f"peer-{number}" for number in range(chance.randint(2, 7))]
        self.items = chance.choice([chance.randint(0, 60), 2 * len(self.names)])
        owners = self.names[: chance.randint(1, len(self.names))]
        self.owners = owners
        self.slow = chance.choice(self.names)
        news = chance.choice([0.02, 0.02, 0.3, 2.0])
        self.net = Net(seed, self.names, self.machine_of, self.performed, loss, news)
        self.net.views = {name: {*self.names} - {name} for name in self.names}
        tell = self.net.tell

        def told(name: str, event: Any) -> None:
            if isinstance(event, Left):
                self.left.setdefault(event.peer, self.net.clock.now)
            tell(name, event)
            is_asked = isinstance(event, Received) and event.message.wants
            if is_asked and self.kills and self.net.random.random() < 0.6:
                self.kills -= 1
                self.net.clock.soon(0.05, partial(self._kill, name))

        self.net.tell = told  # type: ignore[method-assign]

    def machine_of(self, name: str) -> Stealing:
        return Stealing(name, self.items, self.owners, self.names)

    def machine(self, name: str) -> Stealing:
        machine = self.net.machines[name]
        assert isinstance(machine, Stealing)
        return machine

    def performed(self, name: str, action: object) -> None:
        match action:
            case Run(item, run):
                runs = self.started.setdefault(item, [])
                assert (run, name) not in [one[:2] for one in runs], "one run is begun twice"
                for _, worker, _ in runs:
                    assert {worker, name} & {*self.left}, "it is begun again, and nobody was lost"
                    self.seen["again"] += 1
                assert run == 1 or self.left or {*self.owners} - {*self.names}
                runs.append((run, name, self.net.clock.now))
                most = 4.0 if name == self.slow else 1.0
                self.net.clock.soon(most, partial(self._complete, name, item, run))
            case Finished():
                assert name not in self.finished
                self.finished.add(name)
            case Ignored():
                raise AssertionError(f"{name}: {action}")

    def _complete(self, name: str, item: int, run: int) -> None:
        if name not in self.net.dead:
            result = f"{item} by {name}".encode()
            self.completed.add((item, run, name, result))
            self.net.tell(name, Completed(item, result))

    def _kill(self, name: str) -> None:
        if len(self.net.living) > 1 and name not in self.net.dead:
            self.net.kill(name)
            self.seen["gave and died"] += 1

    def is_over(self) -> bool:
        return self.net.is_told() and all(
            name in self.finished and self.machine(name).due is None for name in self.net.living
        )

    def finish(self) -> None:
        assert self.net.run(LONG, self.is_over), "it does not end"
        tables = {tuple(self.machine(name).rows) for name in self.net.living}
        assert len(tables) == 1, "not all count the same"
        for row in tables.pop():
            assert row.is_done
            assert (row.item, row.run, row.owner, row.result) in self.completed
        self.net.run(5.0)  # acknowledgements that were lost
        sent = self.net.sent.copy()
        self.net.run(3.0)
        assert self.net.sent == sent, "they are done and still talk"

    def start(self) -> None:
        for name in self.names:
            self.net.tell(name, Left("nobody"))
        self.left.clear()


def run(scenario: Scenario, what: list[str]) -> None:
    net, random = scenario.net, scenario.net.random
    try:
        scenario.start()
        for _ in range(random.randint(1, 5) if what else 0):
            net.run(random.uniform(0, 3))
            done = random.choice(what)
            if done == "kill" and len(net.living) > 1:
                net.kill(random.choice([min(net.living), *net.living]))
            elif done == "part":
                size = random.randint(1, len(scenario.names))
                net.part({*random.sample(scenario.names, size)})
            elif done == "heal":
                net.heal()
            elif done == "suspect" and len(net.living) > 1:
                name, peer = random.sample(net.living, 2)
                if peer in net.views[name]:
                    net.suspect(name, peer)
            scenario.seen[done] += 1
        if "part" in what:
            net.heal()
        scenario.finish()
    except AssertionError:
        print("\n".join(net.clock.trace[-60:]))
        raise


@pytest.fixture(scope="module")
def seen() -> Counter[str]:
    return Counter()


def test_each_item_is_done_once_while_nobody_dies(seed: int, seen: Counter[str]) -> None:
    scenario = Scenario(seed, loss=0.2)
    run(scenario, [])
    assert all(len(runs) == 1 for runs in scenario.started.values())
    assert len(scenario.started) == scenario.items
    workers = {worker for runs in scenario.started.values() for _, worker, _ in runs}
    seen["stolen"] += bool(workers - {*scenario.owners})


def test_items_are_done_again_only_where_their_worker_died(seed: int, seen: Counter[str]) -> None:
    scenario = Scenario(seed, loss=0.3)
    scenario.kills = 3
    run(scenario, ["kill"])
    for runs in scenario.started.values():
        for (_, worker, _), (_, _, at) in pairwise(runs):
            assert worker in scenario.net.dead
            assert scenario.left[worker] <= at
    seen.update(scenario.seen)


def test_all_is_done_whatever_fails_and_counted_once(seed: int, seen: Counter[str]) -> None:
    scenario = Scenario(seed, loss=0.1)
    run(scenario, ["kill", "part", "heal", "suspect"])
    seen["runs"] += 1
    seen.update(scenario.seen)


def test_the_seeds_went_through_everything(seen: Counter[str]) -> None:
    if seen["runs"] < 50:
        pytest.skip("asks for fifty seeds")
    for what in ("kill", "part", "heal", "suspect", "again", "stolen", "gave and died"):
        assert seen[what] >= 10, f"hardly a seed saw {what}"
