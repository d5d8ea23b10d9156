"""Work that is handed out by bids: fifty seeds in every run, and `--seed N` replays one."""

from __future__ import annotations

from collections import Counter
from functools import partial

import pytest

from manta.mesh.coordination.events import Tick
from manta.mesh.coordination.negotiation import (
    Again,
    Begin,
    Cancel,
    Completed,
    Ended,
    Negotiation,
    Offered,
)
from tests.simulation.coordination import Net

LONG = 300.0


class Scenario:
    def __init__(self, seed: int, loss: float) -> None:
        self.seen: Counter[str] = Counter()
        chance = Net(seed, [], self.machine_of, self.performed).random
        self.names = [f"peer-{number}" for number in range(chance.randint(2, 7))]
        self.capacity = {name: chance.randint(1, 10) for name in self.names}
        self.begun: dict[tuple[str, str, int], int] = {}
        """By contractor, manager and part: units."""
        self.working: dict[tuple[str, str, int], int] = {}
        self.completed: Counter[tuple[str, str]] = Counter()
        """Units, by manager and work."""
        self.offered: dict[tuple[str, str], int] = {}
        self.ended: dict[tuple[str, str], Ended] = {}
        self.lost: Counter[tuple[str, str]] = Counter()
        self.net = Net(seed, self.names, self.machine_of, self.performed, loss)

    def machine_of(self, name: str) -> Negotiation:
        return Negotiation(name, self.capacity[name])

    def performed(self, name: str, action: object) -> None:
        match action:
            case Begin(manager, work, part, units):
                at = (name, manager, part)
                assert at not in self.begun, "a part is begun twice"
                self.begun[at] = self.working[at] = units
                mine = sum(found for one, found in self.working.items() if one[0] == name)
                assert mine <= self.capacity[name], "it has taken more than it can"
                most = self.net.random.choice([0.5, 3.0, 8.0])
                self.net.clock.soon(most, partial(self._complete, at, work))
            case Cancel(manager, part):
                del self.working[name, manager, part]
                self.seen["cancelled"] += 1
            case Again(work, _, units):
                self.lost[name, work] += units
                self.seen["again"] += 1
            case Ended(work, done, unplaced):
                assert (name, work) not in self.ended
                self.ended[name, work] = action
                assert done + unplaced == self.offered[name, work], "units are counted twice"
                assert self.completed[name, work] >= done, "what is counted was not done"
                self.seen["unplaced"] += bool(unplaced)

    def _complete(self, at: tuple[str, str, int], work: str) -> None:
        name, manager, part = at
        if name not in self.net.dead and at in self.working:
            self.completed[manager, work] += self.working.pop(at)
            self.net.tell(name, Completed(manager, part))

    def offer(self, name: str) -> None:
        work = f"work-{len(self.offered)}"
        self.offered[name, work] = self.net.random.choice([1, 5, 30])
        self.net.tell(name, Offered(work, self.offered[name, work]))

    def is_over(self) -> bool:
        there = [key for key in self.offered if key[0] not in self.net.dead]
        quiet = all(self.net.machines[name].due is None for name in self.net.living)
        working = any(at[0] not in self.net.dead for at in self.working)
        return quiet and not working and all(key in self.ended for key in there)

    def run(self, what: list[str]) -> None:
        net, random = self.net, self.net.random
        net.start()
        for _ in range(6):
            net.run(random.uniform(0, 4))
            done = random.choice(["offer", *what])
            if done == "offer":
                self.offer(random.choice(net.living))
            elif done == "kill" and len(net.living) > 2:
                net.kill(random.choice(net.living))
            elif done == "part":
                net.part({*random.sample(self.names, random.randint(1, len(self.names)))})
            elif done == "heal":
                net.heal()
            elif done == "suspect":
                name, peer = random.sample(net.living, 2)
                if peer in net.views[name]:
                    net.suspect(name, peer)
            self.seen[done] += 1
        net.heal()
        assert net.run(LONG, lambda: net.is_told() and self.is_over()), "it does not end"


def run(seed: int, loss: float, what: list[str]) -> Scenario:
    scenario = Scenario(seed, loss)
    try:
        scenario.run(what)
    except AssertionError:
        print("\n".join(scenario.net.clock.trace[-60:]))
        raise
    return scenario


@pytest.fixture(scope="module")
def seen() -> Counter[str]:
    return Counter()


def test_each_unit_is_done_once_while_nobody_dies(seed: int) -> None:
    scenario = run(seed, 0.2, [])
    for key, ended in scenario.ended.items():
        assert scenario.completed[key] == ended.done
    assert not scenario.lost


def test_units_are_done_again_only_where_a_contractor_was_lost(
    seed: int, seen: Counter[str]
) -> None:
    scenario = run(seed, 0.2, ["offer", "kill", "part", "heal", "suspect"])
    for key, ended in scenario.ended.items():
        assert scenario.completed[key] <= ended.done + scenario.lost[key]
    seen["runs"] += 1
    seen.update(scenario.seen)


def test_the_seeds_went_through_everything(seen: Counter[str]) -> None:
    if seen["runs"] < 50:
        pytest.skip("asks for fifty seeds")
    for what in ("kill", "part", "heal", "suspect", "again", "cancelled"):
        assert seen[what] >= 5, f"hardly a seed saw {what}"


def test_nobody_with_room_means_unplaced() -> None:
    scenario = Scenario(1, 0.0)
    scenario.net.tell("peer-0", Tick())
    scenario.offered["peer-0", "w"] = 3
    scenario.net.tell("peer-0", Offered("w", 3))
    assert scenario.net.run(LONG, lambda: bool(scenario.ended))
    assert scenario.ended == {("peer-0", "w"): Ended("w", 0, 3)}
