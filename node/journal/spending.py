"""What a swarm's entries on this node take of quotas that are nearly used up. Pure.

With each acknowledgement the manager tells what it has counted, and of which of the node's entries;
those after them are counted here. An entry that goes beyond is refused to the task that wrote it,
before its value is copied or moved: elsewise the manager would fail the swarm for it. As long as
much is left, the manager tells of nothing, and nothing is counted.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from manta.console import text
from manta.node.errors import QuotaReached
from manta.node.journal.entries import WITH_A_VALUE, blob_of
from manta.node.journal.outbox import Numbered
from manta.protocol.allowance import Allowance, exceeded
from manta.protocol.node import JournalEntry, ResultWritten
from manta.protocol.pages import encoded

RESULTS, HISTORY, BLOBS = "results", "history-bytes", "blob-bytes"
"""The quotas that are counted here."""
REMEMBERED = 1000
"""Values that entries named lately: named again, they count no more."""


class Spending:
    def __init__(self) -> None:
        self._left: tuple[Allowance, ...] = ()
        self._since: dict[str, int] = {}
        self._blobs: OrderedDict[str, None] = OrderedDict()

    def told(
        self,
        left: tuple[Allowance, ...],
        counted: int,
        entries: Iterable[Numbered[JournalEntry]],
    ) -> None:
        """The manager has counted the entries up to `counted`; `entries`: all that are here."""
        self._left, self._since = left, {}
        named = set[str]()
        for kept in entries if left else ():
            if kept.number > counted:
                blob = blob_of(kept.item)
                is_new = blob is not None and blob.digest not in named
                named |= {blob.digest} if blob is not None else set()
                self._count(kept.item, kept.size, is_new=is_new)

    def wrote(self, entry: JournalEntry, size: int) -> None:
        """An entry of so many bytes was kept."""
        blob = blob_of(entry)
        is_new = blob is not None and blob.digest not in self._blobs
        if blob is not None:
            self._blobs[blob.digest] = None
            if len(self._blobs) > REMEMBERED:
                self._blobs.popitem(last=False)
        if self._left:
            self._count(entry, size, is_new=is_new)

    def check(self, entry: JournalEntry) -> None:
        """Raises QuotaReached if it is not to be kept."""
        if sentence := self.refusal(entry):
            raise QuotaReached(sentence)

    def refusal(self, entry: JournalEntry) -> str:
        """Why it is not to be kept; "" if it may be."""
        if not self._left or not isinstance(entry, WITH_A_VALUE):
            return ""
        blob = blob_of(entry)
        is_new = blob is not None and blob.digest not in self._blobs
        asked = _asks(entry, encoded(entry), is_new=is_new)
        for one in self._left:
            have, more = one.have + self._since.get(one.quota, 0), asked.get(one.quota, 0)
            if more and have + more > one.limit:
                numbers = (have, more, one.limit)
                shown = [text.size(n) if one.in_bytes else f"{n:,}" for n in numbers]
                return exceeded(one.quota, one.who, one.what, one.source, one.remedy, *shown)
        return ""

    def _count(self, entry: JournalEntry, size: int, *, is_new: bool) -> None:
        for quota, more in _asks(entry, size, is_new=is_new).items():
            self._since[quota] = self._since.get(quota, 0) + more


def _asks(entry: JournalEntry, size: int, *, is_new: bool) -> dict[str, int]:
    """`is_new`: the value that it names, if any, is counted with it."""
    blob = blob_of(entry)
    return {
        RESULTS: int(isinstance(entry, ResultWritten)),
        HISTORY: size,
        BLOBS: blob.size if blob is not None and is_new else 0,
    }
