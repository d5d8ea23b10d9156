"""Requests of a task that write wait here while the journal has too much to send.

| the request | while the manager is away | else |
|---|---|---|
| has a timeout | fails after that, as it does when its receiver is slow | the same |
| metrics, progress | is left out, and counted | waits sooner than others; fails after PATIENCE |
| any other | waits | fails after PATIENCE |

One that a signal took the task out of is not carried out any more. It takes replies as they are
and no clock, so that time is whatever a test says.
"""

from __future__ import annotations

import msgspec

from manta.node.task_server import requests as light

PATIENCE = 300.0
"""Seconds for which a manager that is there may take nothing of what was written."""
REPORTS = light.LogMetrics | light.Progress
"""What tasks only report: nothing that others do rests on it."""
_LATE = {light.Send: "ReceiverFull", light.Receive: "Timeout", light.Lock: "Timeout"}


class _Held(msgspec.Struct):
    request: light.Request
    since: float
    timeout: float | None
    deadline: float


class BackPressure:
    def __init__(self) -> None:
        self._held: list[_Held] = []
        self._left_out = 0

    def __len__(self) -> int:
        return len(self._held)

    @property
    def is_used(self) -> bool:
        """Whether anything waits, or is yet to be told."""
        return bool(self._held or self._left_out)

    def hold(self, request: light.Request, now: float) -> None:
        timeout = getattr(request.body, "timeout", None)
        self._held.append(_Held(request, now, timeout, now + (timeout or PATIENCE)))

    def look(
        self, crowded: str, reports_wait: str, now: float, *, away: bool
    ) -> list[light.Request]:
        """Returns those that may go on, and answers those that can wait no longer. `crowded` says
        why tasks may not write more for now, or nothing if they may; `reports_wait`, why they may
        not report more."""
        held, self._held = self._held, []
        going_on = []
        for one in held:
            reply, body = one.request.reply, one.request.body
            why = reports_wait if isinstance(body, REPORTS) else crowded
            if reply.abandoned:
                reply.set(None)
            elif not why:
                going_on.append(_with_the_rest(one, now))
            elif away and isinstance(body, REPORTS):
                self._left_out += 1
                reply.set(None)
            elif away and one.timeout is None:
                one.deadline = now + PATIENCE
                self._held.append(one)
            elif now < one.deadline:
                self._held.append(one)
            else:
                waited = PATIENCE if one.timeout is None else one.timeout
                kind = _LATE.get(type(body), "ResourceExhaustionError")
                reply.fail(kind, f"Waited {waited:g} s in vain: {why}.")
        return going_on

    def attempt_ended(self) -> None:
        for one in self._held:
            one.request.reply.fail("SwarmStopped", f"{one.request.instance} has ended.")
        self._held.clear()

    def left_out(self) -> str:
        """What was left out since this was asked before, as a line for the swarm's log."""
        count, self._left_out = self._left_out, 0
        if not count:
            return ""
        return f"[calls for metrics or progress left out: {count}; the manager was away too long]"


def _with_the_rest(one: _Held, now: float) -> light.Request:
    """With what is left of its timeout."""
    if one.timeout is None or now == one.since:
        return one.request
    body = msgspec.structs.replace(one.request.body, timeout=max(0.001, one.deadline - now))
    return msgspec.structs.replace(one.request, body=body)
