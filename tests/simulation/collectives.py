"""Tasks whose instances meet in collectives, while everything fails that can.

Each instance makes the same calls in each iteration. What it gives names it and its attempt, so
that what comes of a call tells whose values are in it. Planes and nodes crash, nodes are lost and
come back, instances are placed on other nodes, attempts fail, connections are cut, rosters and
directories come late.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

import numpy as np

from manta.node.plane.collectives.messages import CallName
from manta.node.plane.collectives.settling import Settling
from manta.node.plane.requests import ALIGNED, CallCollective, Leaf
from manta.protocol.base import Instance
from manta.protocol.roster import Roster, RosterInstance, RosterTask
from manta.protocol.states import AttemptState
from manta.transports.collectives.calls import Kind
from tests.simulation.collective_planes import EPOCH, Asked, Disk, Plane
from tests.simulation.exchange_planes import SWARM, Clock

TASK = "t"
TROUBLE = 25.0
"""Seconds in which things go wrong."""
PATIENCE = 120.0
"""Seconds after that in which all has to end."""
ATTEMPTS = 30
"""Of an instance in an iteration; then it is given up."""
FOREVER = 1e9
REFUSED = "refused"
"""What comes of a call for which a node has no room: of one of which all get the same, at all."""
LATE = 10.0
"""Seconds after which all have heard of what happened."""
KINDS = (
    Kind.ALL_REDUCE,
    Kind.ALL_REDUCE,
    Kind.REDUCE_SCATTER,
    Kind.ALL_GATHER,
    Kind.GATHER,
    Kind.SCATTER,
    Kind.BARRIER,
)
ALIKE = (Kind.ALL_REDUCE, Kind.ALL_GATHER, Kind.BARRIER)
"""Kinds of which all get the same."""


@dataclass(frozen=True)
class Planned:
    """A call of all instances."""

    kind: Kind
    root: int
    goes_on: bool
    dtype: str
    padding: int


class Scenario:
    def __init__(
        self,
        seed: int,
        *,
        settles: bool = False,
        lacks_room: bool = False,
        moves: bool = False,
    ) -> None:
        """`settles`: instances of odd ranks have written before each call for which all wait.
        `lacks_room`: other swarms fill nodes for a while. `moves`: next attempts are often placed
        on other nodes, and come back."""
        self.clock = Clock(seed)
        self.lacks_room = lacks_room
        self.settles = settles
        self.moves = Random(f"moves {seed}") if moves else None
        self.settled: set[tuple[int, int, int]] = set()
        """By era, rank and number: calls of which the manager has what was written before."""
        random = self.clock.random
        many = random.random() < 0.06  # more than speak with all others
        count = random.randint(17, 20) if many else random.randint(1, 5)
        self.names = [f"n{at}" for at in range(count)]
        self.size = count + (0 if many else random.randint(0, 3))
        self.eras = 1 if many else random.randint(1, 3)
        self.pace = random.choice((0.02, 0.3, 1.0))
        self.trouble = random.choice((0.5, 1.5))
        """How many things go wrong in a second."""
        self.calls = [
            [self._planned() for _ in range(random.randint(1, 2 if many else 6))]
            for _ in range(self.eras)
        ]
        self.crowds = Random(f"crowds {seed}")
        self.net: dict[str, Plane] = {}
        self.manager = Manager(self)
        self.nodes = {name: Node(self, name) for name in self.names}

    def _planned(self) -> Planned:
        random = self.clock.random
        kind = random.choice(KINDS)
        goes_on = kind in ALIKE and random.random() < 0.3
        dtype = random.choice(("int32", "float32"))
        return Planned(kind, random.randrange(self.size), goes_on, dtype, random.choice((0, 300)))

    def run(self) -> None:
        self.manager.begin()
        self._trouble()
        self._crowd()
        if self.lacks_room:
            self._fill()
        self.clock.run(self._is_over)
        for node in self.nodes.values():
            self._check_empty(node)

    def _is_over(self) -> bool:
        clock, manager = self.clock, self.manager
        if manager.is_over:
            return clock.now > manager.since + 10
        assert clock.now < TROUBLE + PATIENCE, f"they wait for ever: {self._waiting()}"
        return False

    def _waiting(self) -> list[str]:
        programs = [one for node in self.nodes.values() for one in node.programs.values()]
        return [f"{one.at} in call {one.number} on {one.node.name}" for one in programs]

    def _check_empty(self, node: Node) -> None:
        plane = node.plane
        plane.desk.close()
        plane.pool.close()
        assert plane.budget.sizes == (0, 0), f"{node.name} keeps {plane.budget.sizes} bytes"

    def _crowd(self) -> None:
        """Some planes want the room of small values that are kept."""
        self.clock.after(0.5, self._crowd)
        for node in self.nodes.values():
            if node.plane.is_alive and self.crowds.random() < 0.2:
                while node.plane.pool.keeps.spill(lambda _: True):
                    self.clock.seen["spills"] += 1

    def _fill(self) -> None:
        """Some nodes take nothing more that is small, until this is looked at again."""
        self.clock.after(0.5, self._fill)
        for node in self.nodes.values():
            room = node.plane.pool._small
            room.give("another", room.of("another"))
            if self.crowds.random() < 0.2:
                room.take("another", room.most)
            elif node.plane.is_alive:
                node.plane.look_again()

    def _trouble(self) -> None:
        clock, random = self.clock, self.clock.random
        if clock.now >= TROUBLE:
            return
        clock.after(random.expovariate(self.trouble), self._trouble)
        node = self.nodes[random.choice(self.names)]
        match random.randrange(12):
            case 0 | 1:
                node.crash_plane()
            case 2:
                node.crash()
            case 3 | 4:
                node.fail_one()
            case 5:
                self.manager.lose(node.name)
            case _:
                if node.plane.is_alive:
                    node.plane.cut_links()


class Manager:
    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.clock = scenario.clock
        self.era = 0
        self.since = 0.0
        self.heard = set(scenario.names)
        """Nodes that are there, as it believes."""
        self.places = [scenario.names[at % len(scenario.names)] for at in range(scenario.size)]
        self.numbers = [0] * scenario.size
        self.stays = [0] * scenario.size
        self.states = [AttemptState.RUNNING] * scenario.size
        self.given_up: dict[int, str] = {}
        self.forgot: set[int] = set()
        """Instances that had finished when what they had given was lost, with their node or with
        the planes of two nodes, as what one of them keeps is not on the disk of the other."""
        self.crashed: set[str] = set()
        """Nodes whose planes began anew in this iteration."""
        self.lacked_at = -FOREVER
        """When it last lacked a node."""
        self.got: dict[Instance, list[Any]] = {}
        """What came of each call of an attempt."""
        self.is_over = False

    def begin(self) -> None:
        self.since = self.clock.now
        self.numbers = [0] * self.scenario.size
        self.stays = [0] * self.scenario.size
        self.states = [AttemptState.RUNNING] * self.scenario.size
        self.given_up.clear()
        self.forgot.clear()
        self.crashed.clear()
        for rank, place in enumerate(self.places):
            if place not in self.heard:
                self._place(rank)
        self.changed()

    def changed(self) -> None:
        for node in self.scenario.nodes.values():
            self.clock.soon(0.2, node.sync)
            if self.clock.random.random() < 0.2:  # a message that is late
                self.clock.soon(2.0, node.sync)

    def roster(self) -> Roster:
        instances = tuple(
            RosterInstance(
                rank,
                place,
                place,
                self.numbers[rank],
                self.states[rank],
                self.given_up.get(rank, ""),
                stay=self.stays[rank],
            )
            for rank, place in enumerate(self.places)
        )
        task = RosterTask(TASK, "RUNNING", self.scenario.size, instances=instances)
        return Roster(EPOCH, self.era, {TASK: task}, {})

    def desired(self, name: str) -> list[Instance]:
        return [
            Instance(SWARM, TASK, rank, self.era, number)
            for rank, number in enumerate(self.numbers)
            if self.places[rank] == name and not self.states[rank].final and not self.is_over
        ]

    # --- what becomes of attempts -------------------------------------------------------------

    def told(self, at: Instance, state: AttemptState) -> None:
        """How an attempt ended. Told again and again until it is heard."""
        rank = at.index
        if (at.iteration, at.attempt) != (self.era, self.numbers[rank]) or self.states[rank].final:
            return
        self.clock.note("mgr", f"{at}: {state}")
        self.clock.seen[state] += 1
        if state is AttemptState.FINISHED:
            self.states[rank] = state
        else:
            self._again(rank)
        if all(one.final for one in self.states):
            self._end_era()
        self.changed()

    def _again(self, rank: int) -> None:
        if self.numbers[rank] + 1 < ATTEMPTS:
            self.numbers[rank] += 1
            self._place(rank)
            return
        assert self.forgot, f"{TASK}.{rank} was given up, though nothing was lost for good"
        self.clock.seen["given up"] += 1
        self.is_over = True
        self.since = self.clock.now

    def _place(self, rank: int) -> None:
        """Where it was, if that node is there and it does not move."""
        moves, former = self.scenario.moves, self.places[rank]
        if former not in self.heard:
            self.clock.seen["moved away"] += 1
            self.places[rank] = self.clock.random.choice(sorted(self.heard))
        elif moves is not None and moves.random() < 0.7:
            self.places[rank] = moves.choice(sorted(self.heard))
        if self.places[rank] != former:
            self.clock.seen["placed elsewhere"] += 1
            self.stays[rank] += 1

    def _end_era(self) -> None:
        self.check()
        self.era += 1
        self.since = self.clock.now
        self.clock.note("mgr", f"iteration {self.era}")
        if self.era < self.scenario.eras:
            self.begin()
        else:
            self.is_over = True

    def check(self) -> None:
        """All attempts that count got the same of each call of which all get the same."""
        counted = [
            self.got[Instance(SWARM, TASK, rank, self.era, number)]
            for rank, number in enumerate(self.numbers)
            if rank not in self.forgot  # others may have gone on without it
        ]
        for number, planned in enumerate(self.scenario.calls[self.era]):
            if planned.kind in ALIKE:
                came = [one[number] for one in counted]
                assert all(one == came[0] for one in came), f"call {number} has several outcomes"

    # --- nodes --------------------------------------------------------------------------------

    def crashes(self, name: str) -> None:
        """What the plane of this node had in memory is lost."""
        self.crashed.add(name)
        for one in self.crashed if len(self.crashed) > 1 else ():
            self.forgets(one)

    def forgets(self, name: str) -> None:
        """What the node's plane knew is lost, or may be."""
        for rank, place in enumerate(self.places):
            if place == name and self.states[rank] is AttemptState.FINISHED:
                self.forgot.add(rank)
        for at, state in self.scenario.nodes[name].ended.items():
            if at.iteration == self.era and state is AttemptState.FINISHED:
                self.forgot.add(at.index)

    @property
    def has_lost(self) -> bool:
        """Was a node lost to it in this iteration, or so late before that others hear in it?"""
        is_whole = len(self.heard) == len(self.scenario.names)
        return not is_whole or self.lacked_at + LATE >= self.since

    def lose(self, name: str) -> None:
        """It does not hear the node for a while, which goes on."""
        if name not in self.heard or len(self.heard) == 1 or self.is_over:
            return
        self.clock.note("mgr", f"{name} is lost")
        self.clock.seen["lost"] += 1
        self.heard.remove(name)
        self.forgets(name)
        for rank, place in enumerate(self.places):
            if place == name:
                self.stays[rank] += 1
        for rank, place in enumerate(self.places):
            if place == name and not self.states[rank].final and not self.is_over:
                self._again(rank)
        self.clock.soon(6.0, lambda: self._back(name))
        self.changed()

    def _back(self, name: str) -> None:
        self.lacked_at = self.clock.now
        self.heard.add(name)
        self.changed()


