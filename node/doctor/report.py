"""Findings, the lines of the doctor's report."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAULT = "fault"


@dataclass(frozen=True)
class Finding:
    check: str
    """The name of the check."""
    level: Level
    sentence: str
    remedy: str = ""
    """What to do about it; "" for nothing."""


def ok(check: str, sentence: str) -> Finding:
    return Finding(check, Level.OK, sentence)


def warning(check: str, sentence: str, remedy: str) -> Finding:
    return Finding(check, Level.WARNING, sentence, _capital(remedy))


def fault(check: str, sentence: str, remedy: str) -> Finding:
    return Finding(check, Level.FAULT, sentence, _capital(remedy))


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
