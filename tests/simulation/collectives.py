"""Tasks whose instances meet in collectives, while everything fails that can.

Each instance makes the same calls in each iteration. Planes and nodes crash, nodes are lost and
come back, the manager crashes, instances are placed on other nodes though theirs live, attempts
fail, connections are cut and take each other's places, what nodes are told comes late. What may
come of calls is in `collective_judge`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import partial
from random import Random

import pytest

from manta.node.plane.collectives import early, lasting, peers, pieces, post
from manta.node.plane.collectives.settling import Settling
from manta.protocol.base import Instance
from manta.protocol.roster import Roster, RosterInstance, RosterTask
from manta.protocol.states import AttemptState
from tests.simulation.collective_judge import Judge
from tests.simulation.collective_planes import EPOCH, Disk, Plane
from tests.simulation.collective_programs import ATTEMPTS, Outcome, Planned, Program
from tests.simulation.network import SWARM, Clock, Host
from tests.support.collective_calls import INLINE, small_sizes

TASK = "t"
PATIENCE = 120.0
"""Seconds after nothing goes wrong any more in which all has to end."""
ANSWERED = 20.0
"""Seconds without a fault in which a call ends that all have come to; where nodes lack room, and so
hear one another late, after all has been heard that was said."""
FEW = 4
"""Attempts of an instance that is bound to its node."""
LATE = 10.0
"""Seconds after which all have heard of what happened."""


class Scenario:
    def __init__(self, seed: int, *, lacks_room: bool = False, moves: bool = False) -> None:
        """`lacks_room`: other swarms fill nodes for a while. `moves`: next attempts are often
        placed on other nodes, and come back."""
        self.clock = Clock(seed)
        self.lacks_room = lacks_room
        self.moves = Random(f"moves {seed}") if moves else None
        self.fills = Random(f"fills {seed}")
        random = self.clock.random
        many = random.random() < 0.06  # more than speak with all others
        count = random.randint(17, 20) if many else random.randint(1, 5)
        self.names = [f"n{at}" for at in range(count)]
        self.size = count + (0 if many else random.randint(0, 3))
        self.eras = 1 if many else random.randint(1, 3)
        self.pace = random.choice((0.02, 0.3, 1.0))
        self.trouble_until = random.choice((1.0, 3.0) if many else (1.0, 3.0, 8.0, 25.0))
        """So that nothing that is stuck gets away by a fault that comes later."""
        self.trouble = 0.5 if many else random.choice((0.5, 1.5))
        """How many things go wrong in a second."""
        self.is_bound = random.random() < 0.25
        """What is lost with its node is given up, as of a task that runs on all nodes."""
        self.shares = random.random() < 0.5
        """The nodes have another swarm in common."""
        self.settles = random.random() < 0.3
        """Instances of odd ranks have written before each call for which all wait."""
        goes_on = 0.7 if self.is_bound else 0.3
        self.calls = [
            [
                Planned.of(random, self.size, goes_on)
                for _ in range(random.randint(1, 2 if many else 6))
            ]
            for _ in range(self.eras)
        ]
        self.settled: set[tuple[int, int, int]] = set()
        """By era, rank and number: calls of which the manager has what was written before."""
        self.quiet_since = 0.0
        """When something went wrong last, or was told."""
        self.net: dict[str, Plane] = {}
        self.manager = Manager(self)
        self.judge = Judge(self.clock, self.manager)
        self.nodes = {name: Node(self, name) for name in self.names}

    @property
    def trace(self) -> list[str]:
        return self.clock.trace

    @property
    def programs(self) -> list[Program]:
        return [one for node in self.nodes.values() for one in node.programs.values()]

    def run(self) -> None:
        with small_sizes(), pytest.MonkeyPatch.context() as patch:
            patch.setattr(pieces, "INLINE", 8 * INLINE)
            patch.setattr(lasting, "INLINE_LIMIT", 4 * INLINE)
            # What is said goes in parts, waits for room at its receiver, and has calls wait.
            patch.setattr(post, "PART", 150)
            patch.setattr(post, "WINDOW", 1_200)
            patch.setattr(peers, "FULL", 1_900)
            patch.setattr(early, "OF_A_NODE", 500)
            patch.setattr(early, "OF_ALL", 900)
            self.manager.begin()
            self._trouble()
            self._crowd()
            if self.lacks_room:
                self._fill()
            self._watch()
            self.clock.run(self._is_over)
            for node in self.nodes.values():
                self._check_empty(node)

    def _is_over(self) -> bool:
        clock, manager = self.clock, self.manager
        if manager.is_over:
            return clock.now > manager.since + 10
        in_time = clock.now < self.trouble_until + PATIENCE
        assert in_time, f"they wait for ever: {self._waiting(self.programs)}"
        return False

    def _watch(self) -> None:
        """A call that all have come to ends, where nothing goes wrong."""
        self.clock.after(1.0, self._watch)
        if self.lacks_room and self._is_speaking():
            self.disturbed()
        if self.clock.now < self.quiet_since + ANSWERED or self.manager.is_over:
            return
        numbers = [one.number for one in self.programs]
        first = [one for one in self.programs if one.number == min(numbers)]
        stuck = [one for one in first if one.asked is not None]
        early = self.clock.now - ANSWERED
        is_complete = len(stuck) == len(first) and all(one.since < early for one in stuck)
        assert not stuck or not is_complete, f"not answered: {self._waiting(stuck)}"

    def _is_speaking(self) -> bool:
        """Has a plane yet to hear anything?"""
        planes = [node.plane for node in self.nodes.values() if node.plane.is_alive]
        return any(post.kept for plane in planes for post in plane.desk.peers._posts.values())

    def _waiting(self, programs: list[Program]) -> list[str]:
        return [f"{one.at} in call {one.number} on {one.node.name}" for one in programs]

    def _check_empty(self, node: Node) -> None:
        plane = node.plane
        if plane.is_alive and not self.clock.seen["tried in vain"]:
            assert not plane.sending, f"{node.name} sends"
            assert not plane.expecting, f"{node.name} expects"
        plane.desk.close()
        plane.pool.close()
        assert plane.budget.sizes == (0, 0), f"{node.name} keeps {plane.budget.sizes} bytes"

    def _crowd(self) -> None:
        """Some planes want the room of small values that are kept."""
        self.clock.after(0.5, self._crowd)
        for node in self.nodes.values():
            if node.plane.is_alive and self.clock.random.random() < 0.2:
                while node.plane.pool.keeps.spill(lambda _: True):
                    self.clock.seen["spills"] += 1

    def _fill(self) -> None:
        """Some nodes take nothing more that is small, until this is looked at again."""
        self.clock.after(0.5, self._fill)
        for node in self.nodes.values():
            room = node.plane.pool._small
            room.give("another", room.of("another"))
            if self.fills.random() < 0.2:
                room.take("another", room.most)
            elif node.plane.is_alive:
                node.plane.look_again()

    def disturbed(self) -> None:
        self.quiet_since = self.clock.now

    def _trouble(self) -> None:
        clock, random = self.clock, self.clock.random
        if clock.now >= self.trouble_until:
            return
        clock.after(random.expovariate(self.trouble), self._trouble)
        self.disturbed()
        node = self.nodes[random.choice(self.names)]
        match random.randrange(16):
            case 0 | 1:
                node.crash_plane()
            case 2:
                node.crash()
            case 3 | 4:
                node.fail_one()
            case 5 | 6:
                self.manager.lose(node.name)
            case 7:
                self.manager.move_one()
            case 8:
                self.manager.crash()
            case 9:
                if node.plane.is_alive:
                    node.plane.flap()
            case _:
                if node.plane.is_alive:
                    node.plane.cut_links()


@dataclass(frozen=True)
class News:
    """What a node is told: who is there, who runs what, and what it is to run itself."""

    there: tuple[str, ...]
    roster: Roster
    desired: tuple[Instance, ...]


class Manager:
    """While it is down nobody is told anything."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.clock = scenario.clock
        self.era = 0
        self.since = 0.0
        self.is_up = True
        self.there = set(scenario.names)
        """Nodes, as it believes."""
        self.places = [scenario.names[at % len(scenario.names)] for at in range(scenario.size)]
        self.numbers = [0] * scenario.size
        self.stays = [0] * scenario.size
        """As in `RosterInstance`."""
        self.states = [AttemptState.RUNNING] * scenario.size
        self.given_up: dict[int, str] = {}
        self.forgot: set[int] = set()
        """Instances that had finished when what they had given was lost, or may have been."""
        self.has_let_go = False
        """Was somebody told that what others gave is kept no longer, for want of room?"""
        self.crashed: set[str] = set()
        """Nodes whose planes began anew in this iteration."""
        self.lost_at = -LATE
        """When a node was lost last, or is back, or an instance is elsewhere or given up."""
        self.got: dict[Instance, list[Outcome]] = {}
        """What came of each call of an attempt."""
        self.is_over = False

    def begin(self) -> None:
        self.since = self.clock.now
        self.numbers = [0] * self.scenario.size
        self.stays = [0] * self.scenario.size
        self.states = [AttemptState.RUNNING] * self.scenario.size
        self.given_up.clear()
        self.forgot.clear()
        self.has_let_go = False
        self.crashed.clear()
        self.scenario.judge.begin()
        for rank, place in enumerate(self.places):
            if place not in self.there:
                self.places[rank] = self.clock.random.choice(sorted(self.there))
        self.changed()

    def changed(self) -> None:
        self.scenario.disturbed()
        for node in self.scenario.nodes.values():
            if node.name in self.there:
                node.tell(self.news(node.name))

    def news(self, name: str) -> News:
        return News(tuple(sorted(self.there)), self._roster(), tuple(self.desired(name)))

    def _roster(self) -> Roster:
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

    def counts(self, at: Instance) -> bool:
        """Is it the attempt that is to end, on a node that is there?"""
        is_last = (at.iteration, at.attempt) == (self.era, self.numbers[at.index])
        is_open = not self.states[at.index].final and not self.is_over
        return is_last and is_open and self.places[at.index] in self.there

    def has_result(self, at: Instance) -> bool:
        """Is it, or has it finished?"""
        is_last = (at.iteration, at.attempt) == (self.era, self.numbers[at.index])
        return self.counts(at) or (is_last and self.states[at.index] is AttemptState.FINISHED)

    # --- what becomes of attempts -------------------------------------------------------------

    def told(self, at: Instance, state: AttemptState) -> None:
        """How an attempt ended. Told again and again until it is heard."""
        if not self.counts(at):
            return
        rank = at.index
        self.clock.note("mgr", f"{at}: {state}")
        self.clock.seen[state] += 1
        if state is AttemptState.FINISHED:
            self.states[rank] = state
        elif self.scenario.is_bound and self.numbers[rank] + 1 >= FEW:
            self._give_up(rank, f"it failed {FEW} times")
        else:
            self._again(rank, elsewhere=self._moves())
        if all(one.final for one in self.states):
            self._end_era()
        self.changed()

    def _moves(self) -> bool:
        moves = self.scenario.moves
        return self.clock.random.random() < 0.3 if moves is None else moves.random() < 0.7

    def _give_up(self, rank: int, why: str) -> None:
        self.clock.seen["given up"] += 1
        self.lost_at = self.clock.now
        self.given_up[rank] = why
        self.states[rank] = AttemptState.INTERRUPTED
        self.scenario.judge.gives_up(rank)

    def _again(self, rank: int, *, elsewhere: bool) -> None:
        """Its next attempt; `elsewhere`: another node, though its own is there."""
        if self.numbers[rank] + 1 >= ATTEMPTS:
            is_lost = self.forgot or self.has_let_go
            assert is_lost, f"{TASK}.{rank} was given up, though nothing was lost for good"
            self.clock.seen["tried in vain"] += 1
            self.is_over = True
            self.since = self.clock.now
            return
        self.numbers[rank] += 1
        before = self.places[rank]
        others = sorted(self.there - {before})
        is_there = before in self.there
        if (elsewhere and others and not self.scenario.is_bound) or not is_there:
            self.clock.seen["moved from a live node" if is_there else "moved away"] += 1
            self.places[rank] = self.clock.random.choice(others)
            self.stays[rank] += 1
            self._look_at_crashed()
            self.lost_at = self.clock.now
            self.scenario.judge.moves(rank, before)

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
            and self.states[rank] is AttemptState.FINISHED
        ]
        for number, planned in enumerate(self.scenario.calls[self.era]):
            if planned.gives_alike:
                came = [one[number] for one in counted]
                assert all(one == came[0] for one in came), f"call {number} has several outcomes"

    # --- what goes wrong ----------------------------------------------------------------------

    @property
    def has_lost(self) -> bool:
        """Was a node or an instance lost to it in this iteration, or so late before that others
        hear in it?"""
        is_whole = len(self.there) == len(self.scenario.names)
        return not is_whole or self.lost_at + LATE >= self.since

    def crashes(self, name: str) -> None:
        """What the plane of this node had in memory is lost."""
        self.crashed.add(name)
        self.scenario.judge.plane_died(name)
        self._look_at_crashed()

    def _look_at_crashed(self) -> None:
        """What one plane keeps is not on the disk of another, nor sent after who leaves it."""
        if len(self.crashed) > 1 or any(self.stays):
            for one in sorted(self.crashed):
                self.scenario.judge.gone(one, self.forgets(one))

    def forgets(self, name: str) -> list[int]:
        """What the node's plane knew is lost, or may be. Returns members there that had ended."""
        ended = {
            rank
            for rank, place in enumerate(self.places)
            if place == name and self.states[rank] is AttemptState.FINISHED
        }
        for at, state in self.scenario.nodes[name].ended.items():
            if state is AttemptState.FINISHED and self.counts(at):
                ended.add(at.index)
        self.forgot |= ended
        return sorted(ended)

    def lose(self, name: str) -> None:
        """It does not hear the node for a while, which goes on."""
        if name not in self.there or len(self.there) == 1 or self.is_over or not self.is_up:
            return
        self.clock.note("mgr", f"{name} is lost")
        self.lost_at = self.clock.now
        self.clock.seen["lost"] += 1
        self.forgets(name)
        self.scenario.judge.node_lost(name, for_good=self.scenario.is_bound)
        self.there.remove(name)
        self.scenario.nodes[name].inbox.clear()
        for rank, place in enumerate(self.places):
            if place == name:
                self.stays[rank] += 1
        for rank, place in enumerate(self.places):
            if place != name or self.states[rank].final or self.is_over:
                continue
            if self.scenario.is_bound:
                self._give_up(rank, f"{name} was lost")
            else:
                self._again(rank, elsewhere=True)
        self.clock.soon(6.0, partial(self._back, name))
        if all(one.final for one in self.states):
            self._end_era()
        self.changed()

    def _back(self, name: str) -> None:
        self.lost_at = self.clock.now
        self.there.add(name)
        self.changed()

    def move_one(self) -> None:
        """Its node was lost, and back before others were told."""
        open_ = [rank for rank, state in enumerate(self.states) if not state.final]
        if open_ and self.is_up and not self.is_over and not self.scenario.is_bound:
            self._again(self.clock.random.choice(open_), elsewhere=True)
            self.changed()

    def crash(self) -> None:
        if self.is_up:
            self.clock.note("mgr", "crash")
            self.clock.seen["manager crashes"] += 1
            self.is_up = False
            self.clock.soon(3.0, self._up_again)

    def _up_again(self) -> None:
        self.is_up = True
        self.changed()


