"""Heads of one log that others keep: in another log, of which somebody exports the records."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from manta.audit.records import Head, Record
from manta.audit.verify import Anchor

ACT = "log-head"
"""The act of a record that keeps the head of another log."""


def record_of(at: float, head: Head, public: str, **whose: str) -> Record:
    """The record by which one log keeps a head of another."""
    about = {**whose, "number": head.number, "digest": head.digest, "key": public}
    return Record(at, ACT, about=about)


def exported(file: Path) -> Iterator[tuple[str, Anchor]]:
    """Yields the heads in an export (JSON, one object a line), each with the public key of the log
    whose head it is. Raises OSError, ValueError."""
    with file.open(encoding="utf-8") as text:
        for number, line in enumerate(text, 1):
            try:
                found: Any = json.loads(line)
                if found["act"] != ACT:
                    continue
                about = found["about"]
                head = Head(int(about["number"]), str(about["digest"]))
                yield str(about["key"]), Anchor(head, f"record {found['number']} of {file}")
            except (ValueError, KeyError, TypeError, RecursionError):
                raise ValueError(
                    f"{file}, line {number}, is no record of an audit log: give what `audit "
                    "export` printed, one JSON object a line"
                ) from None
