"""What the processes of a runtime tell each other without a message, which would cost each attempt
time."""

from __future__ import annotations

import mmap

from manta.light.wire import MAX_END

_MAX_LEARNED = 256 * 1024  # bytes: what does not fit is not kept warm
_IMPORTS, _LIVES_ON, _DEAR_TOLD = 4, 5, 6
_SIZES = 8
_ENDING = 16
_END = 24
_LEARNED = _END + MAX_END


class Shared:
    """Memory that all processes of a runtime share: which process runs the attempt, what it does,
    how it ended, and what it has imported."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _LEARNED + _MAX_LEARNED)

    @property
    def attempt_pid(self) -> int:
        """The process of the attempt that runs, or whose object lives on; 0 where there is none."""
        return int.from_bytes(self._memory[:4], "little")

    @attempt_pid.setter
    def attempt_pid(self, pid: int) -> None:
        self._memory[:4] = pid.to_bytes(4, "little")

    @property
    def imports(self) -> bool:
        """Whether the attempt imports its module, or died while it did."""
        return bool(self._memory[_IMPORTS])

    @imports.setter
    def imports(self, value: bool) -> None:
        self._memory[_IMPORTS] = value

    @property
    def dear_told(self) -> bool:
        """Whether the log has said what importing the module costs."""
        return bool(self._memory[_DEAR_TOLD])

    @dear_told.setter
    def dear_told(self, value: bool) -> None:
        self._memory[_DEAR_TOLD] = value

    @property
    def lives_on(self) -> bool | None:
        """Whether the latest attempt's object lives on; None where that did not become known."""
        return (None, False, True)[self._memory[_LIVES_ON] % 3]

    @lives_on.setter
    def lives_on(self, value: bool | None) -> None:
        self._memory[_LIVES_ON] = (None, False, True).index(value)

    @property
    def ending_since(self) -> float | None:
        """Since when the attempt, which is over, does what is left to do; None where it does not.
        By `time.monotonic`, which is the same in all processes."""
        since = int.from_bytes(self._memory[_ENDING : _ENDING + 8], "little")
        return since / 1e9 if since else None

    @ending_since.setter
    def ending_since(self, at: float | None) -> None:
        self._memory[_ENDING : _ENDING + 8] = int((at or 0) * 1e9).to_bytes(8, "little")

    def leave(self, end: bytes) -> None:
        """Called in an attempt that is over: keeps how it ended."""
        self._put(_SIZES, _END, end)

    def take(self) -> bytes:
        """What an attempt has left, nothing where it died."""
        return self._take(_SIZES, _END, MAX_END)

    def teach(self, learned: bytes) -> None:
        """Called in an attempt: keeps what its template could have imported for it."""
        if len(learned) <= _MAX_LEARNED:
            self._put(_SIZES + 4, _LEARNED, learned)

    def learn(self) -> bytes:
        return self._take(_SIZES + 4, _LEARNED, _MAX_LEARNED)

    def _put(self, at: int, start: int, data: bytes) -> None:
        self._memory[start : start + len(data)] = data
        self._memory[at : at + 4] = len(data).to_bytes(4, "little")  # last: it may die before

    def _take(self, at: int, start: int, longest: int) -> bytes:
        size = int.from_bytes(self._memory[at : at + 4], "little")
        self._memory[at : at + 4] = bytes(4)
        return self._memory[start : start + min(size, longest)]
