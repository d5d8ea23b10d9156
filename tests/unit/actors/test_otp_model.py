"""The machine against OTP's supervisor, written anew as the blocking recursion that it is."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import pytest

from manta.actors import events as ev
from manta.actors.exits import ExitKind, ExitReason
from manta.actors.specs import AutoShutdown, ChildSpec, Phase, Restart, Strategy
from manta.actors.supervision import Supervision

SEQUENCES = 2_000
COMMANDS = 30
KINDS = [ExitKind.NORMAL, ExitKind.SHUTDOWN, ExitKind.GAVE_UP, ExitKind.CRASHED, ExitKind.ABANDONED]


@dataclass
class Proc:
    spec: ChildSpec
    pid: str | None = None  # "alive", "restarting" or None


@dataclass
class Otp:
    """supervisor.erl in miniature: every start and stop returns before the next thing happens."""

    flags: dict
    failing: dict[str, int] = field(default_factory=dict)
    procs: list[Proc] = field(default_factory=list)
    casts: deque[str] = field(default_factory=deque)
    restarts: list[float] = field(default_factory=list)
    trace: list[tuple] = field(default_factory=list)
    dead: bool = False

    def find(self, id: str) -> Proc | None:
        return next((proc for proc in self.procs if proc.spec.id == id), None)

    def start(self, proc: Proc) -> bool:
        self.trace.append(("start", proc.spec.id))
        if self.failing.get(proc.spec.id, 0) > 0:
            self.failing[proc.spec.id] -= 1
            return False
        proc.pid = "alive"
        return True

    def terminate(self, procs: list[Proc]) -> None:
        for proc in reversed(procs):
            if proc.pid == "alive":
                self.trace.append(("stop", proc.spec.id))
            proc.pid = None

    def stop(self, kind: ExitKind) -> None:
        self.terminate(self.procs)
        self.dead = True
        self.trace.append(("exit", kind))

    def init(self) -> None:
        for proc in self.procs:
            if not self.start(proc):
                self.stop(ExitKind.CRASHED)
                return

    def forget(self, proc: Proc) -> None:
        proc.pid = None
        if proc.spec.restart is Restart.TEMPORARY:
            self.procs.remove(proc)

    def exited(self, proc: Proc, kind: ExitKind) -> None:
        abnormal = kind in (ExitKind.CRASHED, ExitKind.ABANDONED)
        restart = proc.spec.restart
        if restart is Restart.PERMANENT or (restart is Restart.TRANSIENT and abnormal):
            self.restart(proc)
            return
        self.forget(proc)
        auto = self.flags["auto_shutdown"]
        if not proc.spec.significant or auto is AutoShutdown.NEVER:
            return
        left = [other for other in self.procs if other.spec.significant and other.pid is not None]
        if auto is AutoShutdown.ANY_SIGNIFICANT or not left:
            self.stop(ExitKind.SHUTDOWN)

    def restart(self, proc: Proc) -> None:
        now, period = self.flags["now"], self.flags["period"]
        self.restarts = [now, *(then for then in self.restarts if now <= then + period)]
        if len(self.restarts) > self.flags["intensity"]:
            self.forget(proc)
            self.stop(ExitKind.GAVE_UP)
            return
        strategy = self.flags["strategy"]
        if strategy is Strategy.ONE_FOR_ONE:
            if not self.start(proc):
                self.try_again(proc)
            return
        first = self.procs.index(proc) if strategy is Strategy.REST_FOR_ONE else 0
        proc.pid = None
        self.terminate(self.procs[first:])
        keep = [other for other in self.procs[first:] if other.spec.restart != Restart.TEMPORARY]
        self.procs[first:] = keep
        for other in keep:
            if not self.start(other):
                self.try_again(other)
                return

    def try_again(self, proc: Proc) -> None:
        proc.pid = "restarting"
        self.casts.append(proc.spec.id)
        self.trace.append(("retry", proc.spec.id))

    def deliver(self) -> None:
        proc = self.find(self.casts.popleft())
        if proc is not None and proc.pid == "restarting":
            self.restart(proc)

    def start_child(self, spec: ChildSpec) -> None:
        found = self.find(spec.id)
        if found is not None:
            code = "already_started" if found.pid == "alive" else "already_present"
        elif spec.significant and self.flags["auto_shutdown"] is AutoShutdown.NEVER:
            code = "bad_spec"
        else:
            proc = Proc(spec)
            code = "" if self.start(proc) else "start_failed"
            if not code:
                self.procs.append(proc)
        self.trace.append(("answer", spec.id, code))

    def restart_child(self, id: str) -> None:
        proc = self.find(id)
        if proc is None:
            code = "not_found"
        elif proc.pid is not None:
            code = "running" if proc.pid == "alive" else "restarting"
        else:
            code = "" if self.start(proc) else "start_failed"
        self.trace.append(("answer", id, code))

    def remove(self, id: str) -> None:
        proc = self.find(id)
        if proc is None:
            self.trace.append(("answer", id, "not_found"))
            return
        self.terminate([proc])
        self.procs.remove(proc)
        self.trace.append(("answer", id, ""))

    def state(self) -> list[tuple[str, str]]:
        words = {"alive": Phase.RUNNING, "restarting": Phase.RETRYING, None: Phase.DOWN}
        return [(proc.spec.id, words[proc.pid]) for proc in self.procs]


class Ours:
    """The machine with a world around it that answers every action at once."""

    def __init__(self, specs: list[ChildSpec], flags: dict) -> None:
        wanted = ("strategy", "intensity", "period", "auto_shutdown")
        self.machine = Supervision(specs, **{name: flags[name] for name in wanted})
        self.flags = flags
        self.failing: dict[str, int] = {}
        self.casts: deque[str] = deque()
        self.trace: list[tuple] = []

    def feed(self, event: ev.Event) -> None:
        todo = deque(self.machine.handle(event, self.flags["now"]))
        while todo:
            match todo.popleft():
                case ev.Start(spec):
                    self.trace.append(("start", spec.id))
                    answer: ev.Event = ev.Started(spec.id)
                    if self.failing.get(spec.id, 0) > 0:
                        self.failing[spec.id] -= 1
                        answer = ev.Exited(spec.id, ExitReason(ExitKind.CRASHED))
                    todo.extend(self.machine.handle(answer, self.flags["now"]))
                case ev.Halt(id):
                    self.trace.append(("stop", id))
                    gone = ev.Exited(id, ExitReason(ExitKind.SHUTDOWN))
                    todo.extend(self.machine.handle(gone, self.flags["now"]))
                case ev.Retry(id):
                    self.casts.append(id)
                    self.trace.append(("retry", id))
                case ev.Answer(_, id, code):
                    self.trace.append(("answer", id, code))
                case ev.Exit(reason):
                    self.trace.append(("exit", reason.kind))
                case ev.Booted():
                    pass
                case other:
                    raise AssertionError(other)

    def state(self) -> list[tuple[str, str]]:
        return [(id, child.phase) for id, child in self.machine.children.items()]


def random_spec(rng: random.Random, id: str, auto: AutoShutdown) -> ChildSpec:
    restart = rng.choice(list(Restart))
    significant = auto is not AutoShutdown.NEVER and restart is not Restart.PERMANENT
    significant = significant and rng.random() < 0.5
    return ChildSpec(id, object, restart, significant=significant)


@pytest.mark.parametrize("strategy", Strategy)
def test_random_sequences_end_as_in_otp(strategy: Strategy) -> None:
    ends: set[ExitKind] = set()
    for seed in range(SEQUENCES):
        rng = random.Random(f"{strategy} {seed}")
        auto = rng.choice(list(AutoShutdown))
        flags: dict[str, Any] = {
            "strategy": strategy,
            "intensity": rng.choice([0, 1, 2, 5, 1000]),
            "period": 5.0,
            "auto_shutdown": auto,
            "now": 0.0,
        }
        specs = [random_spec(rng, f"c{index}", auto) for index in range(rng.randrange(5))]
        otp, ours = Otp(flags, procs=[Proc(spec) for spec in specs]), Ours(specs, flags)
        if specs and rng.random() < 0.05:
            otp.failing[specs[-1].id] = ours.failing[specs[-1].id] = 1
        otp.init()
        ours.feed(ev.Boot())
        said: list[tuple[str, str]] = []
        for _ in range(COMMANDS):
            assert ours.trace == otp.trace, f"{strategy} seed {seed}: {said}"
            if otp.dead:
                break
            assert ours.state() == otp.state(), f"{strategy} seed {seed}: {said}"
            alive = [proc for proc in otp.procs if proc.pid == "alive"]
            command = rng.choices(
                ["exit", "deliver", "add", "revive", "remove", "advance", "fail", "shutdown"],
                [8, 5, 2, 1, 1, 2, 3, 0.2],
            )[0]
            id = f"c{rng.randrange(7)}"
            said.append((command, id))
            if command == "exit" and alive:
                proc, kind = rng.choice(alive), rng.choice(KINDS)
                said[-1] = (command, proc.spec.id)
                proc.pid = None  # it is; the supervisor is about to hear of it
                otp.exited(proc, kind)
                ours.feed(ev.Exited(proc.spec.id, ExitReason(kind)))
            elif command == "deliver" and otp.casts:
                otp.deliver()
                ours.feed(ev.RetryDue(ours.casts.popleft()))
            elif command == "add":
                spec = random_spec(rng, id, auto)
                otp.start_child(spec)
                ours.feed(ev.Add(spec))
            elif command == "revive":
                otp.restart_child(id)
                ours.feed(ev.Revive(id))
            elif command == "remove":
                otp.remove(id)
                ours.feed(ev.Remove(id))
            elif command == "advance":
                flags["now"] += rng.choice([0.0, 1.0, 5.0, 6.0])
            elif command == "fail":
                times = rng.randrange(1, 4)
                otp.failing[id] = ours.failing[id] = times
            elif command == "shutdown":
                otp.stop(ExitKind.SHUTDOWN)
                ours.feed(ev.Shutdown())
        assert ours.trace == otp.trace, f"{strategy} seed {seed}: {said}"
        ends |= {entry[1] for entry in otp.trace if entry[0] == "exit"}
    assert ends == {ExitKind.SHUTDOWN, ExitKind.GAVE_UP, ExitKind.CRASHED}, "sequences too tame"
