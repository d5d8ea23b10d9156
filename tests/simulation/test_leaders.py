"""Leaders by lowest id: fifty seeds in every run, and `--seed N` replays one."""

from __future__ import annotations

from collections import Counter

import pytest

from manta.mesh.coordination.events import Ignored
from manta.mesh.coordination.leader import Epoch, Follow, Lead, Leadership, Resign
from tests.simulation.coordination import NEWS, Net

QUIET = NEWS + 8.0
"""Seconds in which peers agree once nothing goes wrong any more, with 20 % of loss."""


class Scenario:
    def __init__(self, seed: int) -> None:
        self.leaders: dict[Epoch, str] = {}
        self.leading: dict[str, tuple[Epoch, set[str]]] = {}
        """And whom it counted alive when it began to."""
        self.seen: Counter[str] = Counter()
        self.net = Net(seed, [], Leadership, self.performed)
        random = self.net.random
        self.names = [f"peer-{number}" for number in range(random.randint(2, 8))]
        self.net = Net(seed, self.names, Leadership, self.performed, loss=random.choice([0, 0.2]))

    def machine(self, name: str) -> Leadership:
        machine = self.net.machines[name]
        assert isinstance(machine, Leadership)
        return machine

    def performed(self, name: str, action: object) -> None:
        match action:
            case Lead(epoch):
                assert epoch not in self.leaders, "an epoch has two leaders"
                assert epoch.leader == name
                self.leaders[epoch] = name
                self.leading[name] = (epoch, set(self.net.views[name]))
                living = [one for one in self.leading.items() if one[0] not in self.net.dead]
                for one, (earlier, _) in living:
                    for _, (later, counted) in living:
                        if earlier < later:
                            self.seen["two at once"] += 1
                            assert one not in counted, "it leads beside one that it counted"
            case Resign(epoch):
                assert self.leading.pop(name)[0] == epoch
            case Follow(epoch):
                assert name not in self.leading, "it leads and follows"
            case Ignored():
                raise AssertionError(f"{name}: {action}")

    def agree(self, side: list[str]) -> bool:
        """Whether all of a side follow the one of the lowest id, which leads."""
        epochs = {self.machine(name).epoch for name in side}
        return (
            {self.machine(name).leader for name in side} == {min(side)}
            and len(epochs) == 1
            and self.machine(min(side)).is_leading
        )

    def settle(self) -> None:
        sides: dict[frozenset[str], list[str]] = {}
        for name in self.net.living:
            reached = frozenset(one for one in self.names if self.net.reaches(name, one))
            sides.setdefault(reached, []).append(name)

        def is_over() -> bool:
            return self.net.is_told() and all(map(self.agree, sides.values()))

        assert self.net.run(QUIET, is_over), f"no agreement on {list(sides.values())}"
        self.net.run(5.0)  # promises that were lost
        messages = self.net.sent.copy()
        self.net.run(3.0)
        assert all(map(self.agree, sides.values())), "they do not stay with it"
        assert self.net.sent == messages, "they agree and still talk"
        self.seen["settled"] += 1

    def run(self) -> None:
        net, random = self.net, self.net.random
        net.start()
        for _ in range(6):
            self.settle()
            for _ in range(random.randint(1, 3)):
                what = random.choice(["kill", "part", "heal", "suspect", "suspect"])
                self.seen[what] += 1
                if what == "kill" and len(net.living) > 2:
                    net.kill(random.choice([min(net.living), *net.living]))
                elif what == "part":
                    net.part(set(random.sample(self.names, random.randint(1, len(self.names)))))
                elif what == "heal":
                    net.heal()
                elif len(net.living) > 1:
                    name, peer = random.sample(net.living, 2)
                    if peer in net.views[name]:
                        net.suspect(name, random.choice([peer, min(net.views[name])]))
                net.run(random.uniform(0, 3))
        net.heal()
        self.settle()
        assert {self.machine(name).leader for name in net.living} == {min(net.living)}


@pytest.fixture(scope="module")
def seen() -> Counter[str]:
    return Counter()


def test_an_epoch_has_one_leader_and_each_side_comes_to_one(seed: int, seen: Counter[str]) -> None:
    scenario = Scenario(seed)
    try:
        scenario.run()
    except AssertionError:
        print("\n".join(scenario.net.clock.trace[-80:]))
        raise
    seen["runs"] += 1
    seen.update(scenario.seen)


def test_the_seeds_went_through_everything(seen: Counter[str]) -> None:
    if seen["runs"] < 50:
        pytest.skip("asks for fifty seeds")
    for what in ("two at once", "kill", "part", "heal", "suspect"):
        assert seen[what] >= 20, f"hardly a seed saw {what}"
