"""What an owner has been asked and has said, and what of it holds."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from blake3 import blake3

from manta.audit.verify import read
from manta.node.policy import code as review
from manta.node.policy.admission import Admission, subject_of
from manta.node.policy.consent import (
    BACK,
    Asked,
    Consent,
    Subject,
    asked_again,
    latest,
    replaced,
    said_of,
)
from manta.node.policy.gate import Gate
from manta.node.policy.records import Code, DecidedRecords, OwnerRecords
from manta.node.policy.rules import Leaves, Verdict
from manta.node.state.audit import open_log
from manta.protocol.exchange import LockWanted
from manta.protocol.node import Assignment, Instance, MetricsLogged, ResultWritten, TaskEnded
from manta.protocol.signed import fingerprint, public_of, sign
from manta.protocol.spec import ModuleSpec, SignedOrder, SwarmSpec, TaskSpec
from manta.protocol.values import BlobRef, Inline
from manta.transports.codec.stored import Damaged

ADA = Subject("ada@uni.example", "key", "d1", None, ("ward",))
NOW = 1000.0


def consent(subject: Subject = ADA, *, allows: bool = True, **more: object) -> Consent:
    return Consent(subject, allows, NOW, **more)  # type: ignore[arg-type]


def verdict(*consents: Consent, subject: Subject = ADA, nonce: str = "n", now: float = NOW) -> str:
    return said_of(consents, subject, nonce, now).verdict.word


def test_a_consent_is_of_one_person_code_and_data() -> None:
    replace = msgspec.structs.replace
    assert verdict() == "ask"
    assert verdict(consent()) == "allow"
    for other in (
        replace(ADA, user="bob"),
        replace(ADA, key="k2"),
        replace(ADA, digest="d2"),
        replace(ADA, image="pytorch"),
        replace(ADA, datasets=("ward", "salaries")),
        replace(ADA, class_name="Other"),
        replace(ADA, requirements=("numpy", "another")),
        replace(ADA, outbound=("outbound:example.org:443",)),
    ):
        assert verdict(consent(), subject=other) == "ask"
        assert other.id != ADA.id
    anyone = consent(anyone=True)
    assert verdict(anyone, subject=replace(ADA, user="bob", key="k2")) == "allow"
    assert verdict(anyone, subject=replace(ADA, digest="d2")) == "ask"
    assert verdict(anyone, subject=replace(ADA, requirements=("another",))) == "ask"


def test_it_ends_with_its_time_and_is_for_its_deployments() -> None:
    assert verdict(consent(until=NOW + 1)) == "allow"
    assert verdict(consent(until=NOW)) == "ask"
    assert verdict(consent(once=("n",))) == "allow"
    assert verdict(consent(once=("m",))) == "ask"


def test_a_denial_holds_whatever_else_is_allowed_and_what_was_said_last_of_a_subject_holds() -> (
    None
):
    bob = msgspec.structs.replace(ADA, user="bob")
    assert verdict(consent(bob, anyone=True), consent(allows=False)) == "deny"
    after = replaced((consent(), consent(bob)), consent(allows=False))
    assert verdict(*after) == "deny"
    assert verdict(*after, subject=bob) == "allow"
    assert verdict(*replaced(after, consent())) == "allow"


def test_time_does_not_go_back() -> None:
    assert latest(NOW, NOW - 5) == (NOW, False)
    assert latest(NOW, NOW + BACK) == (NOW + BACK, False)
    assert latest(NOW, NOW + BACK + 1) == (NOW + BACK + 1, True)


def test_requests_are_bounded_and_those_that_wait_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("manta.node.policy.consent.MOST_ASKED", 2)

    def one(digest: str, at: float) -> Asked:
        return Asked(msgspec.structs.replace(ADA, digest=digest), at, at, "why")

    asked = asked_again({}, one("a", 1.0), "n1")
    assert asked is not None
    asked = asked_again(asked, one("a", 9.0), "n2")
    assert asked is not None
    [first] = asked.values()
    assert (first.since, first.nonces) == (1.0, ("n1", "n2"))
    asked = asked_again(asked, one("b", 2.0), "n")
    assert asked is not None
    more = asked_again(asked, one("c", 3.0), "n")
    assert more is not None
    assert [one.subject.digest for one in more.values()] == ["a", "c"]  # the idle one went
    all_wait = {id_: msgspec.structs.replace(it, waiting=1) for id_, it in more.items()}
    assert asked_again(all_wait, one("d", 4.0), "n") is None


# Orders.


SECRET = "s" * 40
MODULE = ModuleSpec("sums", BlobRef("d" * 64, 3), datasets=("ward",))


def order(index: int = 0, *, nonce: str = "0" * 32, module: ModuleSpec = MODULE) -> Assignment:
    spec = SwarmSpec("Study", (TaskSpec("only", "sums"),), (module,), description="Why")
    spec = sign(spec, SECRET, nonce, 1.0)
    assert spec.signed is not None
    return Assignment(
        Instance("s", "only", index, 0),
        module,
        "Study",
        "n",
        1,
        datasets=("ward",),
        outbound=module.outbound,
        user="ada@uni.example",
        signed=SignedOrder(spec.signed, spec.tasks[0].signature, "Why"),
    )


@pytest.fixture
def admission(tmp_path: Path) -> Callable[..., Admission]:
    def made(text: str = '[[rule]]\napprove = "ask"\n') -> Admission:
        path = tmp_path / "policy.toml"
        if not path.exists():
            path.write_text(text)
        return Admission(path, OwnerRecords(tmp_path / "owner"), lambda _: "bwrap")

    return made


def decide_by(admission: Admission, tmp_path: Path, one: Consent) -> None:
    OwnerRecords(tmp_path / "owner").decide(lambda consents: replaced(consents, one))
    assert admission.looked()


def test_what_waits_is_remembered_and_is_let_in_once_the_owner_says_so(
    admission: Callable[..., Admission], tmp_path: Path
) -> None:
    door = admission()
    ruling = door.rule(order(), NOW)
    assert ruling.verdict is Verdict.ASK
    assert "is a new key of ada@uni.example" in ruling.why
    assert door.hold(order(), ruling, NOW) == ""
    assert door.hold(order(1), ruling, NOW + 5) == ""
    door.save()
    back = admission()  # after a restart
    assert back.held == {}
    assert back.hold(order(), back.rule(order(), NOW + 9), NOW + 9) == ""
    assert back.since(ruling.subject) == NOW
    decide_by(back, tmp_path, Consent(ruling.subject, True, NOW))
    assert back.rule(order(), NOW + 10).verdict is Verdict.ALLOW
    other = msgspec.structs.replace(MODULE, package=BlobRef("e" * 64, 3))
    assert back.rule(order(module=other), NOW + 10).verdict is Verdict.ASK
    for change in ({"requirements": ("x",)}, {"outbound": ("outbound:x.example:1",)}):
        other = msgspec.structs.replace(MODULE, **change)
        assert back.rule(order(module=other), NOW + 10).verdict is Verdict.ASK


def test_a_forged_order_and_another_ones_key_are_denied(
    admission: Callable[..., Admission],
) -> None:
    door = admission('new_keys = "first"\n[[rule]]\n')
    assert door.rule(order(), NOW).verdict is Verdict.ALLOW
    lie = msgspec.structs.replace(order(), user="bob@uni.example")
    assert door.rule(lie, NOW).verdict is Verdict.DENY
    forged = msgspec.structs.replace(order(), class_name="Evil")
    assert "has signed something else" in door.rule(forged, NOW).why
    assert door.rule(msgspec.structs.replace(order(), signed=None), NOW).verdict is Verdict.DENY
    door.save()
    again = admission()  # the first key was kept
    assert fingerprint(public_of(SECRET)) == subject_of(order()).key
    assert again.rule(order(), NOW).verdict is Verdict.ALLOW


def test_a_clock_that_is_set_back_makes_nothing_valid_again(
    admission: Callable[..., Admission], tmp_path: Path
) -> None:
    door = admission()
    decide_by(door, tmp_path, Consent(subject_of(order()), True, NOW, until=NOW + 500))
    assert door.rule(order(), NOW + 499).verdict is Verdict.ALLOW
    assert door.rule(order(), NOW + 501).verdict is Verdict.ASK
    door.save()
    assert door.rule(order(), NOW).verdict is Verdict.ASK
    back = admission()
    assert back.passes(NOW)  # noticed, once
    assert not back.passes(NOW)
    assert back.rule(order(), NOW).verdict is Verdict.ASK
    assert "what the owner allowed is over" in back.rule(order(), NOW).why


def test_time_goes_on_while_the_clock_is_set_back(
    admission: Callable[..., Admission], tmp_path: Path
) -> None:
    door = admission()
    decide_by(door, tmp_path, Consent(subject_of(order()), True, NOW, until=NOW + 500))
    assert door.rule(order(), NOW).verdict is Verdict.ALLOW
    assert door.passes(NOW - 10_000, 0.25)
    assert door.latest == NOW
    assert not door.passes(NOW - 9_600, 400.0)
    assert door.rule(order(), NOW - 9_600).verdict is Verdict.ALLOW
    door.passes(NOW - 9_500, 100.0)
    assert door.rule(order(), NOW - 9_500).verdict is Verdict.ASK


def test_a_policy_or_decisions_that_cannot_be_read_allow_nothing(
    admission: Callable[..., Admission], tmp_path: Path
) -> None:
    door = admission('new_keys = "first"\n[[rule]]\n')
    assert door.rule(order(), NOW).verdict is Verdict.ALLOW
    (tmp_path / "policy.toml").write_text("[[rule]]\naprove = 1\n")
    assert door.looked()
    assert door.rule(order(), NOW).verdict is Verdict.DENY
    assert "there is no key 'aprove'" in door.rule(order(), NOW).why
    (tmp_path / "policy.toml").write_text("")  # as an editor has it for a moment
    assert door.looked()
    assert "it is empty" in door.flaw
    assert not door.looked()
    (tmp_path / "policy.toml").write_text('new_keys = "first"\n[[rule]]\n')
    assert door.looked()
    assert door.rule(order(), NOW).verdict is Verdict.ALLOW
    (tmp_path / "owner").mkdir(exist_ok=True)
    (tmp_path / "owner" / "decided.json").write_text('{"consents": [{')
    assert door.looked()
    assert door.rule(order(), NOW).verdict is Verdict.DENY
    with pytest.raises(Damaged):
        admission()
    assert DecidedRecords().consents == ()


def test_what_could_not_be_read_for_a_moment_is_read_again(
    admission: Callable[..., Admission], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    door = admission('new_keys = "first"\n[[rule]]\n')
    (tmp_path / "policy.toml").write_text('new_keys = "deny"\n[[rule]]\n')
    with monkeypatch.context() as patched:
        patched.setattr(OwnerRecords, "decided", _no_descriptor_is_left)
        assert door.looked()
        assert "too many open files" in door.flaw
    assert door.looked()
    assert "new_keys" in door.rule(order(), NOW).why


def _no_descriptor_is_left(_: OwnerRecords) -> DecidedRecords:
    raise OSError("too many open files")


def test_what_changes_while_it_is_read_is_read_again(
    admission: Callable[..., Admission], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decided = OwnerRecords.decided

    def and_then(records: OwnerRecords) -> DecidedRecords:
        (tmp_path / "policy.toml").write_text('otherwise = "deny"')
        return decided(records)

    with monkeypatch.context() as patched:
        patched.setattr(OwnerRecords, "decided", and_then)
        door = admission('otherwise = "allow"')
    assert door.looked()
    assert door.policy.otherwise is Verdict.DENY


def test_hours_are_those_of_the_clock_also_once_it_was_set_back(
    admission: Callable[..., Admission],
) -> None:
    day = 86400.0
    door = admission('new_keys = "first"\n[[rule]]\nhours = "00:00-12:00"\n')
    night = NOW - NOW % day + time.timezone + day  # midnight, where there is no summer time
    assert door.rule(order(), night + 100 * day).verdict is Verdict.ALLOW
    assert door.rule(order(), night + day / 4).verdict is Verdict.ALLOW
    assert door.rule(order(), night + day * 3 / 4).verdict is Verdict.DENY


def test_what_others_can_have_a_node_remember_has_a_bound(
    admission: Callable[..., Admission], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manta.node.policy.admission.MOST_SEEN", 0)
    door = admission('new_keys = "first"\n[[rule]]\n')
    assert "keeps the first keys of 0 addresses" in door.rule(order(), NOW).why
    long = msgspec.structs.replace(MODULE, requirements=("x" * 20_000,))
    asked = order(module=long)
    assert "16,384 bytes" in door.hold(asked, door.rule(asked, NOW), NOW)
    assert door.held == {}


def test_nobody_takes_all_the_room_of_what_waits(
    admission: Callable[..., Admission], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manta.node.policy.admission.MOST_WAITING", 4)
    door = admission()
    told = [door.hold(order(at), door.rule(order(at), NOW), NOW) for at in range(3)]
    assert told[:2] == ["", ""]
    assert "half of all that may wait" in told[2]
    other = msgspec.structs.replace(order(9), user="bob@uni.example")
    assert door.hold(other, door.rule(other, NOW), NOW) == ""


# What the code says.


def test_what_code_reads_and_writes_is_found_in_its_syntax() -> None:
    text = """
