"""What an owner's limits hold back beside values, and what becomes of them while attempts run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from manta.actors import Refused
from manta.node.policy import gate as gates
from manta.node.policy.admission import Ruling
from manta.node.policy.consent import Subject
from manta.node.policy.gate import Gate
from manta.node.policy.rules import Leaves, Verdict
from manta.node.service.door import Door
from manta.node.shared.output import HELD_BACK, TaskOutput
from manta.node.task_server import requests as light
from manta.node.task_server.messages import AttemptExited, PackagesFound
from manta.node.tasks.bundles import Bundles
from manta.node.tasks.requests import TaskRequests
from manta.node.tasks.stacks import StackReads
from manta.protocol.codes import Code
from manta.protocol.node import (
    Assignment,
    GlobalWritten,
    Instance,
    MetricsLogged,
    Progressed,
    ResultWritten,
    TaskEnded,
    TaskError,
)
from manta.protocol.spec import ModuleSpec
from manta.protocol.spread import SPREAD
from manta.protocol.values import BlobRef, Inline

AT, OTHER = Instance("s", "only", 0, 0), Instance("s", "other", 0, 0)
LIMITS = Leaves((("total",),), failures=False)
SILENT = Leaves(logs=False)
SECRET = "Jane Doe, 1970"
FAILED = TaskError("KeyError", f"only.0 raised KeyError: {SECRET!r}", f"row = {SECRET}", (SECRET,))


class Room:
    """A gate, and what is around it; nothing of that is looked at."""

    def __init__(self, folder: Path | None = None) -> None:
        self.audit = SimpleNamespace(
            stopped=lambda *_: None, left=lambda *_: None, about_order=lambda *_, **__: None
        )
        self.gate = Gate(self.audit)  # type: ignore[arg-type]
        self.config = SimpleNamespace(bundle_redact=(), name="ward")
        self.state = SimpleNamespace(kept_of=lambda swarm_id: folder)
        self.has_rooms = self.draining = False


def told(room: Room, error: TaskError = FAILED) -> TaskError:
    bundles = Bundles(room)  # type: ignore[arg-type]
    bundles.heard(AttemptExited("session", AT, error=error))
    end = bundles.completed(TaskEnded(AT, "FAILED", 1.0, error=error), None, None)
    assert isinstance(end, TaskEnded)
    assert end.error is not None
    return end.error


def test_a_failure_says_only_its_kind_where_what_leaves_is_limited() -> None:
    room = Room()
    assert told(room) == FAILED
    room.gate.begins(AT, LIMITS)
    error = told(room)
    assert SECRET not in repr(error)
    assert "failed of KeyError: the owner of its node holds back what that says" in error.sentence
    named = msgspec.structs.replace(FAILED, kind=SECRET)
    assert SECRET not in repr(told(room, named))
    assert len(told(room, msgspec.structs.replace(FAILED, kind="x" * 999)).kind) == 80
    room.gate.begins(AT, msgspec.structs.replace(LIMITS, failures=True))
    assert told(room) == FAILED


def test_it_says_which_value_was_stopped() -> None:
    room = Room()
    room.gate.begins(AT, LIMITS)
    assert room.gate.flaw(ResultWritten(AT, "rows", Inline(b"1")), 1.0)
    assert "'rows' is not among those that may leave" in told(room).sentence


def test_the_stacks_of_what_is_limited_are_not_shown() -> None:
    room, asked = Room(), list[Any]()
    room.sessions = SimpleNamespace(tell=asked.append)  # type: ignore[attr-defined]
    reads = StackReads(room)  # type: ignore[arg-type]
    reads.ask(AT, "session", "", lambda: None, 0.0)  # type: ignore[arg-type,return-value]
    assert len(asked) == 1
    room.gate.begins(AT, LIMITS)
    with pytest.raises(Refused, match="holds the stacks of this task back") as refused:
        reads.ask(AT, "session", "", lambda: None, 0.0)  # type: ignore[arg-type,return-value]
    assert refused.value.code == Code.FORBIDDEN


# Lines and progress.


class Journal:
    """Takes the lines that leave."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def append_output(self, instance: Instance, lines: Any) -> None:
        self.lines += [text for _, _, text in lines]

    def append_lines(self, swarm_id: str, lines: Any) -> None:
        assert all(line.stream == "node" for line in lines)
        self.lines += [line.text for line in lines]


def test_of_lines_that_are_held_back_only_their_number_is_told() -> None:
    gate, journal = Room().gate, Journal()
    output = TaskOutput(journal, gate, lambda: 1.0)  # type: ignore[arg-type]
    said = [("stdout", 1.0, SECRET), ("warning", 1.0, SECRET)]
    output.keep(OTHER, said)
    assert journal.lines == [SECRET, SECRET]
    journal.lines.clear()
    gate.begins(AT, SILENT)
    for _ in range(3):
        output.keep(AT, said)
    output.ended(AT)
    assert journal.lines == [
        HELD_BACK, "[lines and messages of progress that were held back: 6]"
    ]  # fmt: skip
    assert gate.withheld(AT) == 6
    gate.ended(AT)
    output.keep(AT, said)  # what a process that was killed had written is read late
    assert len(journal.lines) == 2
    gate.begins(AT, Leaves())  # another attempt of the same name, of which all may leave
    output.keep(AT, said)
    assert journal.lines[2:] == [SECRET, SECRET]


