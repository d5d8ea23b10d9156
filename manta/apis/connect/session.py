"""One connection to one manager: requests, blobs, and the state of the link.

Answers are futures with the SDK's own errors, so that the synchronous and the asynchronous API
can each wait in their own way. Thread-safe.
"""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from typing import TYPE_CHECKING, Any

from manta.actors.errors import (
    ActorError,
    AnswerLost,
    AskTimeout,
    Refused,
    Unanswered,
    Unreachable,
)
from manta.apis import errors
from manta.apis.connect.spool import Spool
from manta.protocol.paths import GATEWAY
from manta.transports.errors import (
    BlobCorrupt,
    BlobMissing,
    BlobRefused,
    BulkError,
    DownReason,
    TransportError,
)
from manta.transports.frames import MAJOR, MINOR

if TYPE_CHECKING:
    from manta.actors.links import Connection
    from manta.actors.remote import RemoteRef
    from manta.actors.system import ActorSystem
    from manta.apis.connect.profiles import Target
    from manta.protocol.node import Message
    from manta.protocol.spec import SwarmSpec
    from manta.protocol.values import BlobRef
    from manta.transports.bulk.curve import BulkPeer, CurveBulk
    from manta.transports.codec.values import Encoded
    from manta.transports.security.keys import KeyPair

_HOPELESS = {
    DownReason.DENIED,
    DownReason.WRONG_KEY,
    DownReason.VERSION,
    DownReason.PROTOCOL,
}
"""States in which another attempt would not help."""
_ABSENT = {DownReason.UNREACHABLE, DownReason.UNKNOWN_HOST}
"""Nobody answers; a manager that was reachable before is waited for."""
FIRST_CONTACT = 20.0
"""Seconds to wait for a manager that accepts connections but says nothing: it may be starting."""


class NotSent(errors.ManagerUnreachable):
    """The request was not sent, so any request can safely be sent again."""


class Stalled(errors.TransferFailed):
    """A transfer heard nothing for too long; it can be begun again."""


