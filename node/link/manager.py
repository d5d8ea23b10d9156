"""The node's connection to its manager: it enrols, registers and sends heartbeats, and carries
the journal and the reads of tasks.

The next registration repairs whatever is lost with a connection, or with this actor: it
brings everything that the node is to run, and how much of the journal the manager has. Reads
of tasks wait here while the manager is away, and until it has applied what the same attempt
wrote before them.
"""

from __future__ import annotations

import random
from concurrent.futures import Future
from functools import partial
from typing import Any, ClassVar

import msgspec

from manta.actors import (
    Actor,
    ActorError,
    ExitKind,
    ExitReason,
    MailboxPolicy,
    Ref,
    Refused,
    Timer,
)
from manta.audit.records import Head
from manta.console.exit_codes import Exit
from manta.node.link import sentences as link_sentences
from manta.node.link.held_results import HeldLink
from manta.node.link.journal_sender import JournalSender, SendJournal
from manta.node.link.log_heads import LogHeads
from manta.node.link.peer_directory import Disconnected
from manta.node.link.peer_hub import BulkAddress, bulk_address
from manta.node.link.probe import LinkProbe
from manta.node.link.reads import ManagerReads, Relay
from manta.node.link.self_description import SelfDescription
from manta.node.link.shown_status import BUSINESS_AS_USUAL, ShownStatus
from manta.node.link.turns import Turns
from manta.node.shared.addresses import PEER_DIRECTORY, PEER_HUB, PLANE, ROOT
from manta.node.shared.context import NodeContext
from manta.node.shared.messages import (
    AskGateway,
    AskManager,
    AwaitWrites,
    BlobMoved,
    FetchFailed,
    Leave,
    ReadNetworkQuality,
    Reconfigured,
    TroubleChanged,
)
from manta.node.state import Identity, hardware_id
from manta.protocol import enrolment
from manta.protocol import node as protocol
from manta.protocol.codes import Code
from manta.protocol.paths import GATEWAY, MANAGER_LINK
from manta.protocol.peers import FetchPeers, PeersChanged
from manta.protocol.roster import RosterTold, WantRoster
from manta.protocol.spread import BlobTold, FreeResults, PushResult, WantBlob
from manta.protocol.tree import ReadTree, tree_of
from manta.protocol.values import BlobRef
from manta.transports.errors import DownReason

