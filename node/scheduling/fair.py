"""Start-time fair queueing of tasks that wait for a node. Pure.

Goyal, Vin and Cheng, "Start-time Fair Queueing", SIGCOMM 1996: a flow's next task has a start tag,
the greater of the virtual time and the flow's last finish tag; the least start tag goes first and
is the virtual time from then on; a finish tag is the start tag and what the task took. How long a
task runs shows only at its end, and many run at a time. So what a flow has now comes first, as in
Ghodsi et al., "Dominant Resource Fairness", NSDI 2011: the part of the node that its tasks take of
whatever they take most of. Tags decide between flows that have equally much, and a task takes that
part of the node for as long as it runs.
"""

from __future__ import annotations

from dataclasses import dataclass

QUANTUM = 0.01
"""Seconds that a task takes at least, and is taken to run when it begins."""
MOST = 10_000
"""Flows that are remembered. Of more, those are forgotten that do not run and have taken least."""


@dataclass(slots=True)
class _Flow:
    running: float = 0.0
    finish: float = 0.0

    @property
    def runs(self) -> bool:
        return self.running > 1e-9  # sums of fractions leave something


class FairShares:
    """Of the flows of one level."""

    def __init__(self) -> None:
        self._flows: dict[str, _Flow] = {}
        self._virtual = 0.0

    def rank(self, flow: str) -> tuple[float, float]:
        """The least goes first."""
        one = self._flows.get(flow)
        if one is None:
            return 0.0, self._virtual
        return round(one.running, 9), max(self._virtual, one.finish)

    def began(self, flow: str, share: float) -> None:
        one = self._flows.setdefault(flow, _Flow())
        self._virtual = max(self._virtual, one.finish)
        one.finish = self._virtual + share * QUANTUM
        one.running += share

    def ended(self, flow: str, share: float, seconds: float) -> None:
        one = self._flows[flow]
        one.running -= share
        one.finish += share * max(0.0, seconds - QUANTUM)

        if len(self._flows) > MOST:
            idle = [(one.finish, flow) for flow, one in self._flows.items() if not one.runs]
            for _, flow in sorted(idle)[: MOST // 2]:
                del self._flows[flow]

    def forget(self, flow: str) -> None:
        """What it took no longer counts, unless it runs."""
        if (one := self._flows.get(flow)) is not None and not one.runs:
            del self._flows[flow]