class Session:
    """Opens on first use, which needs `target.server_key`."""

    def __init__(self, target: Target, keys: KeyPair, cluster: str | None = None) -> None:
        """`cluster` is where swarms are deployed that name none."""
        self.target = target
        self.cluster = cluster
        self._keys = keys
        self._lock = threading.RLock()
        self._system: ActorSystem | None = None
        self._connection: Connection | None = None
        self._gateway: RemoteRef | None = None
        self._bulk: CurveBulk[Spool] | None = None
        self._bulk_peer: BulkPeer | None = None
        self._spool = Spool()
        self._state: DownReason | None = DownReason.CONNECTING
        self._was_up = False
        self._waiting: dict[Future[None], threading.Timer] = {}
        self._closed = False
        self._pid = os.getpid()

    @property
    def state(self) -> DownReason | None:
        """None while the link is up, else why it is not."""
        return self._state

    def limit(self, timeout: float) -> float:
        """How many of these seconds `up` waits at most."""
        return timeout if self._was_up else min(timeout, FIRST_CONTACT)

    def up(self, timeout: float) -> Future[None]:
        """Completes once the link is up.

        Fails at once when another attempt would not help and, if the manager was never reached,
        when nothing answers or, after FIRST_CONTACT seconds, when what accepts sends nothing;
        otherwise with ManagerUnreachable after `timeout` seconds.
        """
        future: Future[None] = Future()
        self._check_process()
        with self._lock:
            self._open()
            if self._state is None:
                future.set_result(None)
            elif failure := self._failure(self._state):
                future.set_exception(failure)
            else:
                limit = max(0.0, self.limit(timeout))
                timer = threading.Timer(limit, self._give_up, [future])
                timer.daemon = True
                self._waiting[future] = timer
                timer.start()
        future.add_done_callback(self._no_longer_waits)
        return future

    def signed(self, spec: SwarmSpec) -> SwarmSpec:
        """The specification, signed by this user: nodes need not take the manager's word."""
        from manta.protocol.signed import sign

        return sign(spec, self._keys.secret, os.urandom(16).hex(), time.time())

    def ask(self, message: Message, timeout: float) -> Future[Any]:
        """Completes with the answer. Fails with NotSent, NoAnswer or RequestRefused."""
        self._check_process()
        with self._lock:
            self._open()
            assert self._gateway is not None
            asked = self._gateway.ask_future(message, timeout=timeout)
        return _translated(asked, lambda error: self._error(error, message, timeout))

    def push(self, address: str, ref: BlobRef, encoded: Encoded, timeout: float) -> Future[None]:
        """Sends a value to the manager, whose bulk plane is at `address`."""
        self._spool.offer(ref.digest, encoded)
        moved = self._peer(address).push(ref.digest, ref.size, timeout=timeout)
        moved.add_done_callback(lambda _: self._spool.withdraw(ref.digest, encoded))
        return _translated(moved, _transfer_error)

    def fetch(self, address: str, ref: BlobRef, timeout: float) -> Future[memoryview]:
        """Fetches a blob from the manager; the bytes are writable."""
        moved = self._peer(address).fetch(ref.digest, ref.size, timeout=timeout)
        return _translated(moved, _transfer_error, lambda _: self._spool.take(ref.digest))

    def close(self) -> None:
        """Closes the link. Requests that still wait fail with ApiClosed."""
        if os.getpid() != self._pid:
            return  # it still belongs to the parent process
        with self._lock:
            if self._closed:
                return
            self._closed = True
            waiting, self._waiting = self._waiting, {}
            connection, bulk, system = self._connection, self._bulk, self._system
        for future, timer in waiting.items():
            timer.cancel()
            _fail(future, _closed())
        if connection is not None:
            connection.close()
        if bulk is not None:
            bulk.close()
        if system is not None:
            system.stop()
        self._spool.close()

    def drop(self) -> None:
        """Closes what nobody uses any more, and warns if it was open.

        In a thread of its own: it may be called wherever Python collects garbage, also on a
        thread that closing waits for.
        """
        if self._connection is None or self._closed or os.getpid() != self._pid:
            return
        threading.Thread(target=self.close, name="manta-close", daemon=True).start()
        warnings.warn(
            f"An API object for {self.target.host}:{self.target.port} was dropped without "
            "close(): call it, or use the object in a `with` block.",
            ResourceWarning,
            stacklevel=2,
            source=self,
        )

    # --- inside ----------------------------------------------------------------------------

    def _check_process(self) -> None:
        """Refuses use after a fork, which has no I/O threads and may hold locks for ever."""
        if os.getpid() != self._pid:
            raise errors.ApiClosed(
                "This API object was made before this process was forked, and belongs to the "
                "parent process: make a new one here."
            )

    def _no_longer_waits(self, future: Future[None]) -> None:
        if future.cancelled():
            with self._lock:
                timer = self._waiting.pop(future, None)
            if timer is not None:
                timer.cancel()

    def _open(self) -> None:
        """Starts dialling. Called with the lock held."""
        if self._closed:
            raise _closed()
        if self._connection is not None:
            return
        key = self.target.server_key
        if key is None:
            raise errors.NotAuthenticated(
                f"Not signed in to {self.target.place}: sign in (`manta sign-in`), the first time "
                "with the manager's server key (`manta manager status` shows it there), or give "
                "a token; `manta up` starts a manager on this machine."
            )
        self._connection = self._dial(key)
        self._gateway = self._connection.ref(GATEWAY)

    def _dial(self, key: str) -> Connection:
        from manta.actors.system import ActorSystem
        from manta.transports.zeromq.transport import ZmqTransport

        self._system = ActorSystem("user", transport=ZmqTransport(self._keys))
        try:
            return self._system.dial(self.target.address, key, on_state=self._on_state)
        except TransportError as error:
            self._system.stop()
            self._system = None
            raise errors.ManagerUnreachable(f"{error}.") from error

    def _peer(self, address: str) -> BulkPeer:
        with self._lock:
            self._open()
            if self._bulk is None:
                from manta.transports.bulk.curve import CurveBulk

                assert self.target.server_key is not None
                self._bulk = CurveBulk(self._keys, self._spool)
                self._bulk_peer = self._bulk.dial(address, self.target.server_key)
            assert self._bulk_peer is not None
            return self._bulk_peer

    def _on_state(self, state: DownReason | None) -> None:
        """Called on the I/O thread."""
        with self._lock:
            self._state = state
            if state is None:
                self._was_up = True
                failure = None
            elif (failure := self._failure(state)) is None:
                return
            waiting, self._waiting = self._waiting, {}
        for future, timer in waiting.items():
            timer.cancel()
            if failure is None:
                _finish(future)
            else:
                _fail(future, failure)

    def _failure(self, state: DownReason) -> errors.ConnectionFailed | None:
        """Returns the error of a state in which waiting is pointless."""
        if state in _HOPELESS or (state in _ABSENT and not self._was_up):
            return self._down_error(state)
        return None

    def _give_up(self, future: Future[None]) -> None:
        with self._lock:
            self._waiting.pop(future, None)
            state = self._state
        if state is not None:
            _fail(future, self._down_error(state))

    def _down_error(self, state: DownReason) -> errors.ConnectionFailed:
        where = self.target.place
        match state:
            case DownReason.WRONG_KEY:
                return errors.WrongServerKey(
                    f"Whoever listens at {where} does not hold the manager's key that is expected "
                    "there (`manta config show --origin` says where it comes from): check host "
                    "and port or, if it is another manager or was set up again, sign in with its "
                    "server key."
                )
            case DownReason.DENIED:
                return errors.Denied(
                    f"The manager at {where} refused this machine's key: "
                    "it may have been revoked; sign in again."
                )
            case DownReason.BUSY:
                return errors.ManagerBusy(
                    f"The manager at {where} takes no new connections now: try again later."
                )
            case DownReason.VERSION:
                theirs = self._connection.link.peer_version if self._connection else ""
                both = f" ({theirs}, and this side {MAJOR}.{MINOR})" if theirs else ""
                return errors.VersionMismatch(
                    f"The manager at {where} speaks another major version of the protocol{both}: "
                    "update Manta here or there."
                )
            case DownReason.SILENT:
                return errors.ManagerUnreachable(
                    f"{where} accepts connections but says nothing, unlike a manager: check that "
                    "this is its port for users, and that the manager does not hang."
                )
            case DownReason.PROTOCOL:
                return errors.ProtocolViolation(
                    f"The manager at {where} and this process do not understand each other: "
                    "update both to the same version of Manta."
                )
            case DownReason.UNKNOWN_HOST:
                return errors.ManagerUnreachable(
                    f"The host name {self.target.host!r} cannot be resolved: correct it, or give "
                    "the manager's IP address."
                )
            case _:
                return errors.ManagerUnreachable(
                    f"No manager answers at {where} ({state}): start it with `manta manager "
                    "start`, or give its host and port."
                )

    def _error(self, error: BaseException, message: Message, timeout: float) -> BaseException:
        what = type(message).__name__
        match error:
            case Refused():
                return errors.refusal(error.code, error.sentence, error.data)
            case Unreachable() if self._closed:
                return _closed()
            case AnswerLost():
                return _unknown(f"The connection was lost before {what} was answered")
            case AskTimeout():
                return _unknown(f"The manager did not answer {what} within {timeout:g} s")
            case Unanswered():
                return _unknown(f"A part of the manager ended while it handled {what}")
            case Unreachable():
                return NotSent(f"{what} could not be sent: {error}.")
            case ActorError():
                return errors.ManagerFault(
                    f"The manager could not answer {what}: {error}. Its log says more.",
                    "unavailable",
                )
            case _:
                return error