ASK_TIMEOUT = 30.0
PORT_TIMEOUT = 5.0
STACKS_TIMEOUT = 8.0
"""Less than the manager waits for what it asks."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0


class _LinkState(msgspec.Struct, frozen=True):
    reason: DownReason | None


class _Beat(msgspec.Struct, frozen=True):
    registration: int


class _Begin(msgspec.Struct, frozen=True):
    """Enrol or register, if that connection is still the current one."""

    connection: int


class ManagerLink(Actor):
    accepts: ClassVar[Any] = protocol.ToNode
    mailbox: ClassVar[MailboxPolicy] = MailboxPolicy(bound=100_000)

    def __init__(self, context: NodeContext) -> None:
        self._context = context
        self._connection_count = 0
        self._registration = 0
        self._wrong_port: str | None = None
        """What is wrong with the port that was dialled; None until the manager was asked."""
        self._context.is_registered = False
        self._enrol_again = True
        self._former = ""
        """The id under which the manager no longer knows the node."""
        self._pause = FIRST_PAUSE
        self._interval = 3.0
        self._missed_beats = 0
        self._reads = ManagerReads(self, context.journals)
        self._sender = JournalSender(self, context.journals)
        self._heads = LogHeads(context.audit.log.key.public)
        self._held = HeldLink(self, context.held, context.journals, self._gave)
        self._spools = Turns()
        self._about = SelfDescription(self)
        self._probe = LinkProbe(self, self._heartbeat)
        self._begin_timer: Timer[Any] | None = None
        self._status = ShownStatus(self, context)

    def on_start(self) -> None:
        address = self._context.config.manager_address

        def on_state(reason: DownReason | None) -> None:
            self.notify(self.ref, _LinkState(reason))

        connection = self.system.dial(
            address,
            self._context.manager_key,
            on_state=on_state,
            published=(MANAGER_LINK,),
        )
        self._gateway: Ref = connection.ref(GATEWAY)
        self._sender.watch()
        self._status.say(
            "connecting", link_sentences.down(DownReason.CONNECTING, address, self._config)
        )

    def on_stop(self, reason: ExitReason) -> None:
        if reason.kind is ExitKind.CRASHED:
            return
        if self._context.is_registered:
            self._sender.send_last()
            self._sender.tell(protocol.Goodbye("the node's daemon stops"))
        if self._status.state != "refused":  # that stays to be read
            self._status.say("stopped", "The daemon was stopped.")

    @property
    def _config(self) -> str:
        return str(self._context.config.path)

    def receive(self, message: Any) -> Any:
        match message:
            case protocol.JournalAck():
                self._sender.acknowledged(message)
                self._reads.relay()
            case protocol.LogAck():
                self._sender.lines_acknowledged(message)
            case protocol.DesiredChanged():
                self.notify(ROOT, message)
            case PeersChanged() | RosterTold():
                self.notify(PEER_DIRECTORY, message)
            case AskGateway(request):
                self._ask_gateway(request)
            case SendJournal():
                self._sender.handle(message)
            case AskManager():
                self._reads.ask(message, self.defer())
            case AwaitWrites(instance):
                self._reads.settle(instance, self.defer())
            case Relay():
                self._reads.relay()
            case ReadNetworkQuality():
                if not self._context.is_registered:
                    return 0.0
                self._probe.read(self.defer())
            case BlobMoved(size, seconds):
                self._probe.window.moved(size, seconds)
            case _Beat(registration):
                if registration == self._registration and self._context.is_registered:
                    self._beat()
            case _LinkState(reason):
                self._link_moved(reason)
            case _Begin(connection):
                if connection == self._connection_count and not self._context.is_registered:
                    self._begin()
            case protocol.FetchDesired():
                self._fetch_desired(message)
            case protocol.ReadStacks():
                self._relay(self.system.ref(ROOT).ask_future(message, timeout=STACKS_TIMEOUT))
            case ReadTree(after):
                return tree_of(self.system.tree(), after)
            case protocol.StopNode():
                self._context.draining = True  # before a heartbeat can say otherwise
                self.notify(ROOT, message)
                return protocol.Ok()
            case PushResult():
                self._held.push(message, self.defer())
            case FreeResults():
                self._held.delete(message, self.defer())
            case Reconfigured():
                if self._context.is_registered:  # else it tells of what it offers when it is
                    self._register()
            case TroubleChanged():
                self._tell_trouble()
            case Leave():
                self._leave()
            case _:
                return super().receive(message)
        return None

    # --- up and down -------------------------------------------------------------------

    def _link_moved(self, reason: DownReason | None) -> None:
        self._connection_count += 1
        self._disconnected()
        self._sender.link_moved()
        if reason is None:
            self._pause = FIRST_PAUSE
            self._begin()
            return
        enrolled = self._context.identity is not None
        address = self._context.config.manager_address
        words = link_sentences.down(reason, address, self._config, enrolled=enrolled)
        self._status.say(str(reason), words)
        if reason is DownReason.WRONG_KEY and not enrolled:
            # Its token is of another manager: waiting won't heal it.
            self._context.finish(Exit.UNREACHABLE, words)

    def _disconnected(self) -> None:
        self._context.is_registered = False
        self._sender.gateway = None
        self.notify(PEER_DIRECTORY, Disconnected())
        self._reads.disconnected()
        self._probe.lost()

    def _begin(self) -> None:
        if self._wrong_port is None:
            self._look_at_the_port()
        elif self._context.identity is None:
            self._enrol()
        else:
            self._register()

    def _look_at_the_port(self) -> None:
        """Ask which port this is: a manager answers nodes at its port for users, too."""
        connection = self._connection_count

        def answered(standing: Any, error: BaseException | None) -> None:
            if connection != self._connection_count:
                return
            self._wrong_port = ""
            if error is None:
                self._wrong_port = link_sentences.at_the_wrong_port(standing, self._context.config)
            self._begin()

        self.pipe(self._gateway.ask_future(enrolment.Inquire(), timeout=PORT_TIMEOUT), answered)

    def _enrol(self) -> None:
        config = self._context.config
        mode = config.id_mode
        request = enrolment.Enroll(
            config.token,
            config.alias,
            mode,
            hardware_id(config.name) if mode == "hardware" else "",
        )
        self._ask(request, self._enrolled)

    def _enrolled(self, answer: enrolment.Enrolled) -> None:
        if self._former not in ("", answer.node_id):
            self._context.journals.begin_anew()
        self._remember(answer)
        self.log.info("enrolled as %s (%s)", answer.alias, answer.node_id)
        assert self._context.identity is not None
        self._context.audit.enrolled(self.clock.wall(), self._context.identity)
        self._register()

    def _remember(self, told: enrolment.Enrolled | protocol.Registered) -> None:
        key = self._context.manager_key
        identity = Identity(key, told.node_id, told.cluster_id, told.alias)
        if identity != self._context.identity:
            self._context.state.write_identity(identity)
            self._context.identity = identity

    def _register(self) -> None:
        """Ask siblings for the node's capabilities, then register with the manager."""
        connection = self._connection_count

        def found(capabilities: protocol.Capabilities | None) -> None:
            if connection != self._connection_count:
                return
            if capabilities is None:
                self._begin_later()
                return
            context = self._context
            socket = context.peer_socket
            request = protocol.Register(
                context.config.alias,
                capabilities,
                self._load_now(),
                context.draining,
                context.daemon,
                context.storage.trouble,
                context.journals.unacknowledged(),
                context.journals.all_acknowledged(),
                socket.addresses if socket is not None else (),
                context.blob_socket.port if context.blob_socket is not None else 0,
            )
            self._ask(request, partial(self._was_registered, capabilities))

        self._about.find(found)

    def _was_registered(self, told: protocol.Capabilities, answer: protocol.Registered) -> None:
        context = self._context
        self._about.heard(told)
        self._context.is_registered = True
        context.has_holds = answer.has_holds  # before anything is held
        self._sender.gateway = self._gateway
        self._registration += 1
        self._pause = FIRST_PAUSE
        self._interval = max(0.05, answer.heartbeat_interval)
        self._missed_beats = 0
        self._context.peers.links.registered()
        self._remember(answer)
        self._sender.registered(answer.acknowledged)
        self.notify(ROOT, answer)
        self.notify(PEER_DIRECTORY, answer)
        address = bulk_address(answer.bulk_address, context.config.manager_host)
        context.bulk_address = address
        context.has_rooms = answer.has_rooms
        context.has_spreads = answer.has_spreads
        context.has_audit = answer.has_audit
        self._heads.registered()
        self.notify(PEER_HUB, BulkAddress(address))
        connected = (
            f"Connected to the manager at {context.config.manager_address} as {answer.alias}."
        )
        if self._wrong_port:
            self.log.warning("%s", self._wrong_port)
            connected += f" {self._wrong_port}"
        self._status.say(BUSINESS_AS_USUAL, connected)
        # Spread: nodes that come back together must not beat together.
        self.after(random.uniform(0, self._interval), _Beat(self._registration))
        self._sender.send_due()
        self._reads.registered(self._gateway)

    def _ask(self, request: Any, then: Any) -> None:
        """Ask the manager something while registering."""
        connection = self._connection_count

        def answered(value: Any, error: BaseException | None) -> None:
            if connection != self._connection_count:
                return
            if isinstance(error, Refused):
                self._refused(request, error)
            elif isinstance(error, ActorError):
                self.log.warning("%s was not answered: %s", type(request).__name__, error)
                self._begin_later()
            elif error is not None:
                raise error
            else:
                then(value)

        self.pipe(self._gateway.ask_future(request, timeout=ASK_TIMEOUT), answered)

    def _refused(self, request: Any, error: Refused) -> None:
        unknown = error.code in (Code.NODE_REMOVED, Code.UNKNOWN_NODE, Code.NOT_SIGNED_IN)
        registering = isinstance(request, protocol.Register)
        if registering and unknown and self._context.config.token and self._enrol_again:
            self._enrol_again = False
            self._former = self._context.identity.node_id if self._context.identity else ""
            self._context.identity = None
            self._enrol()
            return
        if error.code in link_sentences.PERMANENT or (registering and unknown):
            self._status.say("refused", error.sentence)
            self._context.finish(link_sentences.exit_code(error.code), error.sentence)
        else:
            held = error.code == Code.NODE_HELD
            self._status.say(link_sentences.HELD if held else DownReason.BUSY.value, error.sentence)
            self._begin_later()

    def _begin_later(self) -> None:
        if self._begin_timer is not None:
            self._begin_timer.cancel()
        delay = self._pause * random.uniform(0.5, 1.0)
        self._begin_timer = self.after(delay, _Begin(self._connection_count))
        self._pause = min(LONGEST_PAUSE, self._pause * 2)

    # --- heartbeats and the desired state --------------------------------------------

    def _beat(self) -> None:
        registration, sent = self._registration, self.clock.now()
        self.after(self._interval, _Beat(registration))
        links = self._context.peers.links
        told, news = links.version, self._about.news
        self._about.look()

        def answered(reply: Any, error: BaseException | None) -> None:
            if registration != self._registration or not self._context.is_registered:
                return
            self._probe.took(sent, error)
            if error is None:
                self._missed_beats = 0
                links.heard(told)
                self._about.heard(news)
                self.notify(ROOT, reply)
                self.notify(PEER_DIRECTORY, reply)
                self.notify(PLANE, reply)
                self._status.notice(reply.notice)
                self._held.free(reply.over)
                self._status.say(BUSINESS_AS_USUAL, "", update=True)
                self._tell_log_head()
                return
            self.log.warning("a heartbeat was not answered: %s", error)
            self._missed_beats += 1
            if isinstance(error, Refused) or self._missed_beats >= 3:
                # It does not know us any more, or hangs: register again on this connection.
                self._disconnected()
                self._begin_later()

        self.pipe(self._heartbeat(max(1.0, 2 * self._interval)), answered)

    def _tell_trouble(self) -> None:
        """At once: what it cannot keep may be told next, and is not to be given to it again."""
        trouble = self._context.storage.trouble
        if trouble:
            self.log.error("the node %s: it takes no new work until it can", trouble)
        else:
            self.log.info("the node can keep what it is given again")
        if self._context.is_registered:
            self.pipe(self._heartbeat(max(1.0, 2 * self._interval)), lambda _, __: None)

    def _leave(self) -> None:
        self._context.draining = True
        if not self._context.is_registered:
            return
        reply = self.defer()
        self.pipe(self._heartbeat(ASK_TIMEOUT), lambda _, __: reply.set(None))

    def _load_now(self) -> protocol.Load:
        context = self._context
        return msgspec.structs.replace(
            context.load,
            tasks_running=context.tasks_running,
            tasks_queued=context.tasks_queued,
            gpu_room=context.gpu_room,
        )

    def _heartbeat(self, timeout: float) -> Future[Any]:
        context = self._context
        heartbeat = protocol.Heartbeat(
            context.desired_version,
            self._load_now(),
            context.draining,
            context.storage.trouble,
            context.journals.unacknowledged(),
            context.peers.links.news(),
            self._held.swarms(),
            self._spools.next(context.spools),
            self._about.news,
        )
        return self._gateway.ask_future(heartbeat, timeout=timeout)

    def _tell_log_head(self) -> None:
        audit = self._context.audit
        if not self._context.has_audit:
            return
        if (told := self._heads.due(audit.log.head, self.clock.now())) is None:
            return

        def answered(head: Any, error: BaseException | None) -> None:
            if error is not None:
                self.log.warning("the manager does not keep where the audit log ends: %s", error)
            else:
                kept = Head(head.number, head.digest)
                audit.keep_head(kept, head.key, self.clock.wall())

        self.pipe(self._gateway.ask_future(told, timeout=ASK_TIMEOUT), answered)

    def _gave(self, swarm_id: str, result: BlobRef) -> None:
        self._context.audit.gave_result(swarm_id, result, self.clock.wall())

    def _fetch_desired(self, request: protocol.FetchDesired) -> None:
        def answered(desired: Any, error: BaseException | None) -> None:
            if error is not None:
                self.log.warning("what to run could not be fetched: %s", error)
            self.notify(ROOT, FetchFailed() if error is not None else desired)

        self.pipe(self._gateway.ask_future(request, timeout=ASK_TIMEOUT), answered)

    def _ask_gateway(self, request: FetchPeers | WantRoster | WantBlob | BlobTold) -> None:
        """Raises Refused."""
        if not self._context.is_registered:
            raise Refused(Code.UNAVAILABLE, "The node is not registered with its manager.")
        self._relay(self._gateway.ask_future(request, timeout=ASK_TIMEOUT))

    def _relay(self, asked: Future[Any]) -> None:
        """Answers with what is answered."""
        reply = self.defer()

        def answered(answer: Any, error: BaseException | None) -> None:
            reply.set(answer) if error is None else reply.fail(error)

        self.pipe(asked, answered)
