"""What all instances of a task work out together: a part of `World`.

All of them make the same calls in the same order, with the same options. An instance that is tried
again finds what it and the others contributed before. They meet through their nodes' planes where
the attempt exchanges directly, else through the manager.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

from manta.light import arguments
from manta.light.collectives.calls import ALIVE, AUTO, enough
from manta.light.context import current
from manta.light.errors import CollectiveError, PeerLost, Timeout
from manta.light.reduction import OPS

DEFAULT_TIMEOUT = 300.0


class Collectives:
    """Of the attempt that is running."""

    @property
    def rank(self) -> int:
        """This instance's number among the task's instances in this iteration, from 0."""
        return current().brief.index

    @property
    def size(self) -> int:
        """How many instances the task has in this iteration."""
        return current().brief.size

    @property
    def left_out(self) -> dict[int, str]:
        """The ranks whose values are not in this instance's last collective, and why.

        Empty where all are in it. `1 - len(world.left_out) / world.size` is its weight.
        """
        return dict(current().brief.left_out)

    def all_reduce(
        self,
        value: Any,
        op: str = "sum",
        on_peer_lost: str = "raise",
        dtype: Any = None,
        timeout: float | None = None,
        private: bool = False,
    ) -> Any:
        """The reduction of all instances' values, the same to the bit for each of them.

        `value`: a number, an array, a tensor, or a nest of dicts and lists of these, of one form
        everywhere. `op`: sum, mean, min, max or prod. `on_peer_lost`: "raise" raises PeerLost
        when an instance is lost before it contributed, "continue" reduces over what those
        contributed that are left.

        Arrays, tensors and numpy's scalars keep shape and dtype, or come back in `dtype` ("int64",
        numpy.float32, torch.float64, ...). Floats below 32 bits are reduced in float32. Integers
        are exact: an outcome that their dtype can't hold raises CollectiveError, and a mean is
        rounded to the nearest, half to even, with a warning. Bools have no sum (`dtype="int64"`
        counts them), and a mean where all are the same. Python's numbers stay Python's.
        `private`: no instance is given another's value, of whatever size: the nodes reduce it,
        which for small values takes longer. A node whose owner lets values leave in sums alone
        takes part in no other call. All instances say the same.
        Raises CollectiveError, TypeError for what cannot be reduced.
        """
        arguments.one_of("op", op, OPS)
        name = arguments.dtype(dtype)
        arguments.one_of("on_peer_lost", on_peer_lost, ("raise", "continue"))
        goes_on = on_peer_lost == "continue"
        return _way().all_reduce(value, op, name, goes_on, bool(private), waiting_time(timeout))

    def reduce_scatter(
        self, value: Any, op: str = "sum", timeout: float | None = None, dtype: Any = None
    ) -> Any:
        """This rank's part of the reduction, by the rule of `all_reduce`.

        `value` is a list of `size` parts, or an array that is cut into as many along its first
        axis (as numpy.array_split does). Raises CollectiveError, PeerLost, TypeError.
        """
        arguments.one_of("op", op, OPS)
        name = arguments.dtype(dtype)
        own = parts_of(value, self.size)
        return _way().reduce_scatter(value, own, op, name, waiting_time(timeout))

    def all_gather(self, value: Any, timeout: float | None = None) -> list[Any]:
        """All instances' values, by rank. Raises PeerLost."""
        found: list[Any] = _way().all_gather(value, waiting_time(timeout))
        return found

    def gather(
        self,
        value: Any,
        root: int = 0,
        quorum: float | str | None = None,
        deadline: float | str | None = None,
        timeout: float | None = None,
    ) -> list[Any] | dict[int, Any] | None:
        """At rank `root` all instances' values, elsewhere None at once.

        | call | answer at the root, of four of whom rank 2 is late |
        |---|---|
        | `gather(value)` | waits for rank 2: the list `[v0, v1, v2, v3]`, by rank |
        | `gather(value, quorum=0.75)` | the dict `{0: v0, 1: v1, 3: v3}`, by rank |
        | `gather(value, deadline=5)` | after 5 s, the same dict |
        | `gather(value, quorum="alive")` | waits for rank 2 unless it is lost, the same dict |

        With a quorum or a deadline it is a dict even when all have answered, so that code need not
        ask which it got; a list with gaps would not tell whose each value is. `quorum` is the
        fraction of the instances that is enough, or "alive": all that are not lost. With a
        `deadline`, in seconds, it waits for all until then, and then the quorum decides (without
        one, a single value is enough). The deadline "auto" follows from when the others came: the
        median of the arrivals so far plus five times their median absolute deviation (MAD), a
        second at least, as soon as half of the values are there.
        Raises PeerLost, Timeout.
        """
        size = self.size
        root = arguments.rank("root", root, size)
        if quorum is not None and quorum != ALIVE:
            quorum = arguments.fraction("quorum", quorum)
        if deadline is not None and deadline != AUTO:
            deadline = arguments.seconds("deadline", deadline)
        found: dict[int, Any] | None = _way().gather(
            value, root, quorum, deadline, waiting_time(timeout)
        )
        if found is None:
            return None
        if quorum is None and deadline is None:
            return [found[rank] for rank in range(size)]
        if len(found) < enough(quorum, size):
            alias = current().brief.alias
            missing = ", ".join(f"{alias}.{rank}" for rank in range(size) if rank not in found)
            error = PeerLost if deadline is None else Timeout
            raise error(f"gather has {len(found)} of {size} values: {missing} did not answer.")
        return found

    def scatter(
        self, values: Sequence[Any] | None = None, root: int = 0, timeout: float | None = None
    ) -> Any:
        """Rank `root` gives a list of `size` values, and each rank gets its own.

        Other ranks leave `values` out. Raises PeerLost.
        """
        size = self.size
        root = arguments.rank("root", root, size)
        given: Any = values
        if self.rank == root and (not hasattr(given, "__len__") or len(given) != size):
            count = len(given) if hasattr(given, "__len__") else f"{given!r:.60}"
            raise ValueError(
                f"scatter() at its root takes {size} values, one for each rank, not {count}."
            )
        return _way().scatter(given, root, waiting_time(timeout))

    def barrier(self, timeout: float | None = None) -> None:
        """Waits until all instances of this task have come here.

        Whoever comes out of it finds what they wrote before: globals, results and checkpoints.
        Raises PeerLost, Timeout.
        """
        _way().barrier(waiting_time(timeout))


def waiting_time(timeout: float | None) -> float:
    """In seconds; the task's own where none is given."""
    if timeout is None:
        own = current().brief.timeout
        return DEFAULT_TIMEOUT if own is None else arguments.seconds("timeout", own)
    return arguments.seconds("timeout", timeout)


def parts_of(value: Any, size: int) -> Sequence[Any]:
    """What each rank gets. Raises CollectiveError, TypeError."""
    if isinstance(value, list | tuple):
        if len(value) != size:
            raise CollectiveError(f"reduce_scatter() takes {size} parts, not {len(value)}.")
        return value
    if hasattr(value, "shape") and len(value.shape):
        if type(value).__module__.partition(".")[0] == "torch":
            import torch

            parts: Sequence[Any] = torch.tensor_split(value, size)
            return parts
        import numpy

        return numpy.array_split(value, size)
    raise TypeError(
        f"reduce_scatter() takes a list of {size} parts or an array, not a {type(value).__name__}."
    )


def _way() -> ModuleType:
    context = current()
    context.brief.left_out = {}
    if context.brief.direct:
        from manta.light.collectives import direct

        return direct
    from manta.light.collectives import logged

    return logged
