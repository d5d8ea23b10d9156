"""Moves blobs between this node, its manager and the other nodes of its swarms.

The data plane starts at the first transfer. A blob that several ask for at a time moves once. From
SPREAD bytes on, the manager says whom to fetch it from (`manta.protocol.spread`), and what has come
is served on to those whom it named this node. A source that fails is left for another one, which
goes on where that one ended; the manager is the last. All of it is the bulk of
`manta.transports.bulk`, which nodes speak with their manager as well: blobs by their digests,
over CURVE, which libzmq's own threads seal and open.
"""

from __future__ import annotations

import contextlib
import logging
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import msgspec

from manta.actors import Actor, ExitReason, Refused, Reply
from manta.node.blobs.arriving import Arriving
from manta.node.link.blob_server import BlobOffers
from manta.node.link.fetching import Fetching, FetchKey
from manta.node.link.local_blobs import LocalBlobs, LocalFetches
from manta.node.link.node_depot import NodeDepot
from manta.node.link.peer_directory import TellHub
from manta.node.link.proofs import AGAIN, Proofs, ProveAgain
from manta.node.peers.book import PeersAnew
from manta.node.peers.directory import DirectoryChanged, DirectoryOver
from manta.node.shared.addresses import PEER_DIRECTORY
from manta.node.shared.context import NodeContext
from manta.node.shared.messages import AskGateway, BlobMoved
from manta.protocol.codes import Code
from manta.protocol.paths import MANAGER_LINK
from manta.protocol.peers import Peer
from manta.protocol.spread import SPREAD, BlobTold, WantBlob
from manta.protocol.values import BlobRef
from manta.transports.addresses import join_address, join_host
from manta.transports.bulk.options import BulkOptions
from manta.transports.errors import (
    BlobCorrupt,
    BlobMissing,
    BlobRefused,
    BlobTooLarge,
    BulkError,
    BulkTimeout,
    LocalTransportError,
    TransportError,
)

if TYPE_CHECKING:
    from manta.transports.blobs.interface import Source
    from manta.transports.bulk.curve import BulkPeer, CurveBulk

log = logging.getLogger(__name__)

TRANSFER_TIMEOUT = 900.0
"""Seconds; a transfer is resumed over reconnects until then, and sources are looked for as long as
more of a blob comes within it."""

BLOB_LOST = "blob-lost"
"""Code of a refusal: this node no longer has the blob that was to be pushed."""

BLOB_TOO_LARGE = "blob-too-large"
"""Code of a refusal: the manager will never take the blob."""

BLOB_REFUSED = "blob-refused"
"""Code of a refusal: there is no room for the blob where it was to go."""

MEASURED = 256 * 1024
"""Bytes from which on a transfer measures the link."""

NAMED = 20.0
"""Seconds in which the manager says whom to fetch from; it is fetched from itself after that."""

MOST_ADDRESSES = 3
"""Of another node, that are tried."""

LEAST, SLOWEST = 30.0, 1 << 20
"""Another node is left that needs more seconds than the first, and one for each so many bytes."""

FROM_NODES = BulkOptions(repeat_after=2.0, unlinked=2.0, silence=5.0, standstill=12.0)
"""Another node that does not answer is left for another source soon; one that has nothing to pass
on yet is waited for, since it may just be about to find itself a source."""


class Fetch(msgspec.Struct, frozen=True):
    """Answered when the blob is in the depot. With the swarm that names it, other nodes of that
    swarm may be asked for it, and be given it."""

    blob: BlobRef
    swarm_id: str = ""
    holder: str = ""
    """The node, by id, that says to hold it as the swarm's; "" if the manager says that it is."""


class Offer(msgspec.Struct, frozen=True):
    """Other nodes of the swarm may fetch this blob from here, and the manager is told so."""

    digest: str
    swarm_id: str


class Push(msgspec.Struct, frozen=True):
    """Answered when the manager holds the blob."""

    blob: BlobRef


class BulkAddress(msgspec.Struct, frozen=True):
    """Where the manager moves blobs, as the context has it from now on."""

    address: str


class _AskAgain(msgspec.Struct, frozen=True):
    key: FetchKey


