"""Why an actor ended."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class ExitKind(StrEnum):
    """Why an actor is no more."""

    NORMAL = "normal"  # it was done
    SHUTDOWN = "shutdown"  # it was told to stop
    GAVE_UP = "gave-up"  # a supervisor whose children failed too often; a form of shutdown
    CRASHED = "crashed"  # it raised
    ABANDONED = "abandoned"  # it did not stop in time; its thread may still run
    UNKNOWN = "unknown"  # nobody lived there when the monitor was set
    DISCONNECTED = "disconnected"  # the link to its process went down: it may still live


class ExitReason(msgspec.Struct, frozen=True, eq=False):
    """Why an actor ended; `error` is there for crashes in this process only, and not compared."""

    kind: ExitKind
    sentence: str = ""
    error: BaseException | None = None

    @property
    def is_normal(self) -> bool:
        """True for what a transient child is not restarted after."""
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
    """The reason of an actor that raised `error`."""
    sentence = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return ExitReason(ExitKind.CRASHED, f"{where}{sentence}", error)


class ActorExit(BaseException):
    """Unwinds an actor that ends by itself; not an Exception, so that no handler swallows it."""

    def __init__(self, reason: ExitReason) -> None:
        super().__init__(str(reason))
        self.reason = reason
