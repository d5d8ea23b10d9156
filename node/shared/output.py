"""What the code of attempts writes, on its way to the journal: an owner may hold it back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from manta.protocol.node import Instance, LogLine

if TYPE_CHECKING:
    from manta.node.journal.files import Journals
    from manta.node.policy.gate import Gate

Line = tuple[str, float, str]
"""Stream, seconds since the epoch, text."""
HELD_BACK = "[The owner of this node holds back what tasks write: lines are only counted.]"


class TaskOutput:
    """May be used from any thread. `wall` is in seconds since the epoch."""

    def __init__(self, journals: Journals, gate: Gate, wall: Callable[[], float]) -> None:
        self._journals = journals
        self._gate = gate
        self._wall = wall

    def keep(self, instance: Instance, lines: Sequence[Line]) -> None:
        """What an attempt wrote; of what is held back the user is told once."""
        if not self._gate.holds_lines(instance):
            self._journals.append_output(instance, lines)
        elif self._gate.withhold(instance, len(lines)):
            self.say(instance, HELD_BACK)

    def ended(self, instance: Instance) -> None:
        """Tells how much of an attempt was held back."""
        if count := self._gate.withheld(instance):
            self.say(instance, f"[lines and messages of progress that were held back: {count:,}]")

    def say(self, instance: Instance, text: str) -> None:
        """A line of Manta's own."""
        line = LogLine(instance, self._wall(), "node", text)
        self._journals.append_lines(instance.swarm_id, [line])
