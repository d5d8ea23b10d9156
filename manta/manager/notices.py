"""What keeps a running swarm waiting that is no part of its own state, in sentences for users.

Nodes that are silent or behind, a manager that has just returned or may be isolated, a disk that
is full: none of it is stored with the swarm. It is told with whatever is read of the swarm.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from manta.console.text import seconds
from manta.manager.views import Asked, Behind, ClusterView, Silence
from manta.protocol.names import listed
from manta.protocol.states import SwarmState
from manta.protocol.user import SwarmInfo

_RUNS = (SwarmState.ACTIVE, SwarmState.PAUSED)


class Notice(msgspec.Struct, frozen=True):
    key: str
    """The same for as long as the same thing is amiss."""
    sentence: str


def mark(notices: Iterable[Notice]) -> str:
    """What tells these notices from others, whatever time has passed; "" for none."""
    return "\n".join(notice.key for notice in notices)


def of_swarm(view: ClusterView, info: SwarmInfo, trouble: str, now: float) -> tuple[Notice, ...]:
    """`trouble` is what is wrong with the store, `now` in monotonic seconds."""
    if info.status not in _RUNS:
        return ()
    found: list[Notice] = []
    if trouble:
        found.append(
            Notice(trouble, f"What happens cannot be stored, so nothing goes on: {trouble}")
        )
    if view.notice:
        found.append(Notice(view.notice, view.notice))
    held = view.held.get(info.swarm_id, {}).copy()
    silences = {id_: silence for id_, silence in view.silences.items() if id_ in held}
    behind = view.behind.get(info.swarm_id, {})
    found += _returning(view.aliases, silences, behind)
    found += (
        _silent(view.aliases.get(id_, id_), silence, now)
        for id_, silence in silences.items()
        if silence.why != "awaited"
    )
    found += (
        _behind(view.aliases.get(id_, id_), mark, now)
        for id_, mark in behind.items()
        if not mark.returned and id_ not in silences
    )
    if queued := view.queued.get(info.swarm_id, ""):
        found.append(Notice(queued, queued))
    found += (_asked(one, now) for one in view.asked.get(info.swarm_id, ()))
    return tuple(found)


def is_complete(view: ClusterView, info: SwarmInfo) -> bool:
    """Whether what nodes had to report when they, or the manager, returned has arrived."""
    if info.status not in _RUNS:
        return True
    held = view.held.get(info.swarm_id)
    if held is None:  # its log is still being read
        return False
    silences = view.silences
    awaited = any(id_ in silences and silences[id_].why == "awaited" for id_ in held.copy())
    return not awaited and not any(
        one.returned for one in view.behind.get(info.swarm_id, {}).values()
    )


def shown(view: ClusterView, info: SwarmInfo, trouble: str, now: float) -> SwarmInfo:
    """What users read of the swarm: with these notices in its reason."""
    sentences = [notice.sentence for notice in of_swarm(view, info, trouble, now)]
    complete = is_complete(view, info)
    if not sentences and complete:
        return info
    own = info.reason.rstrip(".")
    reason = " ".join([*([f"{own}."] if own else []), *sentences])
    return msgspec.structs.replace(info, reason=reason, complete=complete)


def _returning(
    aliases: Mapping[str, str], silences: Mapping[str, Silence], behind: Mapping[str, Behind]
) -> list[Notice]:
    names = sorted(
        aliases.get(id_, id_)
        for id_ in {
            *(id_ for id_, silence in silences.items() if silence.why == "awaited"),
            *(id_ for id_, one in behind.items() if one.returned),
        }
    )
    if not names:
        return []
    nodes = "1 node" if len(names) == 1 else f"{len(names)} nodes"
    return [
        Notice(
            f"returned {' '.join(names)}",
            f"Still hearing from {nodes} ({listed(names)}) after an interruption: what is shown "
            "is not complete yet.",
        )
    ]


_HOW = {"silent": "", "unlinked": ", its connection is lost,", "stopped": ", it was stopped,"}


def _silent(alias: str, silence: Silence, now: float) -> Notice:
    since = max(0.0, now - silence.since)
    head = f"{alias} has been silent for {since:.0f} s{_HOW[silence.why]}"
    key = f"away {alias}"
    if silence.lost_at is None:
        return Notice(f"{key} long", f"{head} and is waited for.")
    left = max(0.0, silence.lost_at - now)
    return Notice(key, f"{head} and counts as lost in {left:.0f} s if it does not come back.")


def _asked(asked: Asked, now: float) -> Notice:
    wait = "waits" if asked.count == 1 else "wait"
    since = seconds(max(0.0, now - asked.since))
    return Notice(
        f"asked {asked.node} {asked.who}",
        f"{asked.who} {wait} for the owner of {asked.node} since {since}: they decide there with "
        "`manta_node approve`.",
    )


def _behind(alias: str, behind: Behind, now: float) -> Notice:
    waited = max(0.0, now - behind.since)
    return Notice(
        f"behind {alias}",
        f"{alias} is behind: what it had to report {waited:.0f} s ago has not all arrived.",
    )