import subprocess, numpy as np
from torch.nn import Linear
from manta.light import Local, World
from helper import name

def main():
    world = World()
    rows = Local().get_dataset("ward")
    Local().get_binary_data(name=name())
    world.results.add("total", rows.sum())
    world.set_result(tag="mean", value=rows.mean())
    world.globals["model"] = 1
    world.globals["count"] += 1
    world.log_metrics({"loss": 1.0, **rows})
    world.all_reduce(rows)
    print(rows)
    eval("rows")
"""
    found = review.look(
        Code({"main.py": text, "helper.py": "def name(): return 1"}, {"a.so": "d", "a.pyc": "e"})
    )
    assert found.imports == ("numpy", "torch")
    assert found.datasets == (review.NOT_SAID, "ward")
    assert found.results == ("mean", "total")
    assert found.globals == ("count", "model")
    assert found.metrics == (review.NOT_SAID, "loss")
    assert found.tells == ("all_reduce",)
    assert found.prints
    assert found.hides == ("eval", "subprocess")
    assert found.unread == ("a.pyc", "a.so")
    assert review.look(Code({"main.py": "def ("})).unread == ("main.py",)


def test_what_changed_is_told_file_by_file() -> None:
    before = Code({"main.py": "a = 1\nb = 2\n", "old.py": "x\n"}, {"m.bin": "1"})
    after = Code({"main.py": "a = 1\nb = 3\n", "new.py": "y\n"}, {"m.bin": "2"})
    lines = review.diff(before, after)
    for line in ("-b = 2", "+b = 3", "-x", "+y", "changed: m.bin"):
        assert any(one.startswith(line) for one in lines)
    assert review.diff(after, after) == []
    assert review.diff(None, Code({"main.py": "\n" * 5000 + "last"}))[-1] == "+last"
    assert [one for one in review.diff(None, after) if one.startswith("-")] == ["--- /dev/null"] * 2


def test_characters_that_no_longer_are_within_a_line_are_told() -> None:
    before = Code({"main.py": "a = 1  # as ever\u2028b = 2\x0cc = 3\r\n"})
    after = Code({"main.py": "a = 1  # as ever\nb = 2\nc = 3\n"})
    assert [one for one in review.diff(before, after)[3:] if one[0] in "+-"] == [
        "-a = 1  # as ever\u2028b = 2\x0cc = 3\r",
        "+a = 1  # as ever",
        "+b = 2",
        "+c = 3",
    ]


def test_files_that_would_take_too_long_to_compare_are_told_whole_or_by_their_digests() -> None:
    words = [f"a{number % 150}" for number in range(100_000)]
    before, after = "\n".join(words) + "\n", "\n".join(reversed(words)) + "\n"
    lines = review.diff(Code({"main.py": before}), Code({"main.py": after}))
    assert lines[:3] == ["--- a/main.py", "+++ b/main.py", "@@ -1,100000 +1,100000 @@"]
    assert [one[1:] for one in lines[3:] if one[0] == "-"] == words
    assert [one[1:] for one in lines[3:] if one[0] == "+"] == words[::-1]
    digests = [blake3(text.encode()).hexdigest() for text in (before, after)]
    assert review.diff(Code({"main.py": before}), Code({"main.py": after}), whole=False) == [
        f"changed: main.py (too long to compare by line): {len(before)} bytes, BLAKE3 {digests[0]} "
        f"-> {len(after)} bytes, BLAKE3 {digests[1]}"
    ]


def test_long_files_with_few_changes_are_compared_by_line() -> None:
    words = [f"a = {number}" for number in range(50_000)]
    changed = ["b = 0", *words[1:-1], "c = 0"]
    lines = review.diff(Code({"m.py": "\n".join(words)}), Code({"m.py": "\n".join(changed)}))
    assert [one for one in lines[2:] if one[0] in "+-"] == [
        *("-a = 0", "+b = 0"),
        *("-a = 49999", "+c = 0"),
    ]


# What may leave.


def test_the_gate_stops_what_may_not_leave_and_records_it(tmp_path: Path) -> None:
    audit = open_log(tmp_path / "audit", SECRET)
    gate, at = Gate(audit), Instance("s", "only", 0, 0)
    told = ResultWritten(at, "rows", Inline(b"1234"))
    assert gate.flaw(told, NOW) == ""  # nothing is limited
    gate.begins(at, Leaves((("total", "loss"),), largest=8, most=2, exchange=False))
    assert "'rows' is not among" in gate.flaw(told, NOW)
    total = ResultWritten(at, "total", Inline(b"1234"))
    assert gate.flaw(total, NOW) == ""
    assert "9 bytes" in gate.flaw(ResultWritten(at, "total", Inline(b"123456789")), NOW)
    assert gate.flaw(MetricsLogged(at, {"loss": 1.0}, None, NOW), NOW) == ""
    assert "2 values" in gate.flaw(total, NOW)
    assert "tell each other nothing" in gate.tells_others(at, NOW)
    assert "tell each other nothing" in gate.flaw(LockWanted(at, "Jane Doe"), NOW)
    gate.begins(at, Leaves((("total",),), most=3))  # the policy is another; what left has left
    assert gate.tells_others(at, NOW) == ""
    assert gate.flaw(total, NOW) == ""
    assert "3 values" in gate.flaw(total, NOW)
    ended = gate.output(TaskEnded(at, "FINISHED", NOW, output=Inline(b"x")), NOW)
    assert (ended.state, ended.output) == ("FAILED", None)
    gate.ended(at)
    assert gate.flaw(told, NOW) == gate.tells_others(at, NOW) == ""
    audit.close(NOW)
    acts = [record.act for _, record in read(tmp_path / "audit")]
    assert acts.count("value-stopped") == 7