def test_progress_that_is_held_back_has_no_message_and_is_told_in_hundredths() -> None:
    gate = Room().gate
    told = Progressed(AT, 0.123456789, SECRET, 1.0)
    assert gate.progress(told) == told
    gate.begins(AT, SILENT)
    assert gate.progress(told) == Progressed(AT, 0.12, "", 1.0)
    assert gate.withheld(AT) == 1


def test_a_failure_quotes_no_line_that_is_held_back() -> None:
    """Also where the owner lets what the code says of a failure leave."""
    room = Room()
    room.gate.begins(AT, SILENT)
    error = told(room)
    assert error.last_lines == ()
    assert SECRET in error.traceback  # of what the code raised
    bundles = Bundles(room)  # type: ignore[arg-type]
    exited = TaskError("ProcessExited", "It ended.", SECRET, (SECRET,))
    end = bundles.completed(TaskEnded(AT, "FAILED", 1.0, error=exited), None, None)
    assert SECRET not in repr(end)  # its process had written that


def requests(room: Room) -> TaskRequests:
    return TaskRequests(SimpleNamespace(clock=SimpleNamespace(wall=float)), room, lambda *_: None)  # type: ignore[arg-type]


def test_what_is_kept_on_the_node_is_read_under_the_same_limits_only(tmp_path: Path) -> None:
    room = Room(tmp_path)
    served = requests(room)
    plain = served._state_file(AT, "rows")
    room.gate.begins(AT, LIMITS)
    limited = served._state_file(AT, "rows")
    assert plain == served._state_file(OTHER, "rows") != limited
    room.gate.begins(OTHER, LIMITS)
    assert served._state_file(OTHER, "rows") == limited


def test_a_result_that_may_not_leave_is_not_offered_to_other_nodes() -> None:
    room, answers = Room(), list[Any]()
    room.gate.begins(AT, LIMITS)
    served = requests(room)  # its node has nowhere to keep a result: that is an error
    reply = light.Reply(lambda value, error: answers.append(error))
    body = light.AddResult("rows", BlobRef("d" * 64, 2 * SPREAD), n=1)
    served.collect = "references"
    served._serve(light.Request("session", AT, body, reply))
    [(kind, sentence)] = answers
    assert kind == "RequestFailed"
    assert "'rows' is not among" in sentence


# While attempts run.


class Owner:
    """Stands for the policy and for the rest of the node."""

    def __init__(self) -> None:
        self.ruling = Ruling(Verdict.ALLOW, Subject("ada", "key"))
        self.flaw, self.changed, self.latest = "", False, 1.0
        self.room, self.ended, self.refused = Room(), list[str](), list[str]()
        nothing = SimpleNamespace(info=lambda *_: None, error=lambda *_: None)
        clock = SimpleNamespace(wall=lambda: self.latest, now=lambda: self.latest)
        actor = SimpleNamespace(clock=clock, log=nothing)
        self.held: dict[Instance, Any] = {}
        self.door = Door(
            actor,  # type: ignore[arg-type]
            self.room,  # type: ignore[arg-type]
            self,  # type: ignore[arg-type]
            lambda order: None,
            lambda instance, error: self.refused.append(error.sentence),
            lambda instance, error: self.ended.append(error.sentence),
        )

    def rule(self, *_: object) -> Ruling:
        return self.ruling

    def looked(self) -> bool:
        return self.changed

    def nothing(self, *_: object) -> None: ...

    passes = save = drop = settled = nothing

    def says(self, leaves: Leaves) -> None:
        self.ruling = msgspec.structs.replace(self.ruling, leaves=leaves)
        self.changed = True
        self.door.look()


ORDER = Assignment(AT, ModuleSpec("sums"), "Study", "n", 1)


def test_what_may_leave_of_what_runs_changes_with_the_policy() -> None:
    owner = Owner()
    owner.door.take(ORDER)
    rows = GlobalWritten(AT, "rows", Inline(b"1"))
    assert owner.room.gate.flaw(rows, 1.0) == ""
    owner.says(LIMITS)
    assert "'rows' is not among" in owner.room.gate.flaw(rows, 1.0)
    assert owner.ended == []
    owner.says(msgspec.structs.replace(LIMITS, exchange=False))
    assert ["tell each other nothing any more" in one for one in owner.ended] == [True]


