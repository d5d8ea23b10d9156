"""Collectives through the nodes' planes: one request and one answer for each.

Arrays from `LEAST` bytes on are reduced by the planes, range by range. All else goes to every
member as it is, encoded, and is reduced there by `manta.light.reduction`: what comes of it is the
same wherever it is done. What is to be private is reduced by the planes, whatever its size: no
other member is given it.
"""

from __future__ import annotations

import mmap
import os
import warnings
from collections.abc import Sequence
from typing import Any

from manta.light import wire
from manta.light.collectives.calls import (
    ALIVE,
    check_parts,
    enough,
    forms_of,
    named,
    next_number,
)
from manta.light.collectives.fused import ALIGNED, LEAST, Fused, forms, fused, rebuilt, told_forms
from manta.light.collectives.mapped import Mapped
from manta.light.collectives.numbers import NOT_PRIVATE, numbers_of, of_arrays
from manta.light.context import Handover, current
from manta.light.errors import CollectiveError, ResourceExhaustionError
from manta.light.reduction import reduce
from manta.transports.codec.values import Encoded, decode, encode


def all_reduce(
    value: Any, op: str, dtype: str | None, goes_on: bool, private: bool, timeout: float
) -> Any:
    number = next_number(2)
    lost, alone = "continue" if goes_on else None, private or None
    words = named("all_reduce", op=op, dtype=dtype, on_peer_lost=lost, private=alone)
    call: dict[str, Any] = {"words": words, "goes_on": goes_on, "timeout": timeout}
    first, digest = told_forms(forms(value))
    # Keys of dicts are in the forms, which messages quote to others.
    call["forms"], call["digest"] = [] if private else first, digest
    if private:
        arrays = fused(of_arrays(value, op), op, dtype)
        if arrays is None or arrays.rest:
            raise TypeError(NOT_PRIVATE)
        _, (memory,) = _reduced(number, "all_reduce", call, op, arrays, [arrays.stop])
        outcome = {leaf.where: leaf.read(memory, 0) for leaf in arrays.leaves}
        return numbers_of(value, rebuilt(value, outcome.__getitem__))
    arrays = fused(value, op, dtype)
    # Whose values are in it must be the same for all of a value.
    if arrays is None or not _is_for_planes(arrays, op) or (arrays.rest and goes_on):
        values = _values(_call(number, "all_gather", call, encode(value)))
        try:
            return reduce(sorted(values.items()), op, dtype)
        except (TypeError, ValueError) as error:
            if not current().brief.index:
                raise
            raise CollectiveError(str(error)) from error  # as the manager's way has it
    _, (memory,) = _reduced(number, "all_reduce", call, op, arrays, [arrays.stop])
    outcome = {leaf.where: leaf.read(memory, 0) for leaf in arrays.leaves}
    if arrays.rest:
        values = _values(_call(number + 1, "all_gather", call, encode(arrays.rest)))
        outcome |= _reduced_rest(values, op, dtype)
    return rebuilt(value, outcome.__getitem__)


def reduce_scatter(
    value: Any, own: Sequence[Any], op: str, dtype: str | None, timeout: float
) -> Any:
    number = next_number(2)
    rank = current().brief.index
    words = named("reduce_scatter", op=op, dtype=dtype)
    first, digest = told_forms(("value", form) for form in forms_of(value, own))
    call: dict[str, Any] = {
        "words": words,
        "timeout": timeout,
        "forms": first,
        "digest": digest,
    }
    found = [fused(part, op, dtype) for part in own]
    parts = [one for one in found if one is not None]
    whole = Fused.of(parts)
    if len(parts) < len(found) or whole.rest or not _is_for_planes(whole, op):
        told = _values(_call(number, "all_gather", call, encode([forms_of(value, own), *own])))
        ranked = sorted(told.items())
        check_parts([(other, given[0]) for other, given in ranked])
        return reduce([(other, given[1 + rank]) for other, given in ranked], op, dtype)
    sizes = [part.stop for part in parts]
    _, (memory,) = _reduced(number, "reduce_scatter", call, op, whole, sizes)
    mine = parts[rank]
    start = sum(sizes[:rank])
    outcome = {leaf.where: leaf.read(memory, start) for leaf in mine.leaves}
    return rebuilt(own[rank], outcome.__getitem__)


def all_gather(value: Any, timeout: float) -> list[Any]:
    call = {"words": "all_gather", "timeout": timeout}
    values = _values(_call(next_number(1), "all_gather", call, encode(value)))
    return [values[rank] for rank in sorted(values)]


def gather(
    value: Any,
    root: int,
    quorum: float | str | None,
    deadline: float | str | None,
    timeout: float,
) -> dict[int, Any] | None:
    """At the root, by rank."""
    brief = current().brief
    call: dict[str, Any] = {"words": named("gather", root=root), "root": root, "timeout": timeout}
    if brief.index == root:
        is_given = quorum is not None and quorum != ALIVE
        call["quorum"] = enough(quorum, brief.size) if is_given else quorum
        call["deadline"] = deadline
    parts = _call(next_number(1), "gather", call, encode(value))
    return _values(parts) if brief.index == root else None


def scatter(values: Sequence[Any] | None, root: int, timeout: float) -> Any:
    rank = current().brief.index
    call: dict[str, Any] = {"words": named("scatter", root=root), "root": root, "timeout": timeout}
    number = next_number(1)
    if rank != root:
        return _values(_call(number, "scatter", call))[rank]
    assert values is not None
    encoded = [encode(value) for value in values]
    _call(number, "scatter", call, *encoded)
    return values[root]


