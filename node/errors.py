"""Every error that this package raises, split by whose fault it is."""

from __future__ import annotations

from pathlib import Path


class NodeError(Exception):
    """Root of this package's errors; its text is one sentence for a person."""


class OperatorError(NodeError):
    """What the node's operator can put right."""


class VariableError(OperatorError):
    """A MANTA_NODE_* variable that cannot be."""


class ConfigError(OperatorError):
    """A configuration that cannot be used. Never quotes a secret."""

    def __init__(
        self, path: Path, sentence: str, *, line: int | None = None, column: int | None = None
    ) -> None:
        where = str(path)
        if line is not None:
            where += f", line {line}"
        if column is not None:
            where += f", column {column}"
        super().__init__(f"{where}: {sentence}")
        self.path = path
        self.line = line
        self.column = column


class IdentityError(OperatorError):
    """The node does not know its manager, or what it knows cannot be read."""


class StateInUse(OperatorError):
    """Another daemon has the state folder."""


class DatasetError(NodeError):
    """A dataset that cannot be given to a task."""


class PackageError(NodeError):
    """A module's package that cannot be unpacked: broken, or made to harm."""


class StorageError(NodeError):
    """The state folder cannot be written: the disk is full or read-only."""


class LaunchError(NodeError):
    """A runtime that cannot be started; the task's code is not to blame."""