class Node:
    """A node: its daemon, its plane, and the attempts that it runs."""

    def __init__(self, scenario: Scenario, name: str) -> None:
        self.scenario, self.name, self.clock = scenario, name, scenario.clock
        self.programs: dict[Instance, Program] = {}
        self.ended: dict[Instance, AttemptState] = {}
        self.is_up = True
        self.disk = Disk()
        self.plane = self._made()
        self._dial()

    def _made(self) -> Plane:
        plane = Plane(self.clock, self.name, self.scenario.net, self.disk)
        plane.desk.settling = Settling(partial(self._settle, plane))
        return plane

    def _settle(self, plane: Plane, at: Instance) -> None:
        def settled() -> None:
            program = self.programs.get(at)
            if plane.is_alive and program is not None:
                self.clock.seen["settled"] += 1
                self.scenario.settled.add((at.iteration, at.index, program.number))
                plane.desk.settled(at)

        self.clock.soon(2.0, settled)

    def _dial(self) -> None:
        self.clock.after(self.clock.random.uniform(0.2, 0.6), self._dial)
        if self.plane.is_alive:
            for other in self.scenario.names:
                if self.name < other and other in self.scenario.net:
                    self.plane.dial(other)
        self.clock.soon(0.3, self._report)

    def _report(self) -> None:
        manager = self.scenario.manager
        if self.is_up and self.name in manager.heard and not manager.is_over:
            for at, state in list(self.ended.items()):
                manager.told(at, state)

    # --- what the manager says ----------------------------------------------------------------

    def sync(self) -> None:
        manager = self.scenario.manager
        if not self.is_up or not self.plane.is_alive or self.name not in manager.heard:
            return
        self.plane.introduced(sorted(manager.heard))
        self.plane.told(manager.roster())
        desired = manager.desired(self.name)
        for at, program in list(self.programs.items()):
            if at not in desired:
                self.end(program, AttemptState.CANCELLED)
        for at in desired:
            if at not in self.programs and at not in self.ended:
                self.programs[at] = Program(self, at)

    def holds(self, program: Program) -> bool:
        """Has its plane the outcome of the call that the program is in, as all get it?"""
        name = CallName(program.at.iteration, TASK, program.number)
        call = self.plane.desk.calls.get(name) if self.plane.is_alive else None
        return call is not None and call.meeting.machine.outcome is not None

    # --- attempts -----------------------------------------------------------------------------

    def end(self, program: Program, state: AttemptState) -> None:
        del self.programs[program.at]
        self.ended[program.at] = state
        program.is_over = True
        if program.plane is not None and program.plane.is_alive:
            counts = state is AttemptState.FINISHED
            program.plane.end(program.at, program.asked, counts=counts)

    def fail_one(self) -> None:
        if self.programs:
            self.clock.note(self.name, "an attempt fails")
            program = self.programs[self.clock.random.choice(sorted(self.programs, key=repr))]
            self.end(program, AttemptState.FAILED)

    def crash_plane(self) -> None:
        if not self.plane.is_alive:
            return
        self.clock.note(self.name, "its plane crashes")
        self.clock.seen["plane crashes"] += 1
        self.plane.crash()
        self.scenario.manager.crashes(self.name)
        for program in list(self.programs.values()):
            if program.plane is not None:  # else it has not met it
                self.end(program, AttemptState.INTERRUPTED)
        self.clock.soon(1.0, self._begin_plane)

    def _begin_plane(self) -> None:
        if self.is_up and not self.plane.is_alive:
            self.plane = self._made()
            self.clock.soon(0.3, self.sync)

    def crash(self) -> None:
        if not self.is_up:
            return
        self.clock.note(self.name, "crashes")
        self.clock.seen["node crashes"] += 1
        self.is_up = False
        if self.plane.is_alive:
            self.plane.crash()
        self.scenario.manager.crashes(self.name)
        for program in list(self.programs.values()):
            self.end(program, AttemptState.INTERRUPTED)
        self.clock.soon(2.0, self._restart)

    def _restart(self) -> None:
        self.is_up = True
        self._begin_plane()


