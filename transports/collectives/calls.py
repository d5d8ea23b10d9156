"""What the members of a task call together, where they are, and whether they agree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal, NamedTuple

MOST_FORMS = 32
LONGEST = 1_000
"""Characters of a call, and of a form."""
OnLost = Literal["raise", "continue"]


class Kind(str, Enum):  # StrEnum is not in Python 3.10
    """The collectives, by the names of the MPI standard (MPI 4.1, chapter 6)."""

    ALL_REDUCE = "all_reduce"
    REDUCE_SCATTER = "reduce_scatter"
    ALL_GATHER = "all_gather"
    GATHER = "gather"
    SCATTER = "scatter"
    BARRIER = "barrier"

    @property
    def reduces(self) -> bool:
        return self in (Kind.ALL_REDUCE, Kind.REDUCE_SCATTER)

    @property
    def has_root(self) -> bool:
        return self in (Kind.GATHER, Kind.SCATTER)


_GOES_ON = (Kind.ALL_REDUCE, Kind.ALL_GATHER, Kind.GATHER, Kind.BARRIER)


class Call(NamedTuple):
    """What must be the same for all members."""

    kind: Kind
    words: str
    """The call with its options, as messages quote it."""
    root: int = 0
    itemsize: int = 1
    """Bytes of an element. No range that is reduced or sent ends within one."""
    on_lost: OnLost = "raise"
    local_first: bool = False
    """Ranks of one peer are reduced before anything is sent: where an interim result has the
    width of a value."""
    noted: bool = False
    """Reductions give notes, which every member is to have: what does not fit, what was rounded."""
    reproducible: bool = True
    """Every machine reduces the same values to the same bits. Where not, one does for all."""

    @property
    def operation(self) -> str:
        """What members called, without its options."""
        return self.words.partition("(")[0]


class Entry(NamedTuple):
    """What one member brings to a call."""

    call: Call
    sizes: tuple[int, ...] = ()
    """In bytes. Of its value; of what each rank gets of it (`reduce_scatter`, `scatter` at its
    root); empty where it gives nothing."""
    forms: tuple[tuple[str, str], ...] = ()
    """Places in the value, and what must be the same there, in words; the first few of many."""
    digest: bytes = b""
    """Of all the forms."""
    before: str = ""
    """The call before this one, if the member did not wait in it: nobody has told it yet whether
    others made the same."""

    @property
    def weight(self) -> int:
        """About how many bytes it takes to remember it, and no fewer than it is sent with."""
        texts = [self.call.words, self.before, *(text for form in self.forms for text in form)]
        size = sum(len(text) if text.isascii() else 4 * len(text) for text in texts)
        return 512 + 16 * len(self.sizes) + len(self.digest) + size


@dataclass(frozen=True)
class Placement:
    """On which peer each member is. Peers are numbered in the order of their lowest ranks."""

    alias: str
    nodes: tuple[str, ...]
    """By peer: how messages name it."""
    ranks: tuple[tuple[int, ...], ...]
    """By peer, ascending."""
    peer_of: tuple[int, ...] = field(init=False)
    """By rank."""

    def __post_init__(self) -> None:
        at = {rank: peer for peer, ranks in enumerate(self.ranks) for rank in ranks}
        count = sum(map(len, self.ranks))
        lowest = [ranks[0] for ranks in self.ranks if ranks]
        if (
            len(self.nodes) != len(lowest)
            or len(lowest) != len(self.ranks)
            or lowest != sorted(lowest)
            or any(list(ranks) != sorted(ranks) for ranks in self.ranks)
            or sorted(at) != list(range(count))
        ):
            raise ValueError(f"{self.ranks} on {self.nodes} are no members of a task: see `of`.")
        object.__setattr__(self, "peer_of", tuple(at[rank] for rank in range(count)))

    @classmethod
    def of(cls, alias: str, nodes: Sequence[str]) -> Placement:
        """By rank: the node that it is on."""
        ranks: dict[str, list[int]] = {}
        for rank, node in enumerate(nodes):
            ranks.setdefault(node, []).append(rank)
        return cls(alias, tuple(ranks), tuple(map(tuple, ranks.values())))

    @property
    def size(self) -> int:
        """How many members there are."""
        return len(self.peer_of)

    def named(self, ranks: Iterable[int], why: Mapping[int, str] | None = None) -> str:
        """For messages: the first few of the members, with their nodes."""
        ranks = sorted(ranks)
        names = []
        for rank in ranks[:4]:
            reason = f" ({why[rank]})" if why and rank in why else ""
            names.append(f"{self.alias}.{rank} on {self.nodes[self.peer_of[rank]]}{reason}")
        more = f" and {len(ranks) - 4} more" if len(ranks) > 4 else ""
        return ", ".join(names) + more


def checked(entry: Entry, rank: int, placement: Placement) -> Entry:
    """The entry, if a member of this rank can bring it. Raises ValueError."""
    call, sizes, count = entry.call, entry.sizes, placement.size
    gives = 1
    if call.kind is Kind.REDUCE_SCATTER:
        gives = count
    elif call.kind is Kind.SCATTER:
        gives = count if rank == call.root else 0
    elif call.kind is Kind.BARRIER:
        gives = 0
    if len(sizes) != gives or any(size < 0 for size in sizes):
        raise ValueError(f"{call.words} of rank {rank} comes with the sizes {sizes!s:.60}.")
    texts = [call.words, entry.before, *(text for form in entry.forms for text in form)]
    if len(entry.forms) > MOST_FORMS or max(map(len, texts)) > LONGEST or len(entry.digest) > 64:
        raise ValueError(f"{call.words:.60} of rank {rank} comes with more words than any does.")
    if not 0 <= call.root < count or call.itemsize < 1:
        raise ValueError(f"{call.words}: no rank {call.root}, or no items of {call.itemsize}.")
    if call.kind.reduces and any(size % call.itemsize for size in sizes):
        raise ValueError(f"{call.words}: {sizes!s:.60} are no whole items of {call.itemsize}.")
    if call.on_lost == "continue" and call.kind not in _GOES_ON:
        raise ValueError(f"{call.words} can't go on when a member is lost.")
    return entry


def difference(alias: str, one: tuple[int, Entry], other: tuple[int, Entry]) -> str:
    """Why two members, by rank, can't meet, in a sentence that names both; empty if they can."""
    (rank, first), (another, second) = sorted((one, other), key=lambda side: side[0])
    if first.before and second.before and first.before != second.before:
        return _unlike_calls(alias, (rank, first.before), (another, second.before))
    if first.call.words != second.call.words:
        return _unlike_calls(alias, (rank, first.call.words), (another, second.call.words))
    reduces = first.call.kind.reduces or second.call.kind.reduces
    if reduces and (first.digest, first.forms) != (second.digest, second.forms):
        places = zip(first.forms, second.forms, strict=False)
        where, form, unlike = next(
            ((place, form, unlike) for (place, form), (_, unlike) in places if form != unlike),
            ("value", "of one form", f"of another{' beyond its first places' * bool(first.forms)}"),
        )
        return (
            f"{where} of rank {rank} is {form}, of rank {another} {unlike}: "
            "all instances must give values of one form."
        )
    if first.call != second.call:  # two versions of Manta
        return _unlike_calls(alias, (rank, repr(first.call)), (another, repr(second.call)))
    if first.call.kind.reduces and first.sizes != second.sizes:
        return (
            f"value of rank {rank} has {sum(first.sizes)} bytes, of rank {another} "
            f"{sum(second.sizes)}: all instances must give values of one form."
        )
    return ""


def _unlike_calls(alias: str, one: tuple[int, str], other: tuple[int, str]) -> str:
    return (
        f"{alias}.{one[0]} called {one[1]} where {alias}.{other[0]} called {other[1]}: all "
        f"instances of {alias!r} must make the same calls in the same order."
    )
