"""What a runtime and its worker agree on."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from manta.light.runtime.shared import Shared
    from manta.light.runtime.stacks import Stacks

BROKEN = 70
"""The exit code of a process that failed outside the user's code (EX_SOFTWARE of sysexits.h)."""


class Settings(NamedTuple):
    socket: str
    folder: str
    entry: str
    scratch: str
    shared: Shared
    stacks: Stacks
    is_confined: bool = False
    """The user's processes may signal each other and nobody else, their runtime neither."""


class Order(NamedTuple):
    """An attempt to run, with its connection."""

    message: dict[str, Any]
    ends: list[int]

    def close(self) -> None:
        for fd in self.ends:
            os.close(fd)
        self.ends.clear()
