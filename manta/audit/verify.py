"""Reads an audit log and says whether it is as it was written: what is wrong first, and where.

Whoever has the public key finds every change but two: an end that was cut together with a noted
head of that time, and a log that was made anew with the secret key. Heads that were kept elsewhere
(`anchors`) show both, for all that is before them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from manta.audit import folder as files
from manta.audit.keys import is_sealed
from manta.audit.records import (
    Block,
    Head,
    Record,
    Unreadable,
    decode,
    digest_of,
    id_of,
    may_be_torn,
)

MOST_FLAWS = 20
"""That are told; of more there are only that many."""


class What(StrEnum):
    """What is wrong with a record."""

    EDITED = "edited"
    MISSING = "missing"
    REORDERED = "reordered"
    REPEATED = "repeated"
    CUT = "cut"  # the end, or the beginning
    REPLACED = "replaced"
    OTHER_KEY = "other-key"


class Flaw(NamedTuple):
    file: str
    number: int
    """Of the first record that is concerned."""
    what: What
    sentence: str


class Anchor(NamedTuple):
    """A head that was kept elsewhere."""

    head: Head
    source: str
    """Where, for the sentence."""


@dataclass
class Verdict:
    folder: Path
    key: str
    """The public key that seals it now."""
    first: int = 0
    """The number of the first record that is there; 0 where there is none."""
    records: int = 0
    head: Head = field(default_factory=Head)
    """Where it ends."""
    intact: int = 0
    """All records up to this number are as they were written."""
    anchors: int = 0
    """How many were found in it."""
    flaws: list[Flaw] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read(
    folder: Path, unreadable: Callable[[Path], object] = lambda _: None
) -> Iterator[tuple[int, Record]]:
    """Yields the records of a log with their numbers, in their order, without a look at seals. Of
    a line that is no block `unreadable` is told; what a crash left of one is passed over. Raises
    OSError."""
    for path in files.segments(folder):
        for line in files.lines(path):
            try:
                block, _, _ = decode(line.removesuffix(b"\n"))
            except Unreadable:
                if line.endswith(b"\n") or not may_be_torn(line):
                    unreadable(path)
                continue
            yield from enumerate(block.records, block.first)


def verify(
    folder: Path, key: str, former: Sequence[str] = (), anchors: Iterable[Anchor] = ()
) -> Verdict:
    """`key` is the public key that seals the log now, `former` are those that did before. Raises
    OSError, also where there is no log."""
    return _Verification(folder, key, former, anchors).verdict()


class _Verification:
    def __init__(
        self, folder: Path, key: str, former: Sequence[str], anchors: Iterable[Anchor]
    ) -> None:
        self._found = Verdict(folder, key)
        self._trusted = {id_of(one): one for one in (*former, key)}
        self._anchors: dict[int, list[Anchor]] = {}
        for anchor in anchors:
            self._anchors.setdefault(anchor.head.number, []).append(anchor)
        self._removed: set[Head] = set()
        """Where the log says that what is before was removed."""
        self._numbers: set[int] = set()
        """First numbers of all blocks, wherever they are."""
        self._seen: set[int] = set()
        self._head = Head()
        self._knows_head = False
        """Whether what the next line has to follow is known."""
        self._is_edited = False
        """Whether the last line was: what follows it follows what it was."""
        self._begins = True
        """Whether the next line is the first of a segment."""

    def verdict(self) -> Verdict:
        found = self._found
        paths = files.segments(found.folder)
        noted = files.read_head(found.folder, self._trusted)
        has_head = (found.folder / files.HEAD).exists()
        if not paths and not has_head:
            raise FileNotFoundError(2, "There is no audit log", str(found.folder))
        for _, block in _blocks(paths):
            self._numbers.add(block.first)
            self._note_removals(block)
        noted_is_there = noted == Head()
        torn = False
        for path in paths:
            self._begins = True
            for line in files.lines(path):
                torn = not line.endswith(b"\n")
                if torn and path == paths[-1] and may_be_torn(line):
                    found.notes.append(
                        f"{path.name} ends with {len(line)} bytes of a record that was being "
                        "written when the process or the machine stopped; nobody was told that it "
                        "was recorded."
                    )
                    continue
                self._line(path, line.removesuffix(b"\n"), is_whole=not torn)
                noted_is_there |= self._head == noted
                if self._is_edited and noted is not None:
                    noted_is_there |= self._head.number == noted.number
        self._end(paths[-1] if paths else found.folder, noted, noted_is_there, has_head)
        self._look_for_anchors()
        found.head = self._head
        first = min((flaw.number for flaw in found.flaws), default=found.head.number + 1)
        found.intact = max(0, min(first - 1, found.head.number))
        return found

    def _note_removals(self, block: Block) -> None:
        for record in block.records:
            about = record.about
            if record.act == "records-removed" and not record.who:
                upto, digest = about.get("upto"), about.get("digest")
                if isinstance(upto, int) and isinstance(digest, str):
                    self._removed.add(Head(upto, digest))

    # --- one line -------------------------------------------------------------------------

    def _line(self, path: Path, line: bytes, *, is_whole: bool) -> None:
        after = self._head.number + 1
        try:
            block, seal, content = decode(line)
            if not is_whole:
                raise Unreadable("its end is missing")
        except Unreadable as error:
            self._flaw(
                path,
                after,
                What.EDITED,
                f"the line after record {after - 1} is not as it was written ({error})",
            )
            self._knows_head = False
            return
        head = Head(block.last, digest_of(line))
        self._look_at_place(path, block)
        if self._begins and path != files.segment_path(path.parent, block.first):
            sentence = f"the file begins with record {block.first}, and its name says another"
            self._flaw(path, block.first, What.REORDERED, sentence)
        self._begins = False
        public = self._trusted.get(block.key)
        self._is_edited = public is not None and not is_sealed(public, content, seal)
        if public is None:
            self._flaw(
                path, block.first, What.OTHER_KEY,
                f"records {block.first} to {block.last} are sealed with the key {block.key}..., "
                "which is not that of this log: if it was before, name the whole key with --key; "
                "else somebody else wrote them",
            )  # fmt: skip
        elif self._is_edited:
            self._flaw(
                path, block.first, What.EDITED,
                f"records {block.first} to {block.last} are not what was sealed",
            )  # fmt: skip
        for anchor in self._anchors.pop(block.last, []):
            self._compare(path, block, head, anchor)
        self._tell_of(path, block)
        self._found.first = self._found.first or block.first
        self._found.records += len(block.records)
        self._seen.add(block.first)
        self._head, self._knows_head = head, True

    def _look_at_place(self, path: Path, block: Block) -> None:
        """Whether it follows what is before it."""
        first, after = block.first, self._head.number + 1
        if not self._found.first and not self._found.flaws:
            before = Head(first - 1, block.previous)
            if before != Head() and before not in self._removed:
                self._flaw(
                    path, 1, What.CUT,
                    f"it begins with record {first}, and no record says that those before were "
                    "removed to make room",
                )  # fmt: skip
            return
        if first in self._seen:
            self._flaw(path, first, What.REPEATED, f"record {first} is there twice")
        elif first > after and self._knows_head:
            if after in self._numbers:
                sentence = f"record {first} comes before record {after}"
                self._flaw(path, after, What.REORDERED, sentence)
            else:
                sentence = f"records {after} to {first - 1} are missing"
                self._flaw(path, after, What.MISSING, sentence)
        elif first < after and self._knows_head:
            sentence = f"record {first} comes after record {after - 1}"
            self._flaw(path, first, What.REORDERED, sentence)
        elif self._knows_head and not self._is_edited and block.previous != self._head.digest:
            self._flaw(
                path, first, What.REPLACED,
                f"record {first} does not follow the record {first - 1} that is there, but another",
            )  # fmt: skip

    def _compare(self, path: Path, block: Block, head: Head, anchor: Anchor) -> None:
        if head.digest == anchor.head.digest:
            self._found.anchors += 1
        else:
            self._flaw(
                path, block.first, What.REPLACED,
                f"up to record {head.number} it is another log than {anchor.source} saw: it was "
                "made anew, or is that of a copy",
            )  # fmt: skip

    def _tell_of(self, path: Path, block: Block) -> None:
        """What the writer found of the log is wrong with it for good."""
        for number, record in enumerate(block.records, block.first):
            if record.who or record.act not in _FOUND:
                continue
            what, sentence = _FOUND[record.act]
            sentence = f"record {number} says: {sentence.format_map(_About(record.about))}"
            if what is None:
                self._found.notes.append(f"{sentence}.")
            else:
                self._flaw(path, number, what, sentence)

    # --- the end --------------------------------------------------------------------------

    def _end(self, last: Path, noted: Head | None, is_there: bool, has_head: bool) -> None:
        after = self._head.number + 1
        if noted is None:
            why = "is not what was sealed" if has_head else "is missing"
            self._flaw(
                self._found.folder / files.HEAD, after, What.EDITED if has_head else What.CUT,
                f"it {why}, so that records may be missing after {after - 1}",
            )  # fmt: skip
        elif noted.number >= after:
            sentence = f"the end is cut: records {after} to {noted.number} are missing"
            self._flaw(last, after, What.CUT, sentence)
        elif not is_there:
            self._flaw(
                last, noted.number, What.REPLACED,
                f"record {noted.number} is not the one that was noted in {files.HEAD}",
            )  # fmt: skip

    def _look_for_anchors(self) -> None:
        """Those that are not the end of any block that is there."""
        for number, anchors in sorted(self._anchors.items()):
            for anchor in anchors:
                if any(anchor.head.number <= removed.number for removed in self._removed) and (
                    number < self._found.first
                ):
                    continue  # the log has made room since
                if number > self._head.number:
                    after = self._head.number + 1
                    sentence = f"{anchor.source} saw record {number}: {after} to {number} are gone"
                    self._flaw(self._found.folder, after, What.CUT, sentence)
                else:
                    sentence = f"no block ends with record {number}, as {anchor.source} saw it"
                    self._flaw(self._found.folder, number, What.REPLACED, sentence)

    def _flaw(self, file: Path, number: int, what: What, sentence: str) -> None:
        if len(self._found.flaws) < MOST_FLAWS:
            self._found.flaws.append(Flaw(file.name, number, what, sentence))


class _About(dict[str, Any]):
    """What a record lacks is told as unknown."""

    def __missing__(self, key: str) -> str:
        return "?"


_FOUND: Mapping[str, tuple[What | None, str]] = {
    "log-damaged": (
        What.CUT,
        "the log was found with {found} records where {noted} had been written",
    ),
    "head-lost": (
        What.CUT,
        "head.json was missing or damaged, so that records may have been cut after {found}",
    ),
    "records-lost": (None, "{records} records were lost, as the disk took none for too long"),
    "line-torn": (None, "{bytes} bytes of a record that was being written at a crash were removed"),
    "key-changed": (None, "from here on the key {key} seals; before, {former}..."),
    "records-removed": (None, "all up to record {upto} were removed to make room"),
    "log-restored": (None, "the log was restored as of record {record}, from the backup {backup}"),
}


def _blocks(paths: Iterable[Path]) -> Iterator[tuple[Path, Block]]:
    for path in paths:
        for line in files.lines(path):
            try:
                yield path, decode(line.removesuffix(b"\n"))[0]
            except Unreadable:
                continue
