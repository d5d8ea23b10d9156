"""Tasks of several nodes that exchange directly, while everything fails that can.

Each instance sends letters to all nodes and receives its share of what comes to its own, in each
iteration; whatever attempt does it, the letters are the same. Nodes, planes and the manager crash,
attempts fail, connections are cut, rosters come late.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any

from manta.node.plane.requests import (
    HearBroadcast,
    PlaneRequest,
    ReceiveLetter,
    SayToAll,
    SendLetter,
)
from manta.protocol.base import Instance
from manta.protocol.roster import Roster, RosterInstance, RosterTask
from manta.protocol.states import AttemptState
from manta.transports.exchange.letters import Value
from manta.transports.exchange.messages import Parcel
from tests.simulation.exchange_planes import SWARM, Asked, Clock, Disk, Plane

TASK = "t"
TROUBLE = 40.0
"""Seconds in which things go wrong."""
FOREVER = 1e9


@dataclass
class Letter:
    """What a letter says: which one it is."""

    era: int
    sender: int
    to: str
    tag: str
    serial: int


@dataclass
class Journal:
    """A node's, on its disk: what it began, and how that ended."""

    began: list[Instance] = field(default_factory=list)
    ended: dict[Instance, AttemptState] = field(default_factory=dict)


class Scenario:
    def __init__(self, seed: int) -> None:
        self.clock = Clock(seed)
        random = self.clock.random
        self.names = [f"n{at}" for at in range(random.randint(1, 4))]
        self.size = random.randint(len(self.names), 2 * len(self.names))
        self.eras = random.randint(1, 4)
        self.tags = ["a", "b"][: random.randint(1, 2)]
        self.each = random.randint(1, 6)
        """Letters of an instance to each node under each tag."""
        self.pace = random.choice((0.02, 0.3, 1.0))
        self.values: dict[bytes, Letter] = {}
        """What each large value says."""
        self.net: dict[str, Plane] = {}
        self.manager = Manager(self)
        self.nodes = {name: Node(self, name) for name in self.names}

    # --- what is said -------------------------------------------------------------------------

    def place(self, rank: int) -> str:
        return self.names[rank % len(self.names)]

    def on(self, name: str) -> list[int]:
        return [rank for rank in range(self.size) if self.place(rank) == name]

    def share(self, era: int, rank: int, source: str) -> int:
        """How many letters under each tag an instance receives from a node. Some are left for the
        next iteration, none at the end."""
        here = self.on(self.place(rank))
        received = due = 0
        for before in range(era + 1):
            sent = (before + 1) * self.each * len(self.on(source))
            left = 0 if before == self.eras - 1 else Random(f"{before}{source}").randrange(3)
            received += due
            due = max(0, sent - received - left)
        return due // len(here) + (here.index(rank) < due % len(here))

    def run(self) -> None:
        self.manager.begin()
        self._trouble()
        self.clock.run(lambda: self.manager.era == self.eras and self._is_settled())
        for node in self.nodes.values():
            self._check_empty(node)

    def _is_settled(self) -> bool:
        """Long after the end."""
        return self.clock.now > self.manager.since + 30 and self.clock.now > TROUBLE + 30

    def _check_empty(self, node: Node) -> None:
        plane = node.plane
        assert plane is not None
        group = plane.swarm._group
        if group is not None:
            assert group.letters.kept.letters == group.letters.kept.size == 0, node.name
        assert not node.disk.kept, f"{node.name} keeps {node.disk.kept}"
        assert not node.disk.values, node.name
        assert not plane.held, node.name

    # --- what goes wrong ----------------------------------------------------------------------

    def _trouble(self) -> None:
        clock, random = self.clock, self.clock.random
        if clock.now < TROUBLE:
            clock.after(random.expovariate(1.5), self._trouble)
            node = self.nodes[random.choice(self.names)]
            match random.randrange(12):
                case 0 | 1:
                    node.crash_plane()
                case 2:
                    node.crash()
                case 3 | 4:
                    node.fail_one()
                case 5:
                    self.manager.crash()
                case 6 if random.random() < 0.3:
                    self.manager.go_back()
                case _:
                    if node.plane is not None:
                        node.plane.cut()


