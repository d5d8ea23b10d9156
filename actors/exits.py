"""Why an actor ends."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class ExitKind(StrEnum):
    """How an actor ended, or why it can no longer be seen."""

    NORMAL = "normal"  # it had nothing left to do
    SHUTDOWN = "shutdown"  # it was told to stop
    GAVE_UP = "gave-up"  # a supervisor: its children failed too often
    CRASHED = "crashed"  # it raised
    ABANDONED = "abandoned"  # it did not stop in time; its thread may still run
    UNKNOWN = "unknown"  # nobody lived there when the monitor was set
    DISCONNECTED = "disconnected"  # the link to its process went down: it may still live


class ExitReason(msgspec.Struct, frozen=True, eq=False):
    """Why an actor ended. `error` is set for crashes in this process; comparisons ignore it."""

    kind: ExitKind
    sentence: str = ""
    error: BaseException | None = None

    @property
    def is_normal(self) -> bool:
        """Whether a transient child is left alone after this, instead of restarted."""
        return self.kind in (ExitKind.NORMAL, ExitKind.SHUTDOWN, ExitKind.GAVE_UP)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ExitReason):
            return NotImplemented
        return (self.kind, self.sentence) == (other.kind, other.sentence)

    def __hash__(self) -> int:
        return hash((self.kind, self.sentence))

    def __repr__(self) -> str:
        return f"ExitReason({self.kind!r}, {self.sentence!r})"

    def __str__(self) -> str:
        return f"{self.kind}: {self.sentence}" if self.sentence else str(self.kind)


NORMAL = ExitReason(ExitKind.NORMAL)
SHUTDOWN = ExitReason(ExitKind.SHUTDOWN)


def crashed(error: BaseException, where: str = "") -> ExitReason:
    """The reason for the end of an actor that raised `error`."""
    sentence = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return ExitReason(ExitKind.CRASHED, f"{where}{sentence}", error)


class ActorExit(BaseException):
    """Unwinds the stack of an actor that ends itself.

    It is not an Exception, so that `except Exception` in a handler lets it through.
    """

    def __init__(self, reason: ExitReason) -> None:
        super().__init__(str(reason))
        self.reason = reason
