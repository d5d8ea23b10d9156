"""Compressed updates, with error feedback, around any strategy.

A codec turns one array of floats into parts, a few smaller arrays, and back. What is lost is not
lost for good: with error feedback, each client adds what earlier rounds did not send to what it
sends next (Seide et al. 2014; Karimireddy et al. 2019, arXiv:1901.09847).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from manta.light.federated.arrays import ABOUT, Arrays, Form, is_finite, no_array, unprefixed
from manta.light.federated.errors import BadModel, BadState, BadUpdate
from manta.light.federated.lazy import np
from manta.light.federated.rounds import Client, Round, Sent, Strategy

_RESIDUAL = "residual"
_MOST_INDICES = 2**32


class Codec(ABC):
    """Turns an array into parts, and back. Both are pure: the parts of equal arrays are equal."""

    parts: ClassVar[tuple[str, ...]]
    """The names of the parts."""

    @abstractmethod
    def encode(self, array: Any, draw: int) -> dict[str, Any]:
        """The parts of an array of floats; `draw` is new each time, for those that draw."""

    @abstractmethod
    def decode(self, parts: Arrays, form: Form) -> Any:
        """The array again, or what is left of it. Raises ValueError, which ends "is ..."."""


def _kept(fraction: float, size: int) -> int:
    """How many elements are sent: at least one, where there are any."""
    return min(size, max(1, math.ceil(fraction * size)))


def _part(parts: Arrays, name: str, shape: tuple[int, ...], dtype: Any) -> Any:
    """A part of the right form. Raises ValueError."""
    array, wanted = parts[name], Form(shape, np.dtype(dtype))
    if no_array(array) is not None or (array.shape, array.dtype) != wanted:
        raise ValueError(f"has a part {name!r} that is not {wanted}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"has NaN or infinite values in its part {name!r}")
    return array


def _check_fraction(fraction: float) -> None:
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction is {fraction!r:.60}: give a fraction above 0 and up to 1.")


@dataclass(frozen=True)
class TopK(Codec):
    """The elements that are largest in absolute value (Aji and Heafield 2017, arXiv:1704.05021).

    `fraction` says how many of each array's elements are sent, rounded up. An element costs its own
    bytes and 4 for its index.

    >>> import numpy as np
    >>> parts = TopK(0.5).encode(np.array([1.0, -3.0, 0.0, 2.0]), draw=0)
    >>> parts
    {'indices': array([1, 3], dtype=uint32), 'values': array([-3.,  2.])}
    >>> TopK(0.5).decode(parts, Form((4,), np.dtype(float)))
    array([ 0., -3.,  0.,  2.])
    """

    fraction: float

    def __post_init__(self) -> None:
        _check_fraction(self.fraction)

    parts = ("indices", "values")

    def encode(self, array: Any, draw: int) -> dict[str, Any]:
        flat = array.reshape(-1)
        if flat.size > _MOST_INDICES:
            raise ValueError(f"An array of {flat.size} elements is too large: the most is 2**32.")
        rest = flat.size - _kept(self.fraction, flat.size)
        chosen = np.argpartition(np.abs(flat), rest)[rest:] if rest else np.arange(flat.size)
        indices = np.sort(chosen)
        return {"indices": indices.astype(np.uint32), "values": flat[indices]}

    def decode(self, parts: Arrays, form: Form) -> Any:
        size = math.prod(form.shape)
        kept = (_kept(self.fraction, size),)
        indices = _part(parts, "indices", kept, np.uint32)
        values = _part(parts, "values", kept, form.dtype)
        if size and (int(indices[-1]) >= size or (indices[1:] <= indices[:-1]).any()):
            raise ValueError("has indices that are not in order or beyond its end")
        flat = np.zeros(size, form.dtype)
        flat[indices] = values
        return flat.reshape(form.shape)


@dataclass(frozen=True)
class RandomK(Codec):
    """Elements drawn by chance (Konečný et al. 2016, arXiv:1610.05492; "random mask").

    `fraction` says how many of each array's elements are sent, rounded up. Of their indices only
    the seed is sent, so that an element costs its own bytes. They are not scaled up: rely on error
    feedback for what was not drawn.

    >>> import numpy as np
    >>> parts = RandomK(0.5).encode(np.array([1.0, 2.0, 3.0, 4.0]), draw=7)
    >>> RandomK(0.5).decode(parts, Form((4,), np.dtype(float)))
    array([0., 2., 3., 0.])
    """

    fraction: float

    def __post_init__(self) -> None:
        _check_fraction(self.fraction)

    parts = ("seed", "values")

    def encode(self, array: Any, draw: int) -> dict[str, Any]:
        flat = array.reshape(-1)
        seed = np.array(draw % 2**32, np.uint32)
        return {"seed": seed, "values": flat[self._indices(seed, flat.size)]}

    def decode(self, parts: Arrays, form: Form) -> Any:
        size = math.prod(form.shape)
        seed = _part(parts, "seed", (), np.uint32)
        values = _part(parts, "values", (_kept(self.fraction, size),), form.dtype)
        flat = np.zeros(size, form.dtype)
        flat[self._indices(seed, size)] = values
        return flat.reshape(form.shape)

    def _indices(self, seed: Any, size: int) -> Any:
        # Of numpy's generators, this one draws the same in every version.
        random = np.random.RandomState(int(seed))
        return np.sort(random.permutation(size)[: _kept(self.fraction, size)])


@dataclass(frozen=True)
class EightBit(Codec):
    """8 bits an element, and one scale for each array: x ≈ s q with s = max|x| / 127, q from -127
    to 127, rounded to the nearest (after Dettmers 2015, arXiv:1511.04561, with a linear scale).

    >>> import numpy as np
    >>> parts = EightBit().encode(np.array([1.27, -0.5, 0.0]), draw=0)
    >>> parts["values"]
    array([127, -50,   0], dtype=int8)
    >>> EightBit().decode(parts, Form((3,), np.dtype(float)))
    array([ 1.27, -0.5 ,  0.  ])
    """

    parts = ("scale", "values")

    def encode(self, array: Any, draw: int) -> dict[str, Any]:
        scale = np.asarray(np.abs(array).max(initial=0).astype(np.float64) / 127)
        # A scale of 0 is of an array of zeros; one that is subnormal has lost too many digits.
        steps = array / scale if scale >= np.finfo(np.float64).tiny else np.zeros_like(array)
        return {"scale": scale, "values": np.asarray(np.rint(steps).astype(np.int8))}

    def decode(self, parts: Arrays, form: Form) -> Any:
        scale = _part(parts, "scale", (), np.float64)
        values = _part(parts, "values", form.shape, np.int8)
        with np.errstate(all="ignore"):  # what is too large is found by who checks the update
            return np.asarray(values * scale).astype(form.dtype)


@dataclass(frozen=True)
class OneBit(Codec):
    """The sign of each element, in a bit, and the mean of all absolute values: x ≈
    (‖x‖₁ / d) sign(x), where d is the number of elements and 0 counts as positive.

    "signSGD" (Bernstein et al. 2018, arXiv:1802.04434), with the scale of "EF-SignSGD" (Karimireddy
    et al. 2019, arXiv:1901.09847).

    >>> import numpy as np
    >>> parts = OneBit().encode(np.array([1.0, -3.0, 2.0]), draw=0)
    >>> parts["signs"]
    array([160], dtype=uint8)
    >>> OneBit().decode(parts, Form((3,), np.dtype(float)))
    array([ 2., -2.,  2.])
    """

    parts = ("scale", "signs")

    def encode(self, array: Any, draw: int) -> dict[str, Any]:
        scale = np.abs(array).mean(dtype=np.float64) if array.size else 0.0
        return {"scale": np.array(scale), "signs": np.packbits(array.reshape(-1) >= 0)}

    def decode(self, parts: Arrays, form: Form) -> Any:
        size = math.prod(form.shape)
        scale = _part(parts, "scale", (), np.float64)
        signs = _part(parts, "signs", (math.ceil(size / 8),), np.uint8)
        positive = np.unpackbits(signs, count=size).astype(bool)
        with np.errstate(all="ignore"):  # what is too large is found by who checks the update
            return np.where(positive, scale, -scale).astype(form.dtype).reshape(form.shape)


@dataclass(frozen=True)
class Compressed(Strategy):
    """Compresses what clients of another strategy send.

    Each array of floats of an update becomes the codec's parts, `indices:NAME` and `values:NAME`
    for example; integers, and what the update says of itself, stay as they are. With
    `error_feedback`, which is on by default, a client keeps e, the `residual:NAME` of each array,
    0 at first:

        sends C(Δ + e)        e ← Δ + e - C(Δ + e)

    `seed` is for codecs that draw: a client's draws follow from it and from how many rounds the
    client has taken part in, `about:rounds`, which it keeps. With the same seed, all clients draw
    alike. The server decodes an
    update as it comes in, and checks it as any other; what is no encoded update is a BadUpdate.

    >>> import numpy as np
    >>> strategy, model = Compressed(FedAvg(), TopK(0.5)), {"w": np.array([0.0, 0.0])}
    >>> sent = strategy.client(model).finish({"w": np.array([1.0, 3.0])})
    >>> sent.update
    {'indices:w': array([1], dtype=uint32), 'values:w': array([3.])}
    >>> sent.own
    {'residual:w': array([1., 0.]), 'about:rounds': array(1)}
    >>> aggregate(strategy, model, [("a", sent.update, 1)]).params
    {'w': array([0., 3.])}
    """

    strategy: Strategy
    codec: Codec
    error_feedback: bool = True
    seed: int = 0

    def start(self, params: Arrays, state: Arrays | None = None) -> Round:
        round = self.strategy.start(params, state)
        forms = round.forms
        round.decode_with(lambda client, update: self._decoded(client, update, forms))
        return round

    def client(
        self, params: Arrays, state: Arrays | None = None, own: Arrays | None = None
    ) -> Client:
        own = own or {}
        rounds = own.get(_ROUNDS, 0)
        residual = unprefixed(_RESIDUAL, own)
        others = {
            name: array
            for name, array in own.items()
            if name != _ROUNDS and not name.startswith(f"{_RESIDUAL}:")
        }
        return _CompressingClient(
            self, self.strategy.client(params, state, others), residual, int(rounds)
        )

    def is_encoded(self, name: str, form: Form) -> bool:
        """Whether this array of an update is compressed."""
        return form.is_float and not name.startswith(ABOUT)

    def _decoded(self, client: str, update: Any, forms: Mapping[str, Form]) -> Arrays:
        if not isinstance(update, Mapping):
            return update  # type: ignore[no-any-return]  # refused by the checks
        decoded, known = {}, set()
        for name, form in forms.items():
            if not self.is_encoded(name, form):
                known.add(name)
                if name in update:
                    decoded[name] = update[name]
                continue
            parts = {part: f"{part}:{name}" for part in self.codec.parts}
            known |= set(parts.values())
            if any(key not in update for key in parts.values()):
                codec = type(self.codec).__name__
                raise BadUpdate(client, name, f"is not there as {codec} encodes it")
            try:
                given = {part: update[key] for part, key in parts.items()}
                decoded[name] = self.codec.decode(given, form)
            except ValueError as error:
                raise BadUpdate(client, name, str(error)) from None
        return {**decoded, **{name: update[name] for name in update if name not in known}}


_ROUNDS = f"{ABOUT}rounds"


class _CompressingClient(Client):
    def __init__(
        self, strategy: Compressed, inner: Client, residual: dict[str, Any], rounds: int
    ) -> None:
        super().__init__(inner.params)
        self._strategy = strategy
        self._inner = inner
        self._residual = residual
        self._rounds = rounds

    def correction(self, params: Arrays) -> dict[str, Any]:
        return self._inner.correction(params)

    def finish(
        self, trained: Arrays, *, steps: int | None = None, learning_rate: float | None = None
    ) -> Sent:
        sent = self._inner.finish(trained, steps=steps, learning_rate=learning_rate)
        codec, residual = self._strategy.codec, {}
        update = {}
        draws = np.random.RandomState([self._strategy.seed % 2**32, self._rounds % 2**32])
        for name, array in sent.update.items():
            form = Form(array.shape, array.dtype)
            if not self._strategy.is_encoded(name, form):
                update[name] = array
                continue
            whole = np.asarray(array + self._unsent(name, form) if self._residual else array)
            if not is_finite(whole):
                raise BadModel(
                    f"The trained model's {name!r:.80} has NaN or infinite values, which can't be "
                    "compressed: has training diverged?"
                )
            parts = codec.encode(whole, int(draws.randint(0, 2**32, dtype=np.uint64)))
            update |= {f"{part}:{name}": value for part, value in parts.items()}
            if self._strategy.error_feedback:
                left = np.asarray(whole - codec.decode(parts, form), form.dtype)
                residual[f"{_RESIDUAL}:{name}"] = left
        own = {**sent.own, **residual, _ROUNDS: np.array(self._rounds + 1)}
        return Sent(update, own)

    def _unsent(self, name: str, form: Form) -> Any:
        array = self._residual.get(name)
        if (getattr(array, "shape", None), getattr(array, "dtype", None)) != form:
            raise BadState(
                f"What this client kept has no residual of {name!r:.80} that is {form}: it belongs "
                "to another model or strategy."
            )
        return array
