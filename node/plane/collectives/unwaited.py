"""Calls in which a member only gives, and goes on: what it has not been told of them. Pure."""

from __future__ import annotations

from collections.abc import Callable

Member = tuple[int, str, int]
"""Era, task and rank."""


class Unwaited:
    def __init__(self) -> None:
        self._failed: dict[Member, tuple[int, str, str]] = {}
        """The number and failure of a call that the member did not wait in."""
        self._passed: dict[Member, tuple[int, str]] = {}
        """Number and words of the last call, without words if the member waited in it."""

    def before(self, member: Member, number: int) -> str:
        """The words of the call before this one, if the member did not wait in it."""
        before, words = self._passed.get(member, (number, ""))
        return words if before < number else ""  # else it is of an attempt before

    def called(self, member: Member, number: int, words: str) -> None:
        self._passed[member] = number, words

    def was_told(self, member: Member) -> None:
        """That its last call has failed."""
        self._passed.pop(member, None)

    def failed(self, member: Member, number: int, error: str, sentence: str) -> None:
        self._failed[member] = number, error, sentence

    def take(self, member: Member, number: int) -> tuple[str, str] | None:
        """The failure of a call before this one, of which the member is told now."""
        before, error, sentence = self._failed.get(member, (number, "", ""))
        if before >= number:
            return None
        del self._failed[member]
        return error, sentence

    def keep_only(self, which: Callable[[Member], bool]) -> None:
        """The others are not here any more."""
        self._failed = {at: one for at, one in self._failed.items() if which(at)}
        self._passed = {at: one for at, one in self._passed.items() if which(at)}

    def clear(self) -> None:
        self._failed.clear()
        self._passed.clear()