class Manager:
    """What it knows is on its disk. While it is down nobody is told anything."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.clock = scenario.clock
        self.epoch = 0
        self.era = 0
        self.since = 0.0
        self.numbers: list[int] = []
        self.states: list[AttemptState] = []
        self.is_up = True
        self.consumed: dict[tuple[str, str, str], list[Letter]] = {}
        """By receiving node, sending node and tag: what attempts that count received."""

    def begin(self) -> None:
        self.numbers = [0] * self.scenario.size
        self.states = [AttemptState.RUNNING] * self.scenario.size
        self.since = self.clock.now
        self.changed()

    def changed(self) -> None:
        for node in self.scenario.nodes.values():
            self.clock.soon(0.2, node.sync)
            if self.clock.random.random() < 0.2:  # a message that is late
                self.clock.soon(2.0, node.sync)

    def roster(self) -> Roster:
        place = self.scenario.place
        instances = tuple(
            RosterInstance(rank, place(rank), place(rank), number, self.states[rank])
            for rank, number in enumerate(self.numbers)
        )
        task = RosterTask(TASK, "RUNNING", self.scenario.size, instances=instances)
        return Roster(f"e{self.epoch}", self.era, {TASK: task}, {})

    def desired(self, name: str) -> list[Instance]:
        return [
            Instance(SWARM, TASK, rank, self.era, number)
            for rank, number in enumerate(self.numbers)
            if self.scenario.place(rank) == name and not self.states[rank].final
        ]

    def told(self, at: Instance, state: AttemptState, got: list[tuple[str, Letter]]) -> None:
        """How an attempt ended. Told again and again until it is heard."""
        rank = at.index
        if (at.iteration, at.attempt) != (self.era, self.numbers[rank]) or self.states[rank].final:
            return
        self.clock.note("mgr", f"{at}: {state}")
        self.clock.seen[state] += 1
        if state is AttemptState.FINISHED:
            self.states[rank] = state
            for tag, letter in got:
                source = self.scenario.place(letter.sender)
                book = self.consumed.setdefault((self.scenario.place(rank), source, tag), [])
                assert letter not in book, f"{letter} was received twice"
                book.append(letter)
        elif self.numbers[rank] < 60:
            self.numbers[rank] += 1
            self.states[rank] = AttemptState.RUNNING
        if all(state is AttemptState.FINISHED for state in self.states):
            self._end_era()
        self.changed()

    def _end_era(self) -> None:
        self.check_prefixes()
        self.era += 1
        self.since = self.clock.now
        self.clock.note("mgr", f"iteration {self.era}")
        if self.era < self.scenario.eras:
            self.numbers = [0] * self.scenario.size
            self.states = [AttemptState.RUNNING] * self.scenario.size

    def check_prefixes(self) -> None:
        """Of what each instance sent to each node, exactly the first letters were received; where
        several receive, what one gives back may be left over, and is received later."""
        scenario, eras = self.scenario, range(self.era + 1)
        for (to, source, _), book in self.consumed.items():
            ranks = scenario.on(to)
            due = sum(scenario.share(era, rank, source) for era in eras for rank in ranks)
            assert len(book) == due, f"{len(book)} of {due} letters"
            sent = [(era, serial) for era in eras for serial in range(scenario.each)]
            for sender in scenario.on(source):
                order = sorted((one.era, one.serial) for one in book if one.sender == sender)
                if len(ranks) == 1 or self.era == scenario.eras - 1:
                    assert order == sent[: len(order)], f"{sender} to {to}: {order}"

    def crash(self) -> None:
        if self.is_up:
            self.clock.note("mgr", "crash")
            self.clock.seen["manager crashes"] += 1
            self.is_up = False
            self.clock.soon(3.0, self._back)

    def _back(self) -> None:
        self.is_up = True
        self.changed()

    def go_back(self) -> None:
        """It is restored from a backup of the swarm's beginning: another timeline."""
        if self.era < self.scenario.eras:
            self.clock.note("mgr", "restored")
            self.clock.seen["restored"] += 1
            self.epoch += 1
            self.era = 0
            self.consumed.clear()
            self.begin()


