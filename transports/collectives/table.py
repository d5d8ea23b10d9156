"""Which algorithm moves what: the one place with numbers.

They come from what a message costs beside its bytes. Measured on loopback, on two cores with other
load: on a link with CURVE, 0.06 ms one way for 100 bytes and 0.13 ms more for each 64 KiB
(`tests/benchmarks/link_round_trip.py`, with messages of these sizes), so that a message costs as
much as a = 30 KiB. With p peers, EXCHANGE takes 2(p-1) messages less than DIRECT, for
(p-1)(1-2/p) times the bytes of a value more: it is faster up to 2ap/(p-2), which is 120 KiB with 4
peers and 64 KiB with many. To measure again: find a; or time both algorithms of a row at its
bound, and move the bound to where they meet.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

KIB = 1 << 10

INLINE = 64 * KIB
"""Values up to this many bytes ride with the announcement of the call."""
EXCHANGED = 1024 * KIB
"""What the values of all members together may have to be reduced by everybody, who holds them
all."""
TOGETHER = 4096 * KIB
"""What values that ride together may have: more would hold up what else a link carries, and is in
memory twice while it comes."""
DIRECT_PEERS = 16
"""With more peers than this, a peer does not speak with all others: announcements are
disseminated in log2(p) rounds, as p messages take longer (1 ms), and blocks go round in a ring."""
PIPELINE = 256 * KIB
"""What one more peer in a chain costs, in bytes: a chunk of a transfer, which each passes on."""
REDUCED = 1024 * KIB
"""Bytes that are reduced at once: 0.15 ms for each source, beside 0.03 ms for the order."""


class Algorithm(Enum):
    EXCHANGE = "exchange"  # everybody has all values and reduces them
    DIRECT = "direct"  # each reduces a block and sends it to all
    RING = "ring"  # blocks go round
    STAR = "star"
    BINOMIAL = "binomial"
    CHAIN = "chain"


class Row(NamedTuple):
    """An algorithm, and up to how many peers, and bytes of a value, it is taken."""

    peers: int
    size: int
    algorithm: Algorithm


_ANY = 1 << 62
REDUCING = (
    Row(1, _ANY, Algorithm.DIRECT),
    Row(_ANY, INLINE, Algorithm.EXCHANGE),  # while all values fit into EXCHANGED
    Row(DIRECT_PEERS, _ANY, Algorithm.DIRECT),
    Row(_ANY, _ANY, Algorithm.RING),  # where the call allows that, else DIRECT
)


def rides(size: int, together: int) -> bool:
    """Whether a value rides with an announcement, if so many of its size may ride together."""
    return size <= INLINE and size * together <= TOGETHER


def for_reduction(size: int, peers: int, members: int, *, exchange: bool, ring: bool) -> Algorithm:
    """`exchange` says whether everybody may reduce the same: all machines come to the same bits.

    `ring` says whether interim results may go round: they have the width of a value, and no peer
    is to be replaced on the way.
    """
    for row in REDUCING:
        if peers <= row.peers and size <= row.size:
            found = row.algorithm
            if found is Algorithm.EXCHANGE and not (exchange and size * members <= EXCHANGED):
                continue
            return Algorithm.DIRECT if found is Algorithm.RING and not ring else found
    raise AssertionError("the last row is for all")


def for_spreading(size: int, peers: int) -> Algorithm:
    """How one value gets to all peers, as those of all others do at the same time.

    A star costs its centre p-1 times the value, but nobody waits for another, and as each peer is
    the centre of one, all links are used. A binomial tree costs its root log2(p) times the value;
    a chain costs it once, and the first chunk passes p-2 peers more.
    """
    if peers <= DIRECT_PEERS:
        return Algorithm.STAR
    rounds = (peers - 1).bit_length()
    if size * (rounds - 1) > (peers - 2) * PIPELINE:
        return Algorithm.CHAIN
    return Algorithm.BINOMIAL