def _transfer_error(error: BaseException) -> BaseException:
    if isinstance(error, BlobMissing | BlobCorrupt | BlobRefused):
        return errors.TransferFailed(str(error))
    if isinstance(error, BulkError):
        return Stalled(str(error))
    return error


def _unknown(what: str) -> errors.NoAnswer:
    return errors.NoAnswer(f"{what}: it may have been carried out, check before you repeat it.")


def _closed() -> errors.ApiClosed:
    return errors.ApiClosed("This API object was closed: make a new one.")


def _translated(
    source: Future[Any],
    translate: Callable[[BaseException], BaseException],
    convert: Callable[[Any], Any] | None = None,
) -> Future[Any]:
    """Returns a future that follows another; cancelling it cancels the other."""
    target: Future[Any] = Future()

    def follow(done: Future[Any]) -> None:
        if done.cancelled():
            target.cancel()
        elif (error := done.exception()) is not None:
            _fail(target, translate(error))
        else:
            _finish(target, done.result() if convert is None else convert(done.result()))

    def cancelled(done: Future[Any]) -> None:
        if done.cancelled():
            source.cancel()

    source.add_done_callback(follow)
    target.add_done_callback(cancelled)
    return target


def _finish(future: Future[Any], value: Any = None) -> None:
    try:
        future.set_result(value)
    except InvalidStateError:
        return  # nobody waits any more


def _fail(future: Future[Any], error: BaseException) -> None:
    try:
        future.set_exception(error)
    except InvalidStateError:
        return  # nobody waits any more