def test_an_attempt_is_ended_where_it_may_give_less_to_sums() -> None:
    """Its plane has been told what it might."""
    for narrower in ({"sums": 5}, {"largest": 10}, {"most": 1}, {"sums": 0}):
        owner = Owner()
        sums = Leaves(exchange=False, alone=False, sums=3, most=9)
        owner.ruling = msgspec.structs.replace(owner.ruling, leaves=sums)
        owner.door.take(ORDER)
        owner.says(msgspec.structs.replace(sums, most=10))
        assert owner.ended == []
        owner.says(msgspec.structs.replace(sums, **narrower))
        assert len(owner.ended) == 1


def test_what_waits_goes_on_waiting_while_the_policy_cannot_be_read() -> None:
    owner = Owner()
    owner.held[AT] = SimpleNamespace(order=ORDER)
    owner.ruling = Ruling(Verdict.DENY, owner.ruling.subject, "it cannot be read")
    owner.flaw = "it cannot be read"
    owner.changed = True
    owner.door.look()
    assert owner.refused == []
    owner.flaw = ""
    owner.door.look()
    assert len(owner.refused) == 1


def test_the_step_of_no_metrics_is_a_value() -> None:
    gate = Room().gate
    gate.begins(AT, LIMITS)
    assert gate.flaw(MetricsLogged(AT, {}, 19700101, 1.0), 1.0)
    assert not gate.flaw(MetricsLogged(AT, {"total": 1.0}, 1, 1.0), 1.0)


def test_progress_that_is_no_number_says_nothing() -> None:
    gate = Room().gate
    gate.begins(AT, SILENT)
    assert gate.progress(Progressed(AT, float("nan"), "", 1.0)).fraction == 0.0


def test_a_message_of_progress_before_the_first_line_leaves_the_user_told() -> None:
    gate, journal = Room().gate, Journal()
    output = TaskOutput(journal, gate, lambda: 1.0)  # type: ignore[arg-type]
    gate.begins(AT, SILENT)
    gate.progress(Progressed(AT, 0.5, SECRET, 1.0))
    output.keep(AT, [("stdout", 1.0, SECRET)])
    assert journal.lines == [HELD_BACK]
    assert gate.withheld(AT) == 2


def test_packages_are_those_that_a_runtime_has_told_before_it_runs_the_code() -> None:
    bundles = Bundles(Room())  # type: ignore[arg-type]
    bundles.heard(PackagesFound("session", (("numpy", "2"),)))
    bundles.heard(PackagesFound("session", ((SECRET, "1"),)))
    assert bundles._packages == {"numpy": "2"}
    bundles.heard(PackagesFound("next", (("numpy", "3"),)))
    assert bundles._packages == {"numpy": "3"}


def wrote(at: Instance) -> ResultWritten:
    return ResultWritten(at, "total", Inline(b"1"))


def test_an_attempt_that_is_tried_again_has_what_the_first_has_left_over() -> None:
    gate, again = Room().gate, msgspec.structs.replace(AT, attempt=1)
    others = msgspec.structs.replace(AT, index=1), msgspec.structs.replace(AT, iteration=1)
    limits = Leaves((("total",),), most=3)
    gate.begins(AT, limits)
    assert [gate.flaw(wrote(AT), 1.0) for _ in range(2)] == ["", ""]
    gate.ended(AT)
    gate.begins(again, limits)
    assert gate.flaw(wrote(again), 1.0) == ""
    assert "3 values of an instance may leave in an iteration" in gate.flaw(wrote(again), 1.0)
    gate.ended(again)
    third = msgspec.structs.replace(AT, attempt=2)
    gate.begins(third, limits)
    assert gate.flaw(wrote(third), 1.0)
    for other in others:
        gate.begins(other, limits)
        assert gate.flaw(wrote(other), 1.0) == ""


def test_what_has_left_in_sums_is_known_to_the_next_plane_and_the_next_attempt() -> None:
    gate, again = Room().gate, msgspec.structs.replace(AT, attempt=1)
    limits = Leaves(exchange=False, alone=False, sums=3, most=2)
    gate.begins(AT, limits)
    gate.summed(AT)
    limit = gate.sums_of(AT)
    assert limit is not None
    assert (limit.most, limit.before) == (2, 1)
    gate.ended(AT)
    gate.begins(again, limits)
    limit = gate.sums_of(again)
    assert limit is not None
    assert limit.before == 1


def test_counts_of_what_has_left_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "MOST_COUNTED", 2)
    gate, limits = Room().gate, Leaves((("total",),), most=1)
    instances = [msgspec.structs.replace(AT, iteration=number) for number in range(3)]
    for at in instances:
        gate.begins(at, limits)
        assert gate.flaw(wrote(at), 1.0) == ""
        gate.ended(at)
    found = []
    for at in instances:
        again = msgspec.structs.replace(at, attempt=1)
        gate.begins(again, limits)
        found.append(gate.flaw(wrote(again), 1.0) == "")
    assert found == [True, False, False]
