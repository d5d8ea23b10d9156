"""Calls that wait until the manager has applied what their attempts wrote before."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

from manta.actors import Reply
from manta.node.journal.swarm import Write
from manta.node.link.reads import ManagerReads
from manta.node.plane.collectives.settling import Settling
from manta.node.shared.messages import AskManager
from manta.protocol.base import Instance
from manta.protocol.node import ReadGlobal

AT, OTHER = Instance("s", "t", 0, 0, 0), Instance("s", "t", 1, 0, 0)


def test_of_an_attempt_it_is_asked_for_once_at_a_time() -> None:
    asked: list[Instance] = []
    settling = Settling(asked.append)
    assert settling.begin(AT) == 1
    assert settling.begin(OTHER) == 1
    assert asked == [AT, OTHER]
    assert [settling.begin(AT) for _ in range(1000)] == [2] * 1000  # it may have written since
    assert asked == [AT, OTHER]
    assert settling.settled(AT) == 1
    assert asked == [AT, OTHER, AT]
    assert settling.begin(AT) == 3
    assert settling.settled(AT) == 2
    assert settling.settled(AT) == 3
    assert settling.settled(AT) == 0
    assert asked == [AT, OTHER, AT, AT]


def test_of_an_attempt_that_is_over_nothing_is_kept() -> None:
    asked: list[Instance] = []
    settling = Settling(asked.append)
    settling.begin(AT)
    settling.begin(AT)
    settling.forget(AT)
    assert settling.settled(AT) == 0
    assert asked == [AT]
    assert not settling._rounds
    assert not settling._again


class Journals:
    """Of one swarm: how far it is acknowledged, and what attempts have written."""

    def __init__(self) -> None:
        self.upto = 0
        self.written: dict[Instance, int] = {}

    def is_acknowledged(self, swarm_id: str, write: Write) -> bool:
        return self.upto >= write.number

    def last_write(self, instance: Instance) -> Write:
        return Write(self.written.get(instance, 0))


def test_who_waits_for_writes_is_answered_when_the_manager_has_applied_them() -> None:
    journals = Journals()
    reads = ManagerReads(SimpleNamespace(), journals)  # type: ignore[arg-type]
    journals.written = {AT: 7, OTHER: 3}
    mine, others = Reply(), Reply()
    reads.settle(AT, mine)
    reads.settle(OTHER, others)
    for upto, answered in ((2, (False, False)), (3, (False, True)), (6, (False, True))):
        journals.upto = upto
        reads.relay()
        assert (mine.done, others.done) == answered
    journals.written[AT] = 9  # what it writes since does not count
    journals.upto = 7
    reads.relay()
    assert mine.done


def test_who_has_written_nothing_is_answered_at_once_though_the_manager_is_away() -> None:
    reads = ManagerReads(SimpleNamespace(), Journals())  # type: ignore[arg-type]
    reads.disconnected()
    reply = Reply()
    reads.settle(AT, reply)
    assert reply.done


def test_who_has_given_up_is_forgotten() -> None:
    journals = Journals()
    journals.written = {AT: 7}
    reads = ManagerReads(SimpleNamespace(), journals)  # type: ignore[arg-type]
    for _ in range(10):
        reply = Reply()
        reads.settle(AT, reply)
        reply.fail(TimeoutError())
    reads.relay()
    assert not reads._settling


def test_reads_wait_for_writes_as_before() -> None:
    journals = Journals()
    journals.written = {AT: 7}
    sent: list[Any] = []

    class Gateway:
        def ask_future(self, request: Any, timeout: float) -> Future[Any]:
            sent.append(request)
            return Future()

    actor = SimpleNamespace(pipe=lambda *_: None)
    reads = ManagerReads(actor, journals)  # type: ignore[arg-type]
    reads.registered(Gateway())  # type: ignore[arg-type]
    reads.ask(AskManager(ReadGlobal("s", "x"), AT), Reply())
    assert not sent
    journals.upto = 7
    reads.relay()
    assert sent == [ReadGlobal("s", "x")]