def barrier(timeout: float) -> None:
    brief = current().brief
    call: dict[str, Any] = {"words": "barrier", "timeout": timeout}
    if settles := brief.is_unsettled:
        call["settles"] = True
        brief.is_unsettled = False  # first: another thread may write meanwhile
    try:
        _call(next_number(1), "barrier", call)
    except BaseException:
        brief.is_unsettled |= settles
        raise


Parts = tuple[list[int], list[memoryview]]
"""Ranks, and what there is of each."""


def _is_for_planes(arrays: Fused, op: str) -> bool:
    """Some machines round products of complex numbers in another way: one does for all."""
    is_complex = op == "prod" and any(leaf.carrier[:1] == "c" for leaf in arrays.leaves)
    return arrays.stop >= LEAST or (is_complex and not arrays.rest)


def _reduced(
    number: int, kind: str, call: dict[str, Any], op: str, arrays: Fused, sizes: list[int]
) -> Parts:
    fields = {**call, "op": op, "leaves": arrays.ranges(), "sizes": sizes}
    if arrays.stop <= wire.INLINE_LIMIT:
        data = bytearray(arrays.stop)
        arrays.write(memoryview(data))
        return _ask(number, kind, fields, Handover(bytes(data)))
    context = current()
    room, memory = _mapped().room(
        lambda mapped: context.call("make_room", size=arrays.stop, mapped=mapped)
    )
    if not room:  # the node has no memory for it, but may have room on disk
        return _handed_in(number, kind, fields, arrays)
    arrays.write(memory)
    fields["room"] = room
    return _ask(number, kind, fields)


def _handed_in(number: int, kind: str, fields: dict[str, Any], arrays: Fused) -> Parts:
    fd = _memfd(arrays.stop)
    try:
        os.truncate(fd, arrays.stop)
        with mmap.mmap(fd, arrays.stop) as memory, memoryview(memory) as view:
            arrays.write(view)
        _seal(fd)
        return _ask(number, kind, fields, Handover([arrays.stop], (fd,)))
    finally:
        os.close(fd)


def _call(number: int, kind: str, call: dict[str, Any], *encoded: Encoded) -> Parts:
    """Values as they are; of several, each for its rank."""
    sizes = [one.nbytes for one in encoded]
    if not encoded:
        return _ask(number, kind, call)
    last = sum(_aligned(size) for size in sizes[:-1]) + sizes[-1]
    if last <= wire.INLINE_LIMIT:
        parts = [one.to_bytes() for one in encoded]
        data = b"".join(part.ljust(_aligned(len(part)), b"\0") for part in parts)[:last]
        return _ask(number, kind, {**call, "sizes": sizes}, Handover(data))
    fd = _memfd(last)
    try:
        start = 0
        for one in encoded:
            _write(fd, one, start)
            start += _aligned(one.nbytes)
        _seal(fd)
        handover = Handover([last], (fd,))
        return _ask(number, kind, {**call, "sizes": sizes}, handover)
    finally:
        os.close(fd)


def _ask(number: int, kind: str, fields: dict[str, Any], handover: Handover | None = None) -> Parts:
    context = current()
    mapped = _mapped()
    if handover is not None:
        fields = {**fields, "value": handover}
    if returned := mapped.returned():
        fields["returned"] = returned
    told, fds = context.call("call_collective", number=number, kind=kind, **fields)
    blocks = mapped.blocks(told["parts"], fds)
    data, at = memoryview(bytearray(told["data"])), 0  # writable, as a mapped one is
    ranks, found = [], []
    for rank, size, _, place, offset in told["parts"]:
        ranks.append(rank)
        if place < 0:
            found.append(data[at : at + size])
            at += size
        else:
            found.append(blocks[place][offset : offset + size])
    context.brief.left_out = told.get("lost", {})
    if "warning" in told:
        warnings.warn(told["warning"], RuntimeWarning, stacklevel=5)
    return ranks, found


def _values(parts: Parts) -> dict[int, Any]:
    return {rank: decode(part) for rank, part in zip(*parts, strict=True)}


def _reduced_rest(values: dict[int, Any], op: str, dtype: str | None) -> dict[str, Any]:
    """Of leaves that are no arrays, by place."""
    ranked = sorted(values.items())
    return {
        where: reduce([(rank, rest[where]) for rank, rest in ranked], op, dtype, where)
        for where in ranked[0][1]
    }


def _mapped() -> Mapped:
    brief = current().brief
    if brief.mapped is None:
        brief.mapped = Mapped()
    mapped: Mapped = brief.mapped
    return mapped


def _aligned(size: int) -> int:
    return -(-size // ALIGNED) * ALIGNED


def _memfd(size: int) -> int:
    """Raises ResourceExhaustionError."""
    try:
        return os.memfd_create("manta-value", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except (OSError, AttributeError) as error:
        raise ResourceExhaustionError(
            f"No memory for a value of {size} bytes can be made here (memfd_create: {error}): "
            "allow that call in the sandbox of the task, and raise the limit of open files."
        ) from error


def _write(fd: int, encoded: Encoded, start: int) -> None:
    """Raises ResourceExhaustionError."""
    try:
        for part in encoded.parts():
            data = memoryview(part).cast("B")
            while data:
                count = os.pwrite(fd, data, start)
                data, start = data[count:], start + count
    except OSError as error:
        raise ResourceExhaustionError(
            f"No room for a value of {encoded.nbytes} bytes: {error.strerror}."
        ) from error


def _seal(fd: int) -> None:
    """Nobody can change it any more."""
    import fcntl

    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