class Node:
    """A node: its daemon, its plane, and what is on its disk."""

    def __init__(self, scenario: Scenario, name: str) -> None:
        self.scenario, self.name, self.clock = scenario, name, scenario.clock
        self.disk = Disk()
        self.journal = Journal()
        self.heard: dict[Instance, list[tuple[str, Letter]]] = {}
        self.programs: dict[Instance, Program] = {}
        self.is_up = True
        self.epoch = -1
        self.plane: Plane | None = None
        self._begin_plane()
        self._dial()

    def _begin_plane(self) -> None:
        if self.is_up and (self.plane is None or not self.plane.is_alive):
            self.plane = Plane(self.clock, self.name, self.disk, self.scenario.net)
            self.clock.soon(0.3, self.sync)

    def _dial(self) -> None:
        self.clock.after(self.clock.random.uniform(0.2, 0.6), self._dial)
        if self.plane is not None and self.plane.is_alive:
            for other in self.scenario.names:
                if self.name < other and other in self.scenario.net:
                    self.plane.dial(other)
        self.clock.soon(0.5, self._report)

    # --- with the manager ---------------------------------------------------------------------

    def sync(self) -> None:
        """Learns what is desired, and who is there."""
        manager, plane = self.scenario.manager, self.plane
        if not (self.is_up and manager.is_up):
            return
        if self.epoch != manager.epoch:  # nothing of the other timeline counts
            self.epoch, self.journal = manager.epoch, Journal()
            for program in list(self.programs.values()):
                self._end(program, AttemptState.CANCELLED)
            self.journal = Journal()
        if plane is None or not plane.is_alive:
            return
        plane.introduced(f"e{manager.epoch}", self.scenario.names)
        plane.told(manager.roster())
        desired = manager.desired(self.name)
        for at, program in list(self.programs.items()):
            if at not in desired and not program.is_ending:
                self._end(program, AttemptState.CANCELLED)
        for at in desired:
            if at in self.programs or at in self.journal.ended:
                continue
            if at in self.journal.began:
                self.journal.ended[at] = AttemptState.INTERRUPTED
                continue
            self.journal.began.append(at)
            plane.swarm.begin(at)
            self.programs[at] = Program(self, at, plane)

    def _report(self) -> None:
        if self.is_up and self.scenario.manager.is_up:
            epoch = self.scenario.manager.epoch
            for at, state in list(self.journal.ended.items()):
                if self.epoch == epoch:
                    self.scenario.manager.told(at, state, self.heard.get(at, []))

    # --- attempts -----------------------------------------------------------------------------

    def finished(self, program: Program) -> None:
        """Its end is written down only when what it said outlives the plane."""
        program.is_ending = True

        def ended() -> None:
            if self.programs.get(program.at) is program:
                del self.programs[program.at]
                self.heard[program.at] = program.got
                self.journal.ended[program.at] = AttemptState.FINISHED

        def kept() -> None:
            program.is_kept = True
            self.clock.soon(0.1, ended)

        program.plane.swarm.end(program.at, counts=True, then=kept)

    def _end(self, program: Program, state: AttemptState) -> None:
        del self.programs[program.at]
        self.journal.ended[program.at] = state
        program.is_over = True
        if program.plane.is_alive and not program.is_ending:
            program.plane.swarm.end(program.at, counts=False, then=lambda: None)

    def fail_one(self) -> None:
        running = [one for one in self.programs.values() if not one.is_ending]
        if running:
            self.clock.note(self.name, "an attempt fails")
            self._end(self.clock.random.choice(running), AttemptState.FAILED)

    def crash_plane(self) -> None:
        plane = self.plane
        if plane is None or not plane.is_alive or not self.is_up:
            return
        self.clock.note(self.name, "its plane crashes")
        self.clock.seen["plane crashes"] += 1
        plane.crash()
        for program in list(self.programs.values()):
            self._end(program, AttemptState.INTERRUPTED)
        self.clock.soon(1.0, self._begin_plane)

    def crash(self) -> None:
        if not self.is_up:
            return
        self.clock.note(self.name, "crashes")
        self.clock.seen["node crashes"] += 1
        self.is_up = False
        if self.plane is not None and self.plane.is_alive:
            self.plane.crash()
        for program in self.programs.values():
            program.is_over = True
            self.clock.seen["ends in vain"] += program.is_kept
        self.programs.clear()
        self.clock.soon(2.0, self._restart)

    def _restart(self) -> None:
        self.is_up = True
        for at in self.journal.began:
            self.journal.ended.setdefault(at, AttemptState.INTERRUPTED)
        self._begin_plane()


