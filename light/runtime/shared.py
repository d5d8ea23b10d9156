"""What the processes of a runtime tell each other without a message, which would cost each attempt
time."""

from __future__ import annotations

import mmap
import time

from manta.light.wire import MAX_END

_MAX_LEARNED = 256 * 1024  # bytes: what does not fit is not kept warm
_PID, _ORDERED, _TAKEN, _CANCELLED, _IMPORTS, _LIVES_ON, _DEAR_TOLD, _ENDING = range(8)
_END_SIZE, _LEARNED_SIZE = 8, 9
_MOMENTS = 10
PHASES = BEGUN, IMPORTED, SET_UP, CALLED, RETURNED = range(5)
"""What an attempt passes: it has begun, has imported its module, its object's setup() is over, its
code is called, and has returned."""
_END = (_MOMENTS + len(PHASES)) * 8
_LEARNED = _END + MAX_END


class Shared:
    """Memory that all processes of a runtime share: which process runs the attempt, what it does,
    how it ended, and what it has imported."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _LEARNED + _MAX_LEARNED)
        self._numbers = memoryview(self._memory)[:_END].cast("Q")

    @property
    def attempt_pid(self) -> int:
        """The process of the attempt that runs, or whose object lives on; 0 where there is none."""
        return self._numbers[_PID]

    @attempt_pid.setter
    def attempt_pid(self, pid: int) -> None:
        self._numbers[_PID] = pid

    @property
    def ordered(self) -> int:
        """The number of the latest order, which its runtime writes before it gives the order."""
        return self._numbers[_ORDERED]

    @ordered.setter
    def ordered(self, number: int) -> None:
        self._numbers[_ORDERED] = number

    @property
    def taken(self) -> int:
        """The number of the order that was taken and whose end has not been told; 0 for none. What
        takes it writes that before it reads the order: should it die, the end can be told."""
        return self._numbers[_TAKEN]

    @taken.setter
    def taken(self, number: int) -> None:
        self._numbers[_TAKEN] = number

    @property
    def cancelled(self) -> int:
        """The number of the latest order that is to end, which its runtime writes before it sends
        a signal: that may find nobody who has begun with the order."""
        return self._numbers[_CANCELLED]

    @cancelled.setter
    def cancelled(self, number: int) -> None:
        self._numbers[_CANCELLED] = number

    @property
    def imports(self) -> bool:
        """Whether the attempt imports its module, or died while it did."""
        return bool(self._numbers[_IMPORTS])

    @imports.setter
    def imports(self, value: bool) -> None:
        self._numbers[_IMPORTS] = value

    @property
    def dear_told(self) -> bool:
        """Whether the log has said what importing the module costs."""
        return bool(self._numbers[_DEAR_TOLD])

    @dear_told.setter
    def dear_told(self, value: bool) -> None:
        self._numbers[_DEAR_TOLD] = value

    @property
    def lives_on(self) -> bool | None:
        """Whether the latest attempt's object lives on; None where that did not become known."""
        return (None, False, True)[self._numbers[_LIVES_ON] % 3]

    @lives_on.setter
    def lives_on(self, value: bool | None) -> None:
        self._numbers[_LIVES_ON] = 0 if value is None else 1 + value

    @property
    def ending_since(self) -> float | None:
        """Since when the attempt, which is over, does what is left to do; None where it does not.
        By `time.monotonic`, which is the same in all processes."""
        since = self._numbers[_ENDING]
        return since / 1e9 if since else None

    @ending_since.setter
    def ending_since(self, at: float | None) -> None:
        self._numbers[_ENDING] = int((at or 0) * 1e9)

    def passed(self, phase: int) -> None:
        """Called in an attempt, which passes one of PHASES."""
        self._numbers[_MOMENTS + phase] = time.time_ns()

    @property
    def moments(self) -> list[int]:
        """When the attempt passed each of PHASES, in nanoseconds since the epoch; 0: it has not."""
        return list(self._numbers[_MOMENTS : _MOMENTS + len(PHASES)])

    def forget_moments(self) -> None:
        """Called before another attempt begins."""
        for phase in PHASES:
            self._numbers[_MOMENTS + phase] = 0

    def leave(self, end: bytes) -> None:
        """Called in an attempt that is over: keeps how it ended."""
        self._put(_END_SIZE, _END, end)

    def take(self) -> bytes:
        """What an attempt has left, nothing where it died."""
        return self._take(_END_SIZE, _END, MAX_END)

    def teach(self, learned: bytes) -> None:
        """Called in an attempt: keeps what its template could have imported for it."""
        if len(learned) <= _MAX_LEARNED:
            self._put(_LEARNED_SIZE, _LEARNED, learned)

    def learn(self) -> bytes:
        return self._take(_LEARNED_SIZE, _LEARNED, _MAX_LEARNED)

    def _put(self, at: int, start: int, data: bytes) -> None:
        self._memory[start : start + len(data)] = data
        self._numbers[at] = len(data)  # last: it may die before

    def _take(self, at: int, start: int, longest: int) -> bytes:
        size, self._numbers[at] = self._numbers[at], 0
        return self._memory[start : start + min(size, longest)]