class Node(Host[Plane]):
    """With the attempts that it runs."""

    def __init__(self, scenario: Scenario, name: str) -> None:
        self.scenario = scenario
        self.programs: dict[Instance, Program] = {}
        self.ended: dict[Instance, AttemptState] = {}
        self.inbox: deque[News] = deque()
        """What it is yet to hear of the manager."""
        self.known: News | None = None
        """What it was told last."""
        self._rosters: deque[Roster] = deque()
        """What its plane is yet to hear."""
        self.disk = Disk()
        super().__init__(scenario.clock, name, scenario.names, learns=0.3)

    def new_plane(self) -> Plane:
        plane = Plane(
            self.clock, self.name, self.scenario.net, self.disk, shares=self.scenario.shares
        )
        plane.desk.settling = Settling(partial(self.settle, plane))
        return plane

    def plane_begun(self) -> None:
        self.scenario.disturbed()
        self._rosters.clear()
        if self.known is not None:
            self.plane.introduced(self.known.there)
            self.plane.told(self.known.roster)

    def report(self) -> None:
        manager = self.scenario.manager
        if self.is_up and manager.is_up and self.name in manager.there and not manager.is_over:
            for at, state in list(self.ended.items()):
                manager.told(at, state)

    # --- what the manager says ----------------------------------------------------------------

    def tell(self, news: News) -> None:
        """All of it is heard, in order, some of it late."""
        self.inbox.append(news)
        self.clock.soon(self.clock.random.choice((0.2, 0.2, 0.2, 2.0)), self._hear)

    def _hear(self) -> None:
        if not self.inbox:
            return
        news = self.inbox.popleft()
        if not self.is_up:
            return
        self.known = news
        if self.plane.is_alive:
            self.plane.introduced(news.there)
            self._rosters.append(news.roster)
            if len(self._rosters) > 1 or self.clock.random.random() < 0.2:
                self.clock.soon(0.5, self._tell_roster)
            else:
                self._tell_roster()
        for at, program in list(self.programs.items()):
            if at not in news.desired:
                self.end(program, AttemptState.CANCELLED)
        for at in news.desired:
            if at not in self.programs and at not in self.ended:
                self.programs[at] = Program(self, at)

    def _tell_roster(self) -> None:
        if self._rosters and self.plane.is_alive:
            self.plane.told(self._rosters.popleft())

    def settle(self, plane: Plane, at: Instance) -> None:
        """What the attempt has written is with the manager after a while."""

        def settled() -> None:
            program = self.programs.get(at)
            if plane.is_alive and program is not None:
                self.clock.seen["settled"] += 1
                self.scenario.settled.add((at.iteration, at.index, program.number))
                plane.does(partial(plane.desk.settled, at))

        self.clock.soon(2.0, settled)

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

    # --- crashes ------------------------------------------------------------------------------

    def plane_crashed(self) -> None:
        self.scenario.manager.crashes(self.name)
        for program in list(self.programs.values()):
            if program.plane is not None:  # else it has not met it
                self.end(program, AttemptState.INTERRUPTED)

    def crashed(self) -> None:
        self.scenario.manager.crashes(self.name)
        self.inbox.clear()
        self.known = None
        for program in list(self.programs.values()):
            self.end(program, AttemptState.INTERRUPTED)

    def restarted(self) -> None:
        manager = self.scenario.manager
        if manager.is_up and self.name in manager.there:
            self.tell(manager.news(self.name))
