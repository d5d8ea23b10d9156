"""Collectives through the manager: each instance contributes, and collects what others did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from manta.light.collectives.calls import (
    ALIVE,
    AUTO,
    check_parts,
    enough,
    forms_of,
    named,
    next_number,
)
from manta.light.context import MISSING, Part, current
from manta.light.errors import CollectiveError, PeerLost, RequestFailed
from manta.light.reduction import reduce


def all_reduce(
    value: Any, op: str, dtype: str | None, goes_on: bool, private: bool, timeout: float
) -> Any:
    if private:
        raise RequestFailed(
            "all_reduce(private=True) needs tasks that exchange directly: here the manager, and "
            "rank 0, are given all values."
        )
    brief = current().brief
    number = next_number(2)
    kind = named("all_reduce", op=op, dtype=dtype, on_peer_lost="continue" if goes_on else None)
    _contribute(number, kind, value, to=None if goes_on else 0)
    if brief.index:  # rank 0 reduces for all
        try:
            (part,) = _collect(number + 1, kind, timeout, ranks=(0,))
        except PeerLost:
            if not goes_on:
                raise
        else:
            if isinstance(part.value, str):
                raise CollectiveError(part.value)
            return part.value
    # A lost peer does not come back: what there is to reduce is the same for all.
    parts = _collect(number, kind, timeout, on_loss="continue" if goes_on else "raise")
    try:
        outcome = reduce([(part.rank, part.value) for part in parts], op, dtype)
    except Exception as error:
        if not brief.index:  # tell all why there is no outcome: outcomes are never text
            _contribute(number + 1, kind, str(error) or type(error).__name__)
        raise
    if not brief.index:
        _contribute(number + 1, kind, outcome)
    return outcome


def reduce_scatter(
    value: Any, own: Sequence[Any], op: str, dtype: str | None, timeout: float
) -> Any:
    number = next_number(1)
    kind = named("reduce_scatter", op=op, dtype=dtype)
    # All are told what does not match: arrays of different lengths would be cut at different
    # places, and of the parts in a list a rank sees its own only.
    forms = forms_of(value, own)
    for rank, part in enumerate(own):
        _contribute(number, kind, [forms, part], to=rank)
    parts = _collect(number, kind, timeout)
    check_parts([(part.rank, part.value[0]) for part in parts])
    return reduce([(part.rank, part.value[1]) for part in parts], op, dtype)


def all_gather(value: Any, timeout: float) -> list[Any]:
    number = next_number(1)
    _contribute(number, "all_gather", value)
    return [_given(part) for part in _collect(number, "all_gather", timeout)]


def gather(
    value: Any,
    root: int,
    quorum: float | str | None,
    deadline: float | str | None,
    timeout: float,
) -> dict[int, Any] | None:
    """At the root, by rank."""
    brief = current().brief
    if deadline == AUTO:
        raise RequestFailed(
            'gather(deadline="auto") needs nodes that exchange directly: give seconds.'
        )
    number = next_number(1)
    kind = named("gather", root=root)
    _contribute(number, kind, value, to=root)
    if brief.index != root:
        return None
    if isinstance(deadline, float):
        parts = _collect(number, kind, deadline, partial=True, on_loss="continue")
    elif quorum is None:
        parts = _collect(number, kind, timeout)
    else:
        least = brief.size if quorum == ALIVE else enough(quorum, brief.size)
        parts = _collect(number, kind, timeout, enough=least, on_loss="continue")
    return {part.rank: _given(part) for part in parts}


def scatter(values: Sequence[Any] | None, root: int, timeout: float) -> Any:
    number = next_number(1)
    kind = named("scatter", root=root)
    if current().brief.index == root:
        assert values is not None
        for rank, value in enumerate(values):
            _contribute(number, kind, value, to=rank)
        return values[root]
    (part,) = _collect(number, kind, timeout, ranks=(root,))
    return part.value


def barrier(timeout: float) -> None:
    number = next_number(1)
    current().call("contribute", number=number, kind="barrier", to=None)
    _collect(number, "barrier", timeout)


def _contribute(number: int, kind: str, value: Any, to: int | None = None) -> None:
    current().call("contribute", number=number, kind=kind, to=to, value=value)


def _collect(
    number: int,
    kind: str,
    timeout: float,
    *,
    ranks: tuple[int, ...] = (),
    enough: int | None = None,
    partial: bool = False,
    on_loss: str = "raise",
) -> list[Part]:
    parts: list[Part] = current().call(
        "collect",
        number=number,
        kind=kind,
        ranks=list(ranks),
        enough=enough,
        partial=partial,
        on_loss=on_loss,
        timeout=timeout,
    )
    return parts


def _given(part: Part) -> Any:
    return None if part.value is MISSING else part.value
