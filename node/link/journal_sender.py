"""Sends the journal to the manager: synced, in windows, and again until it is acknowledged.

An entry that names a blob waits until that has been pushed. What is lost with a connection
is sent again after the next registration, which says what the manager holds.
"""

from __future__ import annotations

from enum import Enum
from functools import partial
from typing import Any

import msgspec

from manta.actors import Actor, Ref, Refused, Timer
from manta.node.journal.files import Journals
from manta.node.link.peer_hub import BLOB_LOST, BLOB_REFUSED, BLOB_TOO_LARGE, Push
from manta.node.shared.addresses import PEER_HUB
from manta.protocol import node as protocol
from manta.protocol.paths import MANAGER_LINK
from manta.protocol.values import BlobRef


class Why(Enum):
    GROWN = "the journal has something to send"
    FLUSH = "what lingered is due"
    RESEND = "an acknowledgement is overdue"
    REST = "an acknowledgement has made room"


class SendJournal(msgspec.Struct, frozen=True):
    """To the link itself."""

    why: Why


class JournalSender:
    def __init__(self, actor: Actor, journals: Journals) -> None:
        self.gateway: Ref | None = None
        """None while the node is not registered."""
        self._actor = actor
        self._journals = journals
        self._connections = 0
        self._pushing: set[str] = set()
        self._refused: set[str] = set()
        """Blobs of which was told that there is no room for them."""
        self._flush_timer: Timer[Any] | None = None
        self._resend_timer: Timer[Any] | None = None
        self._sends_rest = False
        """Whether a message that says so is in the mailbox."""

    def watch(self) -> None:
        self._journals.on_grown(partial(self._actor.notify, MANAGER_LINK, SendJournal(Why.GROWN)))

    def link_moved(self) -> None:
        """Pushes over the former connection have ended, or will."""
        self._connections += 1
        self._pushing.clear()
        self._refused.clear()

    def registered(self, acknowledged: dict[str, int]) -> None:
        self._journals.registered(acknowledged)
        self._journals.send_again()

    def handle(self, message: SendJournal) -> None:
        match message.why:
            case Why.GROWN:
                self._grown()
            case Why.FLUSH:
                self._flush_timer = None
                self.send_due()
            case Why.REST:
                self._sends_rest = False
                if self._journals.unsent:
                    self.send_due()
            case Why.RESEND:
                self._resend_timer = None
                self._journals.send_overdue_again()
                self.send_due()

    def acknowledged(self, ack: protocol.JournalAck) -> None:
        self._journals.acknowledge(ack)
        self._send_rest()

    def lines_acknowledged(self, ack: protocol.LogAck) -> None:
        self._journals.acknowledge_lines(ack)
        self._send_rest()

    def send_last(self) -> None:
        """Sync what was appended, then send what is due, once: the link ends."""
        self._journals.sync()
        for message in self._journals.due():
            if not self.tell(message):
                break

    def send_due(self) -> None:
        """Sync what was appended, then send what is due."""
        if self.gateway is None:
            return
        self._journals.sync()
        self._push_blobs()
        for message in self._journals.due():
            if not self.tell(message):
                break  # sent again after the time-out or the next registration
        at = self._journals.resend_at()
        if at is not None and self._resend_timer is None:
            delay = max(0.01, at - self._actor.clock.now())
            self._resend_timer = self._actor.after(delay, SendJournal(Why.RESEND))

    def tell(self, message: Any) -> bool:
        return self.gateway is not None and self._actor.notify(self.gateway, message)

    def _grown(self) -> None:
        if self.gateway is None:
            return
        self._push_blobs()
        due = self._journals.due_at
        if due is None:
            return
        delay = due - self._actor.clock.now()
        if self._flush_timer is not None:
            if self._flush_timer.deadline <= due:
                return
            self._flush_timer.cancel()
            self._flush_timer = None
        if delay <= 0:
            self.send_due()
        else:
            self._flush_timer = self._actor.after(delay, SendJournal(Why.FLUSH))

    def _send_rest(self) -> None:
        """Send what the window or a missing blob held back, and whatever lingers with it: once for
        all acknowledgements that have come by now, and behind what else has."""
        if self._journals.unsent and not self._sends_rest:
            self._sends_rest = self._actor.notify(MANAGER_LINK, SendJournal(Why.REST))

    def _push_blobs(self) -> None:
        for blob in self._journals.blobs_to_push():
            if blob.digest not in self._pushing:
                self._pushing.add(blob.digest)
                self._push(blob)

    def _push(self, blob: BlobRef) -> None:
        connection = self._connections

        def ended(_: Any, error: BaseException | None) -> None:
            if error is None:
                self._journals.pushed(blob.digest)
            elif isinstance(error, Refused) and error.code in (BLOB_LOST, BLOB_TOO_LARGE):
                refused = error.sentence if error.code == BLOB_TOO_LARGE else ""
                self._journals.blob_lost(blob.digest, self._actor.clock.wall(), refused)
            else:
                self._actor.log.warning("a value is pushed again in a second: %s", error)
                if isinstance(error, Refused) and error.code == BLOB_REFUSED:
                    self._tell_refused(blob.digest, error.sentence)
                if connection == self._connections:
                    self._pushing.discard(blob.digest)
                    self._actor.after(1.0, SendJournal(Why.GROWN))
                return
            self._refused.discard(blob.digest)
            if connection == self._connections:
                self._pushing.discard(blob.digest)
                self.send_due()

        future = self._actor.system.ref(PEER_HUB).ask_future(Push(blob), timeout=3600.0)
        self._actor.pipe(future, ended)

    def _tell_refused(self, digest: str, sentence: str) -> None:
        """Once, in the log of whoever waits for it: all that they wrote later waits as well."""
        if digest in self._refused:
            return
        self._refused.add(digest)
        at, text = self._actor.clock.wall(), f"[{sentence} It is tried again each second.]"
        for instance in self._journals.writers(digest):
            line = protocol.LogLine(instance, at, "node", text)
            self._journals.append_lines(instance.swarm_id, [line])
