"""What a node keeps of an attempt that failed, beside what went wrong: how it ended, what it used
and might use, in what it ran, when it passed what, and where its threads stood.

The node's owner may hold parts of it back (`PARTS`), as he may parts of the error itself.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from manta.protocol.base import Message, Seconds
from manta.protocol.values import BlobRef

PARTS: Final = ("traceback", "lines", "exit", "usage", "image", "packages", "timeline", "stacks")
"""What an owner may hold back."""
MOST_STACKS: Final = 32 * 1024
"""Characters of the stacks."""


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """The most that an attempt's processes had, and might have: memory in bytes, processor time in
    seconds, processors in cores, and processes with their threads. None: it is not known, or
    nothing limits it."""

    memory: int | None = None
    memory_limit: int | None = None
    cpu: Seconds | None = None
    cores_limit: float | None = None
    processes: int | None = None
    processes_limit: int | None = None


class Moment(msgspec.Struct, frozen=True, array_like=True):
    """`what` happened: queued, begun, imported, set up, called, returned, ended. `at` is in seconds
    since the epoch, by the node's clock."""

    what: str
    at: Seconds


class Bundle(msgspec.Struct, frozen=True, omit_defaults=True):
    """`exit_code` is as `subprocess` has it, negative for a signal, and None where the process goes
    on or nobody knows. `packages` names a value: versions by names."""

    isolation: str = ""
    exit_code: int | None = None
    out_of_memory: bool = False
    """The kernel has killed a process of its for that."""
    usage: Usage = Usage()
    image: str = ""
    """The image that it ran in, with its digest."""
    python: str = ""
    packages: BlobRef | None = None
    timeline: tuple[Moment, ...] = ()
    stacks: Annotated[str, msgspec.Meta(max_length=MOST_STACKS)] = ""
    """Where its threads stood before it was ended."""
    redacted: tuple[str, ...] = ()
    """Those of PARTS that the node's owner holds back."""


class Stacks(Message, frozen=True):
    """Of an attempt that runs: the answer to `node.ReadStacks`."""

    text: Annotated[str, msgspec.Meta(max_length=MOST_STACKS)]
