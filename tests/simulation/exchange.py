"""Tasks of several nodes that exchange directly, while everything fails that can.

Each instance sends letters to all nodes and receives its share of what comes to its own, in each
iteration, and hears what each other one broadcasts; whatever attempt does it, what is said is the
same. Nodes, planes and the manager crash, attempts fail, connections are cut. Rosters and timelines
come late, also after attempts that are in them; a plane that begins is told what its daemon knew;
instances are placed one after another, with a network or without; there is hardly room for letters.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from random import Random

from manta.protocol.base import Instance
from manta.protocol.roster import Former, Roster, RosterInstance, RosterTask
from manta.protocol.spec import NetworkSpec
from manta.protocol.states import AttemptState
from manta.transports.exchange import credit, flow
from manta.transports.exchange.channels import Room
from tests.simulation.exchange_planes import Disk, Plane
from tests.simulation.exchange_programs import Letter, Program
from tests.simulation.network import SWARM, Clock, Host

TROUBLE = 40.0
"""Seconds in which things go wrong, where it is not calm."""
CALM = 2.0
"""The same where it is: nothing that is stuck gets away by a fault that comes later."""
NARROW = Room(5, 1 << 20)
"""Room for letters, of all and of each sender: each leaves at most four unread at a time."""


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
        self.network = random.choice((None, "n"))
        self.aliases = random.choice((("t",), ("t", "u")))
        """Of the tasks that take turns from iteration to iteration."""
        self.trouble = random.choice((CALM, TROUBLE, TROUBLE))
        self.is_late = random.random() < 0.5
        """Some instances are placed after others."""
        self.is_narrow = random.random() < 0.3
        if self.is_narrow:
            self.pace, self.trouble = 0.02, random.choice((CALM, CALM, TROUBLE))
        self.values: dict[bytes, Letter] = {}
        """What each large value says."""
        self.net: dict[str, Plane] = {}
        self.manager = Manager(self)
        self.nodes = {name: Node(self, name) for name in self.names}

    @property
    def trace(self) -> list[str]:
        return self.clock.trace

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
        with narrow() if self.is_narrow else nullcontext():
            self.manager.begin()
            self._trouble()
            self.clock.run(lambda: self.manager.era == self.eras and self._is_settled())
        for node in self.nodes.values():
            self._check_empty(node)

    def _is_settled(self) -> bool:
        """Long after the end."""
        return self.clock.now > max(self.manager.since, self.trouble) + 30

    def _check_empty(self, node: Node) -> None:
        plane = node.plane
        group = plane.swarm._group
        if group is not None:
            assert group.letters.kept.letters == group.letters.kept.size == 0, node.name
        assert not node.disk.kept, f"{node.name} keeps {node.disk.kept}"
        assert not node.disk.values, node.name
        assert not plane.held, node.name

    # --- what goes wrong ----------------------------------------------------------------------

    def _trouble(self) -> None:
        clock, random = self.clock, self.clock.random
        if clock.now < self.trouble:
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
                    node.plane.cut_links()


@contextmanager
def narrow() -> Iterator[None]:
    """There is hardly room for letters."""
    places = [(credit, "UNREAD"), (credit, "RESERVE"), (flow, "UNREAD"), (flow, "RESERVE")]
    before = [getattr(*place) for place in places]
    for module, name in places:
        setattr(module, name, NARROW)
    try:
        yield
    finally:
        for (module, name), was in zip(places, before, strict=True):
            setattr(module, name, was)


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
        self.placed = 0
        self.counted: Former = {}
        self.former: Roster | None = None
        """That of the iteration before, which is told until this one's can be."""
        self.is_up = True
        self.consumed: dict[tuple[str, str, str], list[Letter]] = {}
        """By receiving node, sending node and tag: what attempts that count received."""

    def begin(self) -> None:
        self.former = None
        self._begin_era()
        self.changed()

    def _begin_era(self) -> None:
        scenario, random = self.scenario, self.clock.random
        self.numbers = [0] * scenario.size
        self.states = [AttemptState.RUNNING] * scenario.size
        self.since = self.clock.now
        self.placed = random.randint(1, scenario.size) if scenario.is_late else scenario.size
        """So many, the first; no others are in the roster."""
        if self.placed < scenario.size:
            self.clock.seen["placed late"] += 1
            self.clock.soon(3.0, partial(self._place_all, self.epoch, self.era))

    def _tell(self, former: Roster) -> None:
        """Nobody is told the roster of that iteration any more."""
        if self.former is former:
            self.former = None
            self.changed()

    def _place_all(self, epoch: int, era: int) -> None:
        if (epoch, era) == (self.epoch, self.era):
            self.placed = self.scenario.size
            self.changed()

    def changed(self) -> None:
        for node in self.scenario.nodes.values():
            self.clock.soon(self.clock.random.choice((0.2, 0.2, 2.0)), node.sync)
            if self.clock.random.random() < 0.2:  # a message that is late
                self.clock.soon(2.0, node.sync)

    @property
    def alias(self) -> str:
        """Of the task that runs."""
        return self.scenario.aliases[self.era % len(self.scenario.aliases)]

    def roster(self) -> Roster:
        return self.former or self._roster()

    def _roster(self) -> Roster:
        place = self.scenario.place
        instances = tuple(
            RosterInstance(rank, place(rank), place(rank), number, self.states[rank])
            for rank, number in enumerate(self.numbers[: self.placed])
        )
        size, network = self.scenario.size, self.scenario.network
        task = RosterTask(
            self.alias,
            "RUNNING",
            size,
            has_queued=self.placed < size,
            network=network,
            instances=instances,
        )
        networks = {} if network is None else {network: NetworkSpec(network, "full")}
        return Roster(f"e{self.epoch}", self.era, {self.alias: task}, networks, self.counted)

    def desired(self, name: str) -> list[Instance]:
        return [
            Instance(SWARM, self.alias, rank, self.era, number)
            for rank, number in enumerate(self.numbers[: self.placed])
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
        self.former = self._roster()
        self.counted = {self.alias: {at: n for at, n in enumerate(self.numbers) if n}}
        self.clock.soon(self.clock.random.choice((0.0, 5.0)), partial(self._tell, self.former))
        self.era += 1
        self.since = self.clock.now
        self.clock.note("mgr", f"iteration {self.era}")
        if self.era < self.scenario.eras:
            self._begin_era()

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
            self.counted = {}
            self.consumed.clear()
            self.begin()


class Node(Host[Plane]):
    """With what is on its disk."""

    def __init__(self, scenario: Scenario, name: str) -> None:
        self.scenario = scenario
        self.disk = Disk()
        self.journal = Journal()
        self.heard: dict[Instance, list[tuple[str, Letter]]] = {}
        self.programs: dict[Instance, Program] = {}
        self.epoch = -1
        self.book: Roster | None = None
        """The roster that the daemon was told last."""
        super().__init__(scenario.clock, name, scenario.names, learns=0.5)

    def new_plane(self) -> Plane:
        plane = Plane(self.clock, self.name, self.disk, self.scenario.net)
        plane.lost = self._lost
        return plane

    def plane_begun(self) -> None:
        if self.book is not None:
            self.clock.seen["told what was known"] += 1
            self.plane.introduced(self.book.epoch, self.scenario.names)
            self.plane.told(self.book)
        self.clock.soon(0.3, self.sync)

    # --- with the manager ---------------------------------------------------------------------

    def sync(self) -> None:
        """Learns what is desired, and who is there."""
        manager, plane = self.scenario.manager, self.plane
        if not (self.is_up and manager.is_up):
            return
        if self.epoch != manager.epoch:  # nothing of the other timeline counts
            self.epoch, self.journal, self.book = manager.epoch, Journal(), None
            for program in list(self.programs.values()):
                self._end(program, AttemptState.CANCELLED)
            self.journal = Journal()
        if not plane.is_alive:
            return
        if self.clock.random.random() < 0.3:  # attempts come first
            self.clock.soon(self.clock.random.choice((0.5, 5.0)), partial(self._meet, plane))
        else:
            self._meet(plane)
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
            is_in_it = self.book is not None and self.book.iteration == at.iteration
            self.clock.seen["before its roster"] += not is_in_it
            self.clock.seen["before its timeline"] += plane.epoch not in (None, f"e{self.epoch}")
            plane.swarm.begin(at)
            self.programs[at] = Program(self, at, plane)

    def _meet(self, plane: Plane) -> None:
        """Learns who is there, and what has become of whom."""
        manager = self.scenario.manager
        if manager.is_up and plane.is_alive and self.epoch == manager.epoch:
            self.book = manager.roster()
            plane.introduced(self.book.epoch, self.scenario.names)
            plane.told(self.book)

    def report(self) -> None:
        if self.is_up and self.scenario.manager.is_up:
            epoch = self.scenario.manager.epoch
            for at, state in list(self.journal.ended.items()):
                if self.epoch == epoch:
                    self.scenario.manager.told(at, state, self.heard.get(at, []))

    # --- attempts -----------------------------------------------------------------------------

    def finished(self, program: Program) -> None:
        """Its end is written down only when what it said outlives the plane."""
        if program.is_over or not program.plane.is_alive:
            return
        if program.plane.epoch != f"e{self.epoch}":  # it can't be known whether it counts
            self.clock.soon(0.2, partial(self.finished, program))
            return
        program.is_ending = True

        def ended() -> None:
            if self.programs.get(program.at) is program:
                del self.programs[program.at]
                self.heard[program.at] = program.got
                self.journal.ended[program.at] = AttemptState.FINISHED

        def kept() -> None:
            program.is_kept = True
            self.clock.soon(0.3, ended)

        program.plane.swarm.end(program.at, counts=True, then=kept)

    def _end(self, program: Program, state: AttemptState) -> None:
        del self.programs[program.at]
        self.journal.ended[program.at] = state
        program.is_over = True
        if program.plane.is_alive and not program.is_ending:
            program.plane.swarm.end(program.at, counts=False, then=lambda: None)

    def _lost(self, at: Instance) -> None:
        """What it said was on another timeline."""
        program = self.programs.get(at)
        if program is not None and not program.is_ending:
            self.clock.seen["attempts lost"] += 1
            self._end(program, AttemptState.INTERRUPTED)

    def fail_one(self) -> None:
        running = [one for one in self.programs.values() if not one.is_ending]
        if running:
            self.clock.note(self.name, "an attempt fails")
            self._end(self.clock.random.choice(running), AttemptState.FAILED)

    # --- crashes ------------------------------------------------------------------------------

    def plane_crashed(self) -> None:
        for program in list(self.programs.values()):
            self._end(program, AttemptState.INTERRUPTED)

    def crashed(self) -> None:
        self.book = None
        for program in self.programs.values():
            program.is_over = True
            self.clock.seen["ends in vain"] += program.is_kept
        self.programs.clear()

    def restarted(self) -> None:
        for at in self.journal.began:
            self.journal.ended.setdefault(at, AttemptState.INTERRUPTED)