class PeerHub(Actor):
    def __init__(self, context: NodeContext) -> None:
        self._context = context
        self._depot = NodeDepot(context.values, context.spool, context.held)
        self._offers = BlobOffers()
        self._bulk: CurveBulk[NodeDepot] | None = None
        self._local: LocalBlobs | None = None
        self._is_local = context.config.peers_links == "local"
        """Whether blobs are passed among this user's nodes on this machine."""
        self._here = LocalFetches(context.keys.public, context.values)
        self._address = ""
        self._peer: BulkPeer | None = None
        self._pushing: dict[Push, list[Reply]] = {}
        self._fetching: dict[FetchKey, Fetching] = {}
        self._proofs = Proofs(self, self._ask, self._is_proven)

    def on_start(self) -> None:
        self._connect(self._context.bulk_address)
        for swarm_id, digest in self._context.held.named():
            self._offers.offer(digest, swarm_id)
        self.notify(PEER_DIRECTORY, TellHub())

    def on_stop(self, reason: ExitReason) -> None:
        self._here.close()
        if self._local is not None:
            self._local.close()
        if self._bulk is not None:
            self._bulk.close()
        for fetching in self._fetching.values():
            fetching.arriving.discard()

    def receive(self, message: Any) -> Any:
        match message:
            case Offer(digest, swarm_id):
                self._offers.offer(digest, swarm_id)
                if self._context.has_spreads and self._context.is_registered:
                    self._ask(BlobTold(swarm_id, digest, held=True), lambda *_: None)
            case Fetch():
                self._get(message)
            case ProveAgain(question):
                self._proofs.request(question)
            case Push(blob):
                if blob.digest not in self._depot:
                    raise _lost(blob)
                self._push(message, self.defer())
            case BulkAddress(address):
                self._connect(address)
            case DirectoryChanged() | DirectoryOver() | PeersAnew():
                self._offers.told(message)
            case _AskAgain(key):
                if (fetching := self._fetching.get(key)) is not None:
                    self._find_source(fetching)
            case _:
                return super().receive(message)
        return None

    def _connect(self, address: str) -> None:
        if address == self._address:
            return
        self._address = address
        if self._peer is not None:
            self._peer.close()
            self._peer = None
        for push in list(self._pushing):
            self._start_push(push)
        for fetching in self._fetching.values():
            if fetching.from_manager:
                self._fetch_from_manager(fetching)

    def _moves(self) -> CurveBulk[NodeDepot]:
        if self._bulk is None:
            from manta.transports.bulk.curve import CurveBulk  # costs a thread

            self._bulk = bulk = CurveBulk(self._context.keys, self._depot)
            socket = self._context.blob_socket
            if socket is not None:
                at = join_address(socket.host, socket.port)
                offers = self._offers
                try:
                    bulk.listen(
                        at, offers.admission, offers.verdict, source=self._source, fd=socket.fd
                    )
                except TransportError as error:
                    self.log.error("other nodes cannot fetch blobs from this one: %s", error)
                if self._is_local:
                    self._listen_here()
        return self._bulk

    def _source(self, key: str, digest: str) -> Source:
        """Called on the bulk plane's thread. Raises BlobMissing."""
        arriving = self._offers.given(key, digest)
        if arriving is None or arriving.whole:
            return self._depot.source(digest)
        return arriving.source()

    def _listen_here(self) -> None:
        try:
            self._local = LocalBlobs(self._context.keys.public, self._depot, self._offers.given)
        except LocalTransportError as error:
            self.log.warning("nodes on this machine fetch blobs as others do: %s", error)

    def _manager(self) -> BulkPeer:
        if self._peer is None:
            self._peer = self._moves().dial(self._address, self._context.manager_key)
        return self._peer

    # --- to the manager --------------------------------------------------------------------

    def _push(self, push: Push, reply: Reply) -> None:
        waiting = self._pushing.setdefault(push, [])
        waiting.append(reply)
        if len(waiting) == 1 and self._address:
            self._start_push(push)

    def _start_push(self, push: Push) -> None:
        blob, address, began = push.blob, self._address, self.clock.now()
        future = self._manager().push(blob.digest, blob.size, timeout=TRANSFER_TIMEOUT)

        def ended(_: Any, error: BaseException | None) -> None:
            if error is not None and address != self._address:
                return  # started again with the manager's other address
            if isinstance(error, BlobCorrupt) and not self._depot.without_damaged(blob.digest):
                error = _lost(blob)
            if error is None:
                self._measure(blob.size, began)
            for reply in self._pushing.pop(push, ()):
                reply.fail(_refusal(blob, error, "pushed to")) if error else reply.set(None)

        self.pipe(future, ended)

    def _measure(self, size: int, began: float) -> None:
        if size >= MEASURED:
            self.notify(MANAGER_LINK, BlobMoved(size, self.clock.now() - began))

    # --- to this node -----------------------------------------------------------------------

    def _get(self, fetch: Fetch) -> None:
        blob, at, values = fetch.blob, fetch.swarm_id, self._context.values
        is_of_swarm = (
            not fetch.holder
            or self._offers.is_of(blob.digest, at)
            or self._context.held.has(at, blob.digest)
        )
        if not is_of_swarm and blob.digest in self._depot:
            self._proofs.want(at, blob, fetch.holder, self.defer())
        elif is_of_swarm and (blob.digest in values or self._take_held(blob)):
            self._is_proven(at, blob)
        else:
            self._fetch(fetch, self.defer())

    def _is_proven(self, swarm_id: str, blob: BlobRef) -> None:
        """What is here of the blob is the swarm's, and given to its nodes."""
        if swarm_id and blob.size >= SPREAD:
            self._offers.offer(blob.digest, swarm_id)

    def _take_held(self, blob: BlobRef) -> bool:
        """Whether it is a result that stays here."""
        held = self._context.held
        try:
            self._context.values.take_from(held.depot_of(blob.digest), blob.digest)
        except BulkError:  # from elsewhere, then
            return False
        return True

    def _fetch(self, fetch: Fetch, reply: Reply) -> None:
        blob, now = fetch.blob, self.clock.now()
        key = FetchKey(blob.digest, fetch.swarm_id if fetch.holder else "")
        fetching = self._fetching.get(key)
        if fetching is None:
            try:
                arriving = Arriving(
                    self._context.values, blob.digest, blob.size, self._moves().grown
                )
            except BulkError as error:
                reply.fail(_refusal(blob, error, "fetched from"))
                return
            whence = fetch.swarm_id, fetch.holder
            fetching = Fetching(blob, *whence, arriving, [], now + TRANSFER_TIMEOUT)
        fetching.replies.append(reply)
        if fetch.swarm_id and blob.size >= SPREAD:
            fetching.swarms[fetch.swarm_id] = None
            self._offers.offer(blob.digest, fetch.swarm_id, fetching.arriving)
        if key not in self._fetching:
            self._fetching[key] = fetching
            self._find_source(fetching)

    def _find_source(self, fetching: Fetching) -> None:
        context = self._context
        if fetching.is_late(self.clock.now(), TRANSFER_TIMEOUT):
            said = f"no source gave more of it within {TRANSFER_TIMEOUT:g} s"
            self._ended(fetching, BulkTimeout(f"{said}; read it again later"))
            return
        if not context.is_registered and fetching.holder:
            self.after(AGAIN, _AskAgain(fetching.key))
            return
        if not (fetching.may_spread and context.has_spreads and context.is_registered):
            self._fetch_from_manager(fetching)
            return

        def answered(found: Any, error: BaseException | None) -> None:
            if isinstance(error, Refused) and fetching.holder and error.code != Code.UNAVAILABLE:
                self._ended(fetching, error)
            elif error is not None and fetching.holder:
                self.after(AGAIN, _AskAgain(fetching.key))
            elif error is not None:  # as of a swarm whose directory this node is not in yet
                self.log.debug("whom to fetch %s from was not said: %s", fetching, error)
                self._fetch_from_manager(fetching)
            elif found.wait > 0:
                self.after(min(found.wait, AGAIN), _AskAgain(fetching.key))
            elif found.source is None:
                self._fetch_from_manager(fetching)
            elif not found.source.addresses:
                fetching.failed_at(found.source)
                self._find_source(fetching)
            else:
                self._fetch_from(fetching, found.source)

        self._ask(fetching.question(), answered)

    def _ask(self, request: WantBlob | BlobTold, then: Any) -> None:
        asked = self.system.ref(MANAGER_LINK).ask_future(AskGateway(request), timeout=NAMED)
        self.pipe(asked, then)

    def _fetch_from(self, fetching: Fetching, source: Peer) -> None:
        """Of a node on this machine it is passed, else moved."""
        if not self._is_local:
            self._move_from(fetching, source)
            return

        def passed(_: Any, error: BaseException | None) -> None:
            if error is None:
                error = self._came(fetching)
            if error is None:
                self._ended(fetching, None)
            elif isinstance(error, BlobCorrupt):
                self.log.warning("%s was passed with wrong bytes by %s", fetching, source.alias)
                fetching.failed_at(source)
                self._find_source(fetching)
            else:
                self.log.debug("%s is moved, and not passed: %s", fetching, error)
                self._move_from(fetching, source)

        self.pipe(self._here.fetch(source.key, fetching.blob), passed)

    def _came(self, fetching: Fetching) -> BulkError | None:
        """It was passed, and is pinned among the values; or why it cannot be had from there."""
        try:
            fetching.arriving.came()
        except BulkError as error:
            return error
        finally:
            with contextlib.suppress(BlobMissing):  # it was found damaged, and deleted
                self._context.values.unpin(fetching.blob.digest)
        return None

    def _move_from(self, fetching: Fetching, source: Peer, attempt: int = 0) -> None:
        blob, began_at = fetching.blob, fetching.arriving.written
        peer = self._moves().dial(source.addresses[attempt], source.key, options=FROM_NODES)
        patience = min(TRANSFER_TIMEOUT, LEAST + (blob.size - began_at) / SLOWEST)
        into = fetching.arriving
        future: Future[None] = peer.fetch(blob.digest, blob.size, timeout=patience, sink=into)

        def ended(_: Any, error: BaseException | None) -> None:
            peer.close()
            if fetching.arriving.written > began_at or isinstance(error, BlobCorrupt):
                fetching.gave[source.alias] = None
            if error is None or fetching.arriving.trouble is not None:
                self._ended(fetching, error)
                return
            is_silent = fetching.arriving.written == began_at and not isinstance(error, BlobCorrupt)
            if is_silent and attempt + 1 < min(len(source.addresses), MOST_ADDRESSES):
                self._move_from(fetching, source, attempt + 1)
                return
            said = "%s is fetched from another source than node %s: %s"
            self.log.warning(said, fetching, source.alias, error)
            self._again(fetching, error, source)

        self.pipe(future, ended)

    def _again(self, fetching: Fetching, error: BaseException, source: Peer) -> None:
        fetching.failed_at(source)
        if isinstance(error, BlobCorrupt) and not self._restarted(fetching):
            return
        self._find_source(fetching)

    def _restarted(self, fetching: Fetching) -> bool:
        """From the beginning: what came was wrong. False if that ended it."""
        assert self._bulk is not None
        names = ", ".join(fetching.gave)
        self.log.warning("%s arrived with wrong bytes, from %s", fetching, names)
        self._bulk.failed(fetching.blob.digest, BlobCorrupt("what was passed on was wrong"))
        try:
            fetching.restart()
        except BulkError as error:
            self._ended(fetching, error)
            return False
        return True

    def _fetch_from_manager(self, fetching: Fetching) -> None:
        fetching.from_manager = True
        if not self._address:
            return
        blob, address, began = fetching.blob, self._address, self.clock.now()
        into, had = fetching.arriving, fetching.arriving.written
        peer = self._manager()
        future = peer.fetch(blob.digest, blob.size, timeout=TRANSFER_TIMEOUT, sink=into)

        def ended(_: Any, error: BaseException | None) -> None:
            if error is not None and address != self._address:
                return  # started again with the manager's other address
            if isinstance(error, BlobCorrupt) and fetching.gave and self._restarted(fetching):
                self._fetch_from_manager(fetching)
                return
            if error is None:
                self._measure(blob.size - had, began)
            self._ended(fetching, error)

        self.pipe(future, ended)

    def _ended(self, fetching: Fetching, error: BaseException | None) -> None:
        digest, arriving = fetching.blob.digest, fetching.arriving
        if self._fetching.get(fetching.key) is not fetching:
            return
        del self._fetching[fetching.key]
        for swarm_id in fetching.swarms:
            if error is None:
                self._is_proven(swarm_id, fetching.blob)
            else:
                self._offers.withdraw(digest, swarm_id, arriving)
        arriving.discard()
        if error is not None and self._bulk is not None:
            self._bulk.failed(digest, BulkError("its source does not get it"))
        if fetching.asked:
            self._ask(BlobTold(fetching.swarm_id, digest, error is None), lambda *_: None)
        for reply in fetching.replies:
            if error is None:
                reply.set(None)
            else:
                reply.fail(_refusal(fetching.blob, error, "fetched from"))


def bulk_address(announced: str, host: str) -> str:
    """Replaces an announced wildcard address by the host that was dialled."""
    scheme, _, rest = announced.rpartition("://")
    name, _, port = rest.rpartition(":")
    if name in ("", "*", "0.0.0.0", "[::]"):
        return f"{scheme or 'tcp'}://{join_host(host, int(port))}"
    return announced


def _lost(blob: BlobRef) -> Refused:
    return Refused(BLOB_LOST, f"This node no longer has the blob {blob.digest[:12]}.")


def _refusal(blob: BlobRef, error: BaseException, way: str) -> BaseException:
    if not isinstance(error, TransportError):
        return error
    codes: dict[type[TransportError], str] = {
        BlobMissing: "blob-missing",
        BlobRefused: BLOB_REFUSED,
        BlobTooLarge: BLOB_TOO_LARGE,
        BlobCorrupt: "blob-corrupt",
    }
    return Refused(
        codes.get(type(error), "bulk"),
        f"A value of {blob.size} bytes ({blob.digest[:12]}) could not be {way} the manager: "
        f"{error}",
    )