class Program:
    """An attempt: it makes one call after the other."""

    def __init__(self, node: Node, at: Instance) -> None:
        self.node, self.at = node, at
        self.scenario, self.clock = node.scenario, node.clock
        self.calls = self.scenario.calls[at.iteration]
        self.got: list[Any] = []
        self.plane: Plane | None = None
        """Which it met in its first call."""
        self.asked: Asked | None = None
        self.is_over = False
        self.clock.soon(self.scenario.pace, self._go_on)

    @property
    def number(self) -> int:
        return len(self.got)

    def _go_on(self) -> None:
        if self.is_over:
            return
        if self.number == len(self.calls):
            self.scenario.manager.got[self.at] = self.got
            self.node.end(self, AttemptState.FINISHED)
            return
        if not self.node.plane.is_alive:  # it is begun again
            self.clock.soon(0.5, self._go_on)
            return
        self.plane = self.node.plane
        body, value = self._call(self.calls[self.number])
        self.asked = Asked(self.at, body, value, self._ended)
        self.plane.ask(self.asked)

    def _ended(self, values: list[tuple[int, bytes]], lost: dict[int, str], error: str) -> None:
        assert self.asked is not None, "it was answered twice"
        self.asked = None
        if self.is_over:
            return
        planned = self.calls[self.number]
        self.clock.note(self.node.name, f"{self.at} {planned.kind.value}: {error or 'done'}")
        if error.startswith("SwarmStopped: "):
            assert self.at not in self.scenario.manager.desired(self.node.name)
            return  # it is about to be ended
        if error.startswith("ResourceExhaustionError: "):
            assert self.scenario.lacks_room, error
            self.clock.seen["refused"] += 1
            self.got.append(REFUSED)  # and goes on without what comes of it
            self.clock.soon(self.scenario.pace, self._go_on)
            return
        if error:
            assert error.startswith("PeerLost: "), error
            assert any(name in error for name in (TASK + ".", *self.scenario.names, TASK)), error
            self._check_lost(error)
            self.clock.seen["PeerLost"] += 1
            self.clock.soon(0.1, lambda: self._failed())
            return
        assert not lost or planned.goes_on or planned.kind is Kind.GATHER
        if self._settles(planned):
            for rank in range(1, self.scenario.size, 2):
                assert (self.at.iteration, rank, self.number) in self.scenario.settled
        self.got.append(self._understood(planned, values, lost))
        self.clock.soon(self.scenario.pace, self._go_on)

    def _check_lost(self, error: str) -> None:
        """While no node is lost, planes that begin anew cost no attempt of others, but where what
        came of the call is nowhere, and what was given can't be given again."""
        manager = self.scenario.manager
        if manager.has_lost:
            return
        assert manager.forgot, f"nothing was lost for good: {error}"
        there = [self.scenario.nodes[name] for name in sorted(set(manager.places))]
        holders = [node.name for node in there if node.holds(self)]
        assert not holders, f"{holders} have what came of it: {error}"

    def _failed(self) -> None:
        if not self.is_over:
            self.node.end(self, AttemptState.FAILED)

    # --- what is given, and what comes of it --------------------------------------------------

    def _call(self, planned: Planned) -> tuple[CallCollective, bytes]:
        kind, size, rank = planned.kind, self.scenario.size, self.at.index
        sizes: list[int] = []
        leaves: tuple[Leaf, ...] = ()
        value = b""
        if kind.reduces:
            one = np.zeros((size, ATTEMPTS), planned.dtype)
            one[rank, self.at.attempt] = 1
            parts = [one.tobytes()] * (size if kind is Kind.REDUCE_SCATTER else 1)
            value, sizes = b"".join(parts), [len(part) for part in parts]
            leaves = (Leaf(0, len(value), planned.dtype, "value", planned.dtype, ""),)
        elif kind in (Kind.ALL_GATHER, Kind.GATHER):
            value = self._text(rank, planned)
            sizes = [len(value)]
        elif kind is Kind.SCATTER and rank == planned.root:
            texts = [self._text(to, planned) for to in range(size)]
            sizes = [len(text) for text in texts]
            value = b"".join(text.ljust(-(-len(text) // ALIGNED) * ALIGNED) for text in texts)
        body = CallCollective(
            n=1,
            number=self.number,
            kind=kind,
            words=f"{kind.value}()",
            timeout=FOREVER,
            root=planned.root if kind.has_root else 0,
            goes_on=planned.goes_on,
            op="sum" if kind.reduces else "",
            leaves=leaves,
            sizes=tuple(sizes),
            settles=self._settles(planned) and rank % 2 == 1,
        )
        return body, value

    def _settles(self, planned: Planned) -> bool:
        return self.scenario.settles and planned.kind in ALIKE and not planned.goes_on

    def _text(self, to: int, planned: Planned) -> bytes:
        """Says whose it is, and for whom."""
        padding = Random(f"{self.at}{to}").randrange(planned.padding + 1)
        return f"{self.number} {self.at.index} {self.at.attempt} {to} ".encode() + b"." * padding

    def _understood(
        self, planned: Planned, values: list[tuple[int, bytes]], lost: dict[int, str]
    ) -> Any:
        """Whose values are in it, by rank: the attempts."""
        kind, rank, size = planned.kind, self.at.index, self.scenario.size
        everybody = set(range(size)) - lost.keys()
        if kind is Kind.BARRIER or (kind is Kind.GATHER and rank != planned.root):
            assert values == []
            return sorted(lost)
        if kind.reduces:
            ((_, data),) = values
            counts = np.frombuffer(data, planned.dtype).reshape(size, ATTEMPTS)
            assert counts.sum(1).tolist() == [float(one in everybody) for one in range(size)]
            return [(int(one), int(at)) for one, at in zip(*counts.nonzero(), strict=True)]
        if kind is Kind.SCATTER and rank == planned.root:
            return []
        found = []
        for whose, data in values:
            number, by, attempt, to = map(int, data.split()[:4])
            assert number == self.number
            assert (by, to) == ((planned.root, rank) if kind is Kind.SCATTER else (whose, whose))
            found.append((by, attempt))
        if kind is not Kind.SCATTER:
            assert {by for by, _ in found} == everybody
        return sorted(found)
