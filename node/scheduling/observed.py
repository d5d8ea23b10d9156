"""What the manager wants this node to run against what it holds.

An assignment is *live* from when it is taken until its attempt has ended, then *ended*
until the manager no longer wants it. So nothing that ended runs again while it is still
desired, and whatever is desired and unknown is taken, once. The manager's wishes have a
version: a change that continues ours is applied, anything else leads to fetching the whole,
which may come in several pages; changes that overtake them wait until it is there.

A manager that went back to an earlier state may want an attempt under the name of one that ran
here in the past that it has lost. Their epochs tell the two apart: what the former one told, and
is yet to tell, does not count.

| held  | still desired | revoked                       | attempt ends           |
|-------|---------------|-------------------------------|------------------------|
| no    | Take -> live  | nothing                       |                        |
| no, though it had begun | Forget -> live | nothing  |                        |
| live  | nothing       | Cancel; forgotten at its end  | ended, or forgotten    |
| live, of another epoch  | Disown, Cancel | as live     | ended: it is to be begun again |
| ended | nothing       | forgotten                     |                        |
| ended, of another epoch | Disown, Take -> live | forgotten |                   |
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from manta.protocol.node import Assignment, Desired, DesiredChanged, FetchDesired, Instance


class Take(msgspec.Struct, frozen=True):
    """Run it: its end is reported exactly once."""

    assignment: Assignment


class Forget(msgspec.Struct, frozen=True):
    """It had begun here, and nothing is known of it any more: report that it was interrupted."""

    instance: Instance


class Disown(msgspec.Struct, frozen=True):
    """What it told that the manager does not have does not count, nor what it is yet to tell if it
    `goes_on`: its end is reported as an interruption."""

    instance: Instance
    goes_on: bool = False


class Cancel(msgspec.Struct, frozen=True):
    """The manager no longer wants it: end it."""

    instance: Instance


class StopRuntimes(msgspec.Struct, frozen=True):
    """The swarm is over: its warm runtimes and what they keep are of no use once its attempts
    have ended, or at once with `kill`."""

    swarm_id: str
    kill: bool = False


ObservedAction = Take | Forget | Disown | Cancel | StopRuntimes | FetchDesired
"""A FetchDesired is answered with `fetched` or `fetch_failed`."""


class Observed:
    def __init__(self) -> None:
        self.version = -1
        self._live: dict[Instance, Assignment] = {}
        self._ended: dict[Instance, str] = {}
        """With their epochs."""
        self._revoked: set[Instance] = set()
        self._swarms: set[str] = set()
        self._killed: set[str] = set()
        """Those of them that the manager will not have asked."""
        self._fetching_from: int | None = None
        self._gathered: list[Assignment] = []
        self._gathering = -1
        """The version of what was gathered."""
        self._overtaking: list[DesiredChanged] = []

    @property
    def held(self) -> tuple[Instance, ...]:
        """Live or ended."""
        return (*self._live, *sorted(self._ended))

    @property
    def live(self) -> tuple[Assignment, ...]:
        return tuple(self._live.values())

    @property
    def swarms(self) -> frozenset[str]:
        """Those whose runtimes are to be kept warm."""
        return frozenset(self._swarms)

    def remember(self, ended: Iterable[Instance]) -> None:
        """After a start: attempts whose end is in the journal still. Their epochs are not known:
        in a swarm that was restored from a backup they are run again, which costs time alone."""
        self._ended.update(dict.fromkeys(ended, ""))

    def registered(self, desired: Desired) -> list[ObservedAction]:
        """A connection began: whatever was on its way before is void."""
        self.fetch_failed()
        self.version = self._fetching_from = -1
        return self.fetched(desired)

    def changed(self, change: DesiredChanged) -> list[ObservedAction]:
        self._killed.update(self._swarms.intersection(change.killed))
        if change.version == self.version:
            return []
        if change.version != self.version + 1:
            if self._fetching_from is not None:
                self._overtaking.append(change)
            return self._fetch()
        self.version = change.version
        actions: list[ObservedAction] = []
        for instance in change.revoke:
            actions += self._revoke(instance)
        for assignment in change.assign:
            actions += self._take(assignment)
        return actions + self._keep_swarms(change.swarms)

    def heard_version(self, version: int) -> list[ObservedAction]:
        """A heartbeat was answered."""
        return [] if version == self.version else self._fetch()

    def fetched(self, desired: Desired) -> list[ObservedAction]:
        if self._fetching_from is None:
            return []
        if desired.after == 0:
            self._gathered, self._gathering = [], desired.version
        elif (desired.version, desired.after) != (self._gathering, len(self._gathered)):
            self.fetch_failed()  # a page of another moment
            return self._fetch()
        self._gathered += desired.assignments
        if desired.more:
            return [FetchDesired(self._gathering, len(self._gathered))]
        advanced = self.version != self._fetching_from
        whole, overtaking = self._gathered, self._overtaking
        self.fetch_failed()
        if advanced and desired.version < self.version:
            return self._fetch()  # changes overtook the answer: it would undo them
        actions = self._replace(desired.version, whole, desired.swarms)
        for change in overtaking:
            if change.version > self.version:
                actions += self.changed(change)
        return actions

    def fetch_failed(self) -> None:
        """The next change or heartbeat asks again."""
        self._fetching_from = None
        self._gathered, self._overtaking = [], []

    def ended(self, instance: Instance) -> None:
        """Its TaskEnded is in the journal."""
        assignment = self._live.pop(instance, None)
        if assignment is None:
            return
        if instance in self._revoked:
            self._revoked.discard(instance)
        else:
            self._ended[instance] = assignment.epoch

    def _replace(
        self, version: int, whole: list[Assignment], swarms: Iterable[str]
    ) -> list[ObservedAction]:
        self.version = version
        wanted = {assignment.instance for assignment in whole}
        actions: list[ObservedAction] = []
        for instance in self.held:
            if instance not in wanted:
                actions += self._revoke(instance)
        for assignment in whole:
            actions += self._take(assignment)
        return actions + self._keep_swarms(swarms)

    def _take(self, assignment: Assignment) -> list[ObservedAction]:
        instance, live = assignment.instance, self._live.get(assignment.instance)
        actions: list[ObservedAction] = []
        if live is not None:
            is_ending = instance in self._revoked
            self._revoked.discard(instance)  # wanted after all: its end is to be remembered
            if live.epoch != assignment.epoch:
                self._live[instance] = assignment
                actions.append(Disown(instance, goes_on=True))
                actions += [] if is_ending else [Cancel(instance)]
            return actions
        if instance in self._ended:
            if self._ended[instance] == assignment.epoch:
                return []
            del self._ended[instance]
            actions.append(Disown(instance))
        self._live[instance] = assignment
        self._swarms.add(instance.swarm_id)
        return [*actions, Forget(instance) if assignment.begun else Take(assignment)]

    def _revoke(self, instance: Instance) -> list[ObservedAction]:
        self._ended.pop(instance, None)
        if instance not in self._live or instance in self._revoked:
            return []
        self._revoked.add(instance)
        return [Cancel(instance)]

    def _keep_swarms(self, swarms: Iterable[str]) -> list[ObservedAction]:
        wanted = {instance.swarm_id for instance in self._live if instance not in self._revoked}
        wanted.update(swarms)
        gone = self._swarms - wanted
        killed, self._killed = self._killed, self._killed & wanted
        self._swarms = wanted
        return [StopRuntimes(swarm_id, swarm_id in killed) for swarm_id in sorted(gone)]

    def _fetch(self) -> list[ObservedAction]:
        if self._fetching_from is not None:
            return []
        self._fetching_from = self.version
        return [FetchDesired()]
