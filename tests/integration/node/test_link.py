"""A node's link against a manager that misbehaves."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

import pytest

from manta.actors import Actor, ActorSystem, ChildSpec, Refused, Reply, Supervisor
from manta.node.config import parse
from manta.node.journal import outbox
from manta.node.service import Node
from manta.node.shared.messages import AskManager
from manta.node.state import StateFolder
from manta.protocol import node as protocol
from manta.protocol.codes import Code
from manta.protocol.node import Instance
from manta.protocol.paths import GATEWAY, MANAGER_LINK
from manta.protocol.peers import FetchPeers, Peer, Peers
from manta.protocol.states import AttemptState
from manta.protocol.tree import ReadTree
from manta.protocol.values import BlobRef, Inline
from manta.testing import wait_until
from manta.transports.blobs.memory_depot import MemoryDepot
from manta.transports.bulk.curve import CurveBulk
from manta.transports.bulk.options import Verdict
from manta.transports.codec.values import encode
from manta.transports.security.admission import Admission
from manta.transports.security.keys import KeyPair
from manta.transports.zeromq.transport import ZmqTransport

SWARM = "s1"


class Gateway(Actor):
    """Answers as it is told, and remembers what it heard."""

    accepts: ClassVar[Any] = protocol.FromNode

    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    def receive(self, message: Any) -> Any:
        manager = self._manager
        manager.heard.append(message)
        origin = self.origin
        if isinstance(message, protocol.Register):
            assert origin is not None
            manager.node = origin.ref(MANAGER_LINK)
            manager.admission.allow(origin.peer_key)
        if type(message) is manager.holds:
            manager.held.append(self.defer())
            return None
        answer = manager.answers.get(type(message))
        return answer(message) if answer is not None else None


class Manager:
    def __init__(self, undo: ExitStack) -> None:
        self.heard: list[Any] = []
        self.holds: type | None = None
        """Messages that are answered by whoever sets what is then held."""
        self.held: list[Reply] = []
        self.node: Any = None
        self.desired = protocol.Desired(1)
        self.acknowledged: dict[str, int] = {}
        self.answers: dict[type, Callable[[Any], Any]] = {
            protocol.Register: self._registered,
            protocol.Heartbeat: lambda _: protocol.HeartbeatReply(self.desired.version),
            protocol.FetchDesired: lambda _: self.desired,
        }
        keys = KeyPair.generate()
        self.key = keys.public
        self.system = ActorSystem("manager", transport=ZmqTransport(keys))
        undo.callback(self.system.stop)
        self.depot = MemoryDepot(10_000_000)
        undo.callback(self.depot.close)
        bulk = CurveBulk(keys, self.depot)
        undo.callback(bulk.close)
        self.admission = admission = Admission(guests=True)
        self.bulk = bulk.listen("tcp://127.0.0.1:0", admission, lambda *_: Verdict.GRANTED)
        started = threading.Event()
        manager = self

        class Root(Supervisor):
            def children(self) -> list[ChildSpec]:
                return [ChildSpec("gateway", lambda: Gateway(manager))]

            def on_child_started(self, id: str, ref: Any) -> None:
                started.set()

        self.system.spawn(ChildSpec("manager", Root))
        assert started.wait(60)
        listener = self.system.listen("tcp://127.0.0.1:0", admission, published={GATEWAY})
        self.address = listener.address

    def _registered(self, message: protocol.Register) -> protocol.Registered:
        return protocol.Registered(
            "n1", "c1", message.alias, 0.1, self.bulk, self.desired, self.acknowledged
        )

    def heard_of(self, kind: type) -> list[Any]:
        return [message for message in self.heard if isinstance(message, kind)]


@pytest.fixture
def manager() -> Iterator[Manager]:
    with ExitStack() as undo:
        yield Manager(undo)


@pytest.fixture
def start(manager: Manager, tmp_path: Path) -> Iterator[Callable[[], Node]]:
    with ExitStack() as undo:

        def start_node() -> Node:
            state = StateFolder(tmp_path / "state")
            state.path.mkdir(mode=0o700)
            state.identity_file.write_text(json.dumps({"manager_key": manager.key}))
            port = manager.address.rpartition(":")[2]
            text = f"[network]\nmanager_host = '127.0.0.1'\nmanager_port = {port}\n"
            text += "[containers]\nallow_unsandboxed = true\n"
            config = parse(text, tmp_path / "node.toml", {})
            return undo.enter_context(
                Node(config, state.path, on_finish=lambda code, sentence: None)
            )

        yield start_node


def status(node: Node) -> str:
    found = node.context.state.read_status()
    return found.state if found else ""


def refuse(code: Code) -> Callable[[Any], Any]:
    def answer(_: Any) -> Any:
        raise Refused(code, "Not now.")

    return answer


def test_a_busy_manager_is_asked_again(manager: Manager, start) -> None:
    welcome = manager.answers[protocol.Register]
    manager.answers[protocol.Register] = refuse(Code.UNAVAILABLE)
    node = start()
    wait_until(lambda: status(node) == "busy")
    manager.answers[protocol.Register] = welcome
    wait_until(lambda: status(node) == "connected")


def test_a_manager_that_forgot_the_node_is_told_again(manager: Manager, start) -> None:
    start()
    wait_until(lambda: manager.heard_of(protocol.Heartbeat))
    welcome = manager.answers[protocol.Heartbeat]
    manager.answers[protocol.Heartbeat] = refuse(Code.UNAVAILABLE)
    wait_until(lambda: len(manager.heard_of(protocol.Register)) == 2)
    manager.answers[protocol.Heartbeat] = welcome
    count = len(manager.heard_of(protocol.Heartbeat))
    wait_until(lambda: len(manager.heard_of(protocol.Heartbeat)) > count + 1)


def test_a_gap_in_what_is_desired_is_fetched(manager: Manager, start) -> None:
    node = start()
    wait_until(lambda: status(node) == "connected")
    manager.desired = protocol.Desired(7)
    wait_until(lambda: node.context.desired_version == 7)
    assert manager.heard_of(protocol.FetchDesired)
    manager.node.tell(protocol.DesiredChanged(9))
    manager.desired = protocol.Desired(9)
    wait_until(lambda: node.context.desired_version == 9)


def test_a_directory_is_asked_for_until_it_is_given(manager: Manager, start) -> None:
    """Whatever becomes of a question: it is refused, or lost with the link."""
    manager.answers[protocol.Heartbeat] = lambda _: protocol.HeartbeatReply(1, directories={"s": 3})
    manager.answers[FetchPeers] = refuse(Code.UNAVAILABLE)
    node = start()
    wait_until(lambda: len(manager.heard_of(FetchPeers)) > 1)
    link = node.system.find(MANAGER_LINK)
    manager.holds = FetchPeers
    wait_until(lambda: manager.held)
    manager.holds = None  # the next one, which comes with the next link, is answered
    registered = len(manager.heard_of(protocol.Register))
    manager.node._peer.link.close()
    wait_until(lambda: len(manager.heard_of(protocol.Register)) > registered)
    peer = Peer("n2", "node-2", "key", ("tcp://127.0.0.1:7",))
    manager.answers[FetchPeers] = lambda asked: Peers(asked.swarm_id, "", 3, (peer,))
    wait_until(lambda: node.context.peers.directories.peer("s", "n2") == peer)
    assert node.system.find(MANAGER_LINK).address == link.address


def test_a_lost_blob_is_pushed_again_before_its_entry(manager: Manager, start) -> None:
    node = start()
    wait_until(lambda: status(node) == "connected")
    data = encode(b"x" * 200_000).to_bytes()
    instance = Instance(SWARM, "task", 0, 0)
    blob = BlobRef(node.context.values.put(data), len(data))
    node.context.journals.append(protocol.ResultWritten(instance, "tag", blob), node.context.values)
    wait_until(lambda: manager.heard_of(protocol.JournalBatch))
    assert blob.digest in manager.depot
    manager.depot.delete(blob.digest)
    manager.node.tell(protocol.JournalAck(SWARM, 0, (blob,)))
    wait_until(lambda: len(manager.heard_of(protocol.JournalBatch)) == 2)
    assert blob.digest in manager.depot
    assert blob.digest in node.context.spool
    manager.node.tell(protocol.JournalAck(SWARM, 1))
    wait_until(lambda: blob.digest not in node.context.spool)


def test_what_nobody_acknowledges_is_sent_again(manager: Manager, start, monkeypatch) -> None:
    monkeypatch.setattr(outbox, "RESEND_AFTER", 0.2)
    node = start()
    wait_until(lambda: status(node) == "connected")
    instance = Instance(SWARM, "task", 0, 0)
    ended = protocol.TaskEnded(instance, AttemptState.FINISHED, 1.0)
    node.context.journals.append(ended)
    wait_until(lambda: len(manager.heard_of(protocol.JournalBatch)) >= 3)
    assert {batch.first for batch in manager.heard_of(protocol.JournalBatch)} == {1}
    manager.node.tell(protocol.JournalAck(SWARM, 1))
    wait_until(lambda: not node.context.journals.unacknowledged_ends())


def ask_for_global(node: Node, attempt: int = 0) -> Future[Any]:
    read = AskManager(protocol.ReadGlobal(SWARM, "tag"), Instance(SWARM, "task", 0, attempt))
    return node.system.ref(MANAGER_LINK).ask_future(read, timeout=10)


def test_reads_of_a_global_share_a_fetch_and_see_what_was_written_before_them(
    manager: Manager, start
) -> None:
    node = start()
    wait_until(lambda: status(node) == "connected")
    manager.holds = protocol.ReadGlobal
    first = ask_for_global(node)
    wait_until(lambda: manager.held)
    manager.holds = None
    others = [ask_for_global(node, attempt) for attempt in range(1, 9)]
    node.system.ref(MANAGER_LINK).ask(ReadTree(), timeout=60)  # the link has taken all of them
    manager.held[0].set(protocol.GlobalValue(Inline(b"written before")))
    manager.answers[protocol.ReadGlobal] = lambda _: protocol.GlobalValue(Inline(b"between"))
    assert first.result().value == Inline(b"written before")
    assert {other.result().value for other in others} == {Inline(b"between")}
    assert len(manager.heard_of(protocol.ReadGlobal)) == 2


def test_a_read_of_a_global_waits_for_what_its_own_attempt_wrote(manager: Manager, start) -> None:
    node = start()
    wait_until(lambda: status(node) == "connected")
    manager.answers[protocol.ReadGlobal] = lambda _: protocol.GlobalValue(Inline(b"old"))
    written = protocol.GlobalWritten(Instance(SWARM, "task", 0, 0), "tag", Inline(b"new"))
    node.context.journals.append(written)
    own, another = ask_for_global(node), ask_for_global(node, attempt=1)
    assert another.result().value == Inline(b"old")
    assert not own.done()
    manager.answers[protocol.ReadGlobal] = lambda _: protocol.GlobalValue(Inline(b"new"))
    manager.node.tell(protocol.JournalAck(SWARM, 1))
    assert own.result().value == Inline(b"new")


def test_a_fetch_that_a_manager_forgot_holds_up_no_later_read(manager: Manager, start) -> None:
    node = start()
    wait_until(lambda: status(node) == "connected")
    manager.holds = protocol.ReadGlobal
    first = ask_for_global(node)
    wait_until(lambda: manager.held)
    manager.holds = None
    manager.answers[protocol.ReadGlobal] = lambda _: protocol.GlobalValue(Inline(b"x"))
    welcome = manager.answers[protocol.Heartbeat]
    manager.answers[protocol.Heartbeat] = refuse(Code.UNAVAILABLE)  # it knows the node no more
    wait_until(lambda: len(manager.heard_of(protocol.Register)) > 1)
    manager.answers[protocol.Heartbeat] = welcome
    assert ask_for_global(node, attempt=1).result().value == Inline(b"x")
    assert not first.done()


def test_goodbye(manager: Manager, start) -> None:
    node = start()
    wait_until(lambda: status(node) == "connected")
    node.stop()
    wait_until(lambda: manager.heard_of(protocol.Goodbye))
