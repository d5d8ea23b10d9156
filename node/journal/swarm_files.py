"""A swarm's two journals and their files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from manta.node.journal.outbox import Outbox
from manta.node.journal.record_file import RecordFile
from manta.node.journal.records import Begin, KeptEntry, KeptLine, Record, decode, encode
from manta.node.journal.swarm import Journal
from manta.protocol.node import LogLine

if TYPE_CHECKING:
    from manta.transports.blobs.sealing import Sealer

LINES_BOUND = 64 * 1024 * 1024
"""Bytes of log lines of one swarm that wait for the manager."""
LINES_AHEAD = 4 * 1024 * 1024
"""Bytes of them from which on tasks wait before they print more, while the manager takes some."""


class SwarmFiles:
    def __init__(self, folder: Path, swarm_id: str, sealer: Sealer | None = None) -> None:
        self._sealer = sealer
        name = swarm_id
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", swarm_id):
            name = hashlib.sha256(swarm_id.encode()).hexdigest()
        self.journal = Journal(Begin(swarm_id))
        self.file = RecordFile(folder / f"{name}.journal", decode, sealer)
        self.lines: Outbox[LogLine] = Outbox()
        self.lines_file = RecordFile(folder / f"{name}.lines", decode, sealer)
        self.lines_recovered = 0
        self.lines_dropped = 0
        self.recovered = 0
        """The number of the last entry that was in the file at the daemon's start, or that the
        manager had then."""

    def recover(self, journal: Journal, file: RecordFile[Record]) -> None:
        """What was found in the file."""
        self.journal, self.file = journal, file
        self.recovered = journal.entries.last

    def recover_lines(self, lines: Outbox[LogLine], file: RecordFile[Record]) -> None:
        self.lines, self.lines_file = lines, file
        lines.synced = self.lines_recovered = lines.last

    def anew(self, folder: Path) -> SwarmFiles:
        """For a manager that knows of none of the entries: only what goes on, and the lines."""
        self.journal.end()
        self.file.close()
        self.lines_file.close()
        new = SwarmFiles(folder, self.journal.swarm_id, self._sealer)
        new.journal = Journal(Begin(self.journal.swarm_id, 0, self.journal.open))
        for kept in self.lines:
            new.lines.append(kept.item, kept.size)
        new.lines.synced = new.lines.last
        return new

    def append_lines(self, lines: Iterable[LogLine]) -> list[bytes]:
        """Returns their records. Lines beyond LINES_BOUND are only counted."""
        records = []
        for line in lines:
            if self.lines.pending_bytes >= LINES_BOUND:
                self.lines_dropped += 1
                continue
            if self.lines_dropped:
                text = f"[{self.lines_dropped} lines lost: the manager was away too long]"
                records.append(self._append(LogLine(line.instance, line.at, "node", text)))
                self.lines_dropped = 0
            records.append(self._append(line))
        self.lines.synced = self.lines.last
        return records

    def _append(self, line: LogLine) -> bytes:
        record = encode(KeptLine(self.lines.last + 1, line))
        self.lines.append(line, len(record))
        return record

    def lines_are_ahead(self, now: float) -> bool:
        """Whether the manager takes lines, but not as fast as tasks print them."""
        return self.lines.pending_bytes >= LINES_AHEAD and self.lines.is_heard(now)

    @property
    def idle(self) -> bool:
        """Whether nothing is to be sent and no attempt is under way."""
        return not (len(self.journal.entries) or len(self.lines) or self.journal.open)

    def records(self) -> list[bytes]:
        kept = [encode(KeptEntry(k.number, k.item)) for k in self.journal.entries]
        return [encode(self.journal.begin()), *kept]

    def line_records(self) -> list[bytes]:
        kept = [encode(KeptLine(k.number, k.item)) for k in self.lines]
        return [encode(Begin(self.journal.swarm_id, self.lines.acknowledged)), *kept]