class Program:
    """An attempt. It sends on one thread, and then receives on others."""

    def __init__(self, node: Node, at: Instance, plane: Plane) -> None:
        self.node, self.at, self.plane = node, at, plane
        self.scenario, self.clock = node.scenario, node.clock
        self.got: list[tuple[str, Letter]] = []
        self.is_over = False
        self.is_ending = False
        self.is_kept = False
        """What it said is on disk, and its end is not yet."""
        self._receiving: list[list[tuple[PlaneRequest, Value | None]]] = []
        for source in self.scenario.names:
            for tag in self.scenario.tags:
                count = self.scenario.share(at.iteration, at.index, source)
                asked = [
                    ReceiveLetter(n=1, source=source, tag=tag, number=number, timeout=FOREVER)
                    for number in range(count)
                ]
                self._receiving.append([(one, None) for one in asked])
        self._open = 1
        self._go_on(self._to_send(), 0)

    def _to_send(self) -> list[tuple[PlaneRequest, Value | None]]:
        todo: list[tuple[PlaneRequest, Value | None]] = []
        for serial in range(self.scenario.each):
            for to in self.scenario.names:
                for tag in self.scenario.tags:
                    letter = Letter(self.at.iteration, self.at.index, to, tag, serial)
                    request = SendLetter(n=1, to=to, tag=tag, value=b"", timeout=FOREVER)
                    todo.append((request, self._value(letter)))
        said = f"{self.at.iteration} {self.at.index}".encode()
        return [
            (SayToAll(n=1, tag="m", value=b""), said),
            *todo,
            (HearBroadcast(n=1, tag="m", timeout=FOREVER), None),
        ]

    def _value(self, letter: Letter) -> Value:
        """A large one of each attempt is another one."""
        random = self.clock.random
        id_ = random.randbytes(16)
        self.scenario.values[id_] = letter
        if (letter.serial + letter.sender) % 3 == 0:
            return Parcel(id_, 1 << 20)
        return id_

    def _go_on(self, thread: list[tuple[PlaneRequest, Value | None]], at: int) -> None:
        if self.is_over or not self.plane.is_alive:
            return
        if at == len(thread):
            threads, self._receiving = self._receiving, []
            self._open += len(threads) - 1
            for one in threads:
                self._go_on(one, 0)
            if not self._open:
                self.node.finished(self)
            return
        body, value = thread[at]
        is_done = False

        def ended(answer: Any, error: str) -> None:
            nonlocal is_done
            assert not is_done, "it was answered twice"
            is_done = True
            if self.is_over or not self.plane.is_alive:
                return
            assert not error, f"{self.at} on {self.node.name}: {body}: {error}"
            if isinstance(body, ReceiveLetter):
                letter = self.scenario.values[answer]
                assert self.scenario.place(letter.sender) == body.source
                assert (letter.to, letter.tag) == (self.node.name, body.tag)
                self._check_order(letter)
                self.got.append((body.tag, letter))
            elif isinstance(body, HearBroadcast):
                assert answer is not None
            self.clock.soon(self.scenario.pace, lambda: self._go_on(thread, at + 1))

        asked = Asked(self.plane, self.at, body, value, ended)
        self.clock.soon(0.05, lambda: self._ask(asked))

    def _check_order(self, letter: Letter) -> None:
        """Where others receive as well, what one of them gives back may come late."""
        if len(self.scenario.on(self.node.name)) == 1:
            who = letter.sender, letter.tag
            before = [one for _, one in self.got if (one.sender, one.tag) == who]
            assert all((one.era, one.serial) < (letter.era, letter.serial) for one in before)

    def _ask(self, asked: Asked) -> None:
        if not self.is_over and self.plane.is_alive:
            if isinstance(asked.value, Parcel):
                self.plane.held.add(asked.value.id)
            self.plane.swarm.ask(asked, self.clock.now)
