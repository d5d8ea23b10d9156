"""The ZAP handler (RFC 27): answers, for one zmq context, who may connect.

Without a handler CURVE admits anybody or nobody, so this thread must not die:
every exception is caught, and every `PROBE_INTERVAL` seconds the handler proves itself
by answering a request of its own.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

import zmq
from zmq.utils import z85

from manta.transports.errors import LocalTransportError
from manta.transports.jobs import JobQueue
from manta.transports.security.admission import Admission, Decision
from manta.transports.security.routing_ids import new_routing_id

ENDPOINT = "inproc://zeromq.zap.01"
PROBE_INTERVAL = 5.0  # seconds
_HEALTHY_FOR = 3 * PROBE_INTERVAL
# libzmq asks, and then reads the routing id that the peer chose, which the answer replaces: one
# that came before that would not. Without the wait three in ten came before.
_WAIT = 0.002  # seconds
_BATCH = 256  # requests that wait together
_VERSION = b"1.0"
_PROBE_DOMAIN = "manta.probe"

_log = logging.getLogger(__name__)


def identity(routing_id: bytes) -> bytes:
    """Metadata of an answer: libzmq puts it in place of the routing id that the peer chose."""
    return b"\x08Identity" + len(routing_id).to_bytes(4, "big") + routing_id


def answer(request: Sequence[bytes], domains: Mapping[str, Admission]) -> list[bytes]:
    """The ZAP reply to a ZAP request. Pure but for the limits of handshakes, and the routing id.

    300 means "cannot decide now", after which the peer asks again; 400 means "denied".
    The User-Id of an admitted peer is its public key in Z85; its routing id is a new one.
    """
    request_id = request[1] if len(request) > 1 else b""
    status, text, user_id = b"400", b"", ""
    if len(request) < 6 or request[0] != _VERSION:
        text = b"not a request of ZAP 1.0"
    elif request[5] != b"CURVE" or len(request) != 7 or len(request[6]) != 32:
        text = b"CURVE with one key is the only mechanism here"
    else:
        domain = request[2].decode("utf-8", "replace")
        key = z85.encode(request[6]).decode("ascii")
        admission = domains.get(domain)
        if admission is None:
            status, text = b"300", b"this listener is opening or closing"
        else:
            decision = admission.decide(key, request[3].decode("ascii", "replace"))
            if decision is Decision.ALLOW:
                status, text, user_id = b"200", b"OK", key
            elif decision is Decision.BUSY:
                status, text = b"300", b"too many new peers, ask again"
            else:
                text = b"this key is not admitted"
    metadata = identity(new_routing_id()) if user_id else b""
    return [_VERSION, request_id, status, text, user_id.encode("ascii"), metadata]


class ZapServer:
    """The handler of one context. Start it before any socket is bound."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self._context = context
        self._changing = threading.Lock()
        self._thread: threading.Thread | None = None
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self.proved_at = float("-inf")  # by time.monotonic: when it last answered a probe
        self.restarts = 0  # after failures that should not happen
        # Nobody holds this key, so the probe's domain admits no peer.
        self._probe_key = os.urandom(32)
        self._domains: dict[str, Admission] = {
            _PROBE_DOMAIN: Admission([z85.encode(self._probe_key).decode("ascii")])
        }

    def start(self) -> None:
        """Return once it answers. Raises LocalTransportError if the context has a handler."""
        if self._thread is not None:
            raise LocalTransportError("this ZAP handler was started before: make a new one")
        self._jobs = JobQueue()
        thread = threading.Thread(target=self._run, name="manta-zap", daemon=True)
        thread.start()
        self._thread = thread  # only now: a signal may raise before, and `stop` joins
        self._started.wait()
        if self._failure is not None:
            thread.join()
            raise LocalTransportError(
                "the zmq context has a ZAP handler already: use that one, or another context"
            ) from self._failure

    def stop(self) -> None:
        """End the thread; needed before the context can be terminated. Idempotent."""
        if self._thread is not None:
            self._jobs.stop()
            self._thread.join()

    def register(self, domain: str, admission: Admission) -> None:
        """Answer for a domain, of which each listener has its own. Raises LocalTransportError."""
        with self._changing:
            if not domain or domain in self._domains:
                raise LocalTransportError(f"the ZAP domain {domain!r} is empty or taken already")
            self._domains = {**self._domains, domain: admission}

    def unregister(self, domain: str) -> None:
        with self._changing:
            self._domains = {k: v for k, v in self._domains.items() if k != domain}

    def serves(self, domain: str) -> bool:
        """Would a peer of this domain be answered now?"""
        return domain in self._domains and self.healthy

    @property
    def healthy(self) -> bool:
        """Did it answer a probe recently?"""
        alive = self._thread is not None and not self._jobs.stopped
        return alive and time.monotonic() - self.proved_at < _HEALTHY_FOR

    def _run(self) -> None:
        while not self._jobs.stopped:
            try:
                self._serve()
            except zmq.ContextTerminated:
                break
            except BaseException as error:  # without it, nobody could connect, silently
                if not self._started.is_set():
                    self._failure = error
                    self._started.set()
                    break
                self.restarts += 1
                _log.exception("the ZAP handler failed and starts again")
                time.sleep(0.05)  # no busy loop, should it fail at once again
        self._jobs.stop()
        self._jobs.close()

    def _serve(self) -> None:
        handler = self._context.socket(zmq.ROUTER)
        prober = self._context.socket(zmq.DEALER)
        try:
            poller = zmq.Poller()
            poller.register(self._jobs.fd, zmq.POLLIN)
            for socket in (handler, prober):
                socket.linger = 0
                poller.register(socket, zmq.POLLIN)
            handler.bind(ENDPOINT)
            prober.connect(ENDPOINT)
            numbers = itertools.count()
            probe = b""
            next_probe = time.monotonic()
            while not self._jobs.stopped:
                now = time.monotonic()
                if now >= next_probe:
                    next_probe = now + PROBE_INTERVAL
                    probe = b"probe-%d" % next(numbers)
                    domain = _PROBE_DOMAIN.encode()
                    prober.send_multipart(
                        [b"", _VERSION, probe, domain, b"", b"", b"CURVE", self._probe_key],
                        zmq.NOBLOCK,
                    )
                ready = dict(poller.poll(max(0, int((next_probe - now) * 1000))))
                if handler in ready:
                    requests = self._requests(handler)
                    time.sleep(_WAIT)
                    for frames in requests:
                        self._answer(handler, frames)
                if prober in ready:
                    reply = prober.recv_multipart(zmq.NOBLOCK)
                    if len(reply) > 3 and reply[2] == probe and reply[3] == b"200":
                        self.proved_at = time.monotonic()
                        self._started.set()
        finally:
            with suppress(zmq.ZMQError):  # it never was bound
                handler.unbind(ENDPOINT)  # closing alone would free the name some time later
            for socket in (handler, prober):
                socket.close()

    def _requests(self, handler: zmq.Socket[bytes]) -> list[list[bytes]]:
        requests: list[list[bytes]] = []
        with suppress(zmq.Again):
            while len(requests) < _BATCH:
                requests.append(handler.recv_multipart(zmq.NOBLOCK))
        return requests

    def _answer(self, handler: zmq.Socket[bytes], frames: list[bytes]) -> None:
        body = frames.index(b"") + 1 if b"" in frames[:2] else 1
        request = frames[body:]
        try:
            reply = answer(request, self._domains)
        except Exception:
            _log.exception("could not decide on a peer; it is asked to try again")
            request_id = request[1] if len(request) > 1 else b""
            reply = [_VERSION, request_id, b"300", b"the decision failed, ask again", b"", b""]
        handler.send_multipart(frames[:body] + reply, zmq.NOBLOCK)
