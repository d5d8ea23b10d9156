"""Every error that this package raises, split by whose fault it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


class NodeError(Exception):
    """Root of this package's errors; its text is one sentence for a person."""


class OperatorError(NodeError):
    """What the node's operator can put right."""


class VariableError(OperatorError):
    """A MANTA_NODE_* variable that cannot be."""


@dataclass(frozen=True)
class Flaw:
    """One thing that is wrong with a configuration. Never quotes a secret."""

    wrong: str
    """What is wrong with what, without a full stop."""
    remedy: str
    where: tuple[str, ...] = ()
    """Table and key; () for the file as a whole."""
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        return f"{self.wrong}; {self.remedy}" + "." * (not self.remedy.endswith("?"))


class ConfigError(OperatorError):
    """A configuration that cannot be used: a line for each flaw."""

    def __init__(self, path: Path, *flaws: Flaw) -> None:
        super().__init__("\n".join(f"{_place(path, flaw)}: {flaw}" for flaw in flaws))
        self.path = path
        self.flaws = flaws


class NoConfig(ConfigError):
    """There is no such configuration."""


class UnknownName(OperatorError):
    """A node, or a cluster of nodes, that is neither configured nor was ever started here."""


def _place(path: Path, flaw: Flaw) -> str:
    line = f", line {flaw.line}" if flaw.line is not None else ""
    return f"{path}{line}" + (f", column {flaw.column}" if flaw.column is not None else "")


class IdentityError(OperatorError):
    """The node does not know its manager, or what it knows cannot be read."""


class TokenError(IdentityError):
    """A token that is needed and is not there, or does not serve."""


class StateInUse(OperatorError):
    """Another daemon has the state folder."""


class PackageError(NodeError):
    """A module's package that cannot be unpacked: broken, or made to harm."""


class StorageError(NodeError):
    """The state folder cannot be written: the disk is full or read-only."""


class QuotaReached(NodeError):
    """A task is refused what it wants to keep: there is a bound, and this is beyond it."""


class LaunchError(NodeError):
    """A runtime that cannot be started; the task's code is not to blame."""


class DaemonEnded(OperatorError):
    """A daemon that ended, or said nothing after it was launched; `code` is its exit code."""

    def __init__(self, sentence: str, code: int) -> None:
        super().__init__(sentence)
        self.code = code


class ImageMissing(NodeError):
    """An image that is neither on the node nor to be had."""


class EngineError(LaunchError):
    """The container engine does not answer, or refuses."""


class RequirementsError(NodeError):
    """What a module requires and can't have here: it does not resolve, or the owner allows none."""


class WayOutRefused(NodeError):
    """A connection that a task asks for, and the owner does not allow, or its level can't give."""
