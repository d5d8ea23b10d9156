"""Results that tasks wrote with `world.results`, and how to select among them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

from manta.apis import checks, exports
from manta.apis.errors import Ambiguous, InvalidArgument, MissingPackage, NotFound
from manta.console.visible import visible
from manta.protocol.names import file_name, meant

if TYPE_CHECKING:
    from pandas import DataFrame

    from manta.protocol.user import ResultItem


class Result:
    """A value that an instance of a task wrote under a tag in an iteration.

    `counts` is False for what a failed attempt wrote. `value` is decoded when it is first
    accessed; arrays are views of what was received, so large ones take memory only as they are
    read. That of a task with `collect` may stay on its node: `away` says why that cannot give it,
    and `value` raises NotFound then.
    """

    def __init__(
        self,
        *,
        iteration: int,
        tag: str,
        node_id: str,
        node_alias: str,
        alias: str,
        index: int,
        attempt: int,
        counts: bool,
        load: Callable[[], Any],
        away: str = "",
    ) -> None:
        self.iteration = iteration
        self.tag = tag
        self.node_id = node_id
        self.node_alias = node_alias
        self.alias = alias
        self.index = index
        self.attempt = attempt
        self.counts = counts
        self.away = away
        self._load = load

    @classmethod
    def of(cls, item: ResultItem, load: Callable[[], Any]) -> Result:
        return cls(load=load, **{name: getattr(item, name) for name in _COLUMNS[:-1]})

    @classmethod
    def lost(cls, item: ResultItem, error: Exception) -> Result:
        """A result whose value stays on a node that cannot give it."""

        def load() -> Any:
            raise error

        found = cls.of(item, load)
        found.away = str(error)
        return found

    @cached_property
    def value(self) -> Any:
        """The value that was written, decoded when it is first accessed."""
        return self._load()

    def __repr__(self) -> str:
        lost = "" if self.counts else f", failed attempt {self.attempt}"
        return (
            f"<Result {self.tag!r} of {self.alias}.{self.index} on {self.node_alias} "
            f"in iteration {self.iteration}{lost}>"
        )

    def row(self) -> dict[str, Any]:
        """Returns what a notebook shows of it, by column."""
        lost = "" if self.counts else f" (failed attempt {self.attempt})"
        return {
            "iteration": self.iteration,
            "tag": self.tag,
            "node": self.node_alias,
            "task": f"{self.alias}.{self.index}{lost}",
            "value": _brief(self.value),
        }


class Results(Sequence[Result]):
    """Results in the order in which they arrived.

    Call it with an iteration, a list of iterations, a tag, or a node's id or alias to select
    results, and with several to narrow them down: `results("accuracy", 3)`,
    `results([0, 1])("node-1")`. Use a keyword, `results(tag="left")`, where a tag and a node have
    the same name. `values()` returns the values, `by_node()` maps nodes to them.
    """

    def __init__(self, results: Iterable[Result] = ()) -> None:
        self._results = tuple(results)

    def __call__(
        self,
        *selectors: int | str | Sequence[int],
        iteration: int | Sequence[int] | None = None,
        node_id: str | None = None,
        tag: str | None = None,
    ) -> Results:
        """Selects results. Raises NotFound, listing what there is, when nothing fits."""
        found = self
        for selector in selectors:
            found = found._narrowed(selector)
        if iteration is not None:
            found = found._of_iterations(iteration)
        if node_id is not None:
            found = found._named(node_id, _NODE)
        if tag is not None:
            found = found._named(tag, _TAG)
        return found

    def _narrowed(self, selector: object) -> Results:
        selector = checks.plain(selector)
        if isinstance(selector, str):
            return self._named(selector, (*_TAG, *_NODE))
        return self._of_iterations(selector)

    def _of_iterations(self, selector: object) -> Results:
        selector = checks.plain(selector)
        if isinstance(selector, Iterable) and not isinstance(selector, str | bytes | Mapping):
            wanted = set()
            for item in selector:
                wanted |= {result.iteration for result in self._of_iterations(_iteration(item))}
            return self._where(lambda result: result.iteration in wanted)
        iteration = _iteration(selector)
        found = self._where(lambda result: result.iteration == iteration)
        if not found:
            there = f"there are {_ranges(self.iterations)}" if self else "there are none at all"
            raise NotFound(f"No results of iteration {iteration}: {there}.")
        return found

    def _named(self, name: object, fields: tuple[str, ...]) -> Results:
        """Selects by the first of these fields that fits; a node id may be cut short."""
        what = " or ".join(["tag"] * ("tag" in fields) + ["node"] * ("node_id" in fields))
        if not isinstance(name, str):
            raise InvalidArgument(f"Results were asked for the {what} {name!r}: give a string.")
        for field in fields:
            found = Results(result for result in self if getattr(result, field) == name)
            if found:
                return found
        ids: list[str] = []
        if "node_id" in fields and name:
            ids = [node_id for node_id in self.node_ids if node_id.startswith(name)]
        if len(ids) == 1:
            return self._where(lambda result: result.node_id == ids[0])
        if ids:
            raise Ambiguous(f"{name!r} fits {len(ids)} nodes: give more of the id.")
        there, near = "there are none at all", ""
        if self:
            nodes = dict.fromkeys(result.node_alias for result in self)
            told = {"tag": self.tags, "node": nodes}
            names = [f"the {one}s {', '.join(told[one])}" for one in what.split(" or ")]
            there = f"there are {' and '.join(names)}"
            near = meant(name, [one for kind in what.split(" or ") for one in told[kind]])
        raise NotFound(f"No results of a {what} {name!r}: {there}.{near}")

    def _where(self, accept: Callable[[Result], bool]) -> Results:
        return Results(result for result in self._results if accept(result))

    @overload
    def __getitem__(self, index: int) -> Result: ...
    @overload
    def __getitem__(self, index: slice) -> Results: ...
    def __getitem__(self, index: int | slice) -> Result | Results:
        if isinstance(index, slice):
            return Results(self._results[index])
        return self._results[index]

    def __len__(self) -> int:
        return len(self._results)

    @property
    def iterations(self) -> list[int]:
        """The iterations that have results, in ascending order."""
        return sorted({result.iteration for result in self})

    @property
    def tags(self) -> list[str]:
        """The tags, in order of arrival."""
        return list(dict.fromkeys(result.tag for result in self))

    @property
    def node_ids(self) -> list[str]:
        """The ids of the nodes that wrote results, in order of arrival."""
        return list(dict.fromkeys(result.node_id for result in self))

    def values(self) -> list[Any]:
        """Returns the values, ordered by iteration, tag, task and instance."""
        return [result.value for result in sorted(self, key=_rank)]

    def by_node(self) -> dict[str, Any]:
        """Returns {node_id: value}; the key is `node_id/alias.k` where a node has several.

        Of several values of one instance it is the last, as in tasks. What a failed attempt
        wrote, if it was asked for, has a key of its own, `node_id/alias.k@attempt`. Raises
        InvalidArgument unless the results are of one tag and one iteration.
        """
        if len(self.tags) > 1 or len(self.iterations) > 1:
            raise InvalidArgument(
                f"by_node() of {len(self.iterations)} iterations and {len(self.tags)} tags: "
                "choose one of each first, as in results(tag, iteration).by_node()."
            )
        last = {_place(result): result for result in sorted(self, key=_rank)}
        several = Counter(result.node_id for result in last.values() if result.counts)
        return {
            result.node_id if result.counts and several[result.node_id] == 1 else where: (
                result.value
            )
            for where, result in last.items()
        }

    def to_pandas(self) -> DataFrame:
        """Returns a data frame with a row per result, by iteration, tag, task and instance.

        Columns: iteration, tag, node_id, node_alias, alias, index, attempt, counts, value.
        Values are not converted: an array is one object in its cell. Raises MissingPackage.
        """
        pandas = _package("pandas", "to_pandas()")
        frame: DataFrame = pandas.DataFrame(
            [[getattr(result, name) for name in _COLUMNS] for result in sorted(self, key=_rank)],
            columns=list(_COLUMNS),
        )
        return frame

    def to_parquet(self, path: str | os.PathLike[str]) -> None:
        """Writes a table with the rows of `to_pandas`; numbers, texts and bytes keep their type.

        Other values become JSON, arrays nested lists, NaN and the infinities in them null;
        `value_type` says what each was: number, text, bytes, json or array (with its dtype).
        Raises MissingPackage, and NotFound when
        there are no results, since an empty file would look like success.
        """
        pyarrow = _package("pyarrow", "to_parquet()")
        parquet = _package("pyarrow.parquet", "to_parquet()")
        self._require_some(path)
        rows = sorted(self, key=_rank)
        columns = {name: [getattr(result, name) for result in rows] for name in _COLUMNS[:-1]}
        flat = [exports.cell(result.value) for result in rows]
        for kind in ("number", "text", "bytes"):
            columns[kind] = [value if type_ == kind else None for type_, value in flat]
        columns["json"] = [
            value if type_ not in ("number", "text", "bytes") else None for type_, value in flat
        ]
        columns["value_type"] = [type_ for type_, _ in flat]
        types = {"number": pyarrow.float64(), "text": pyarrow.string(), "bytes": pyarrow.binary()}
        types["json"] = pyarrow.string()
        arrays = {name: pyarrow.array(kept, types.get(name)) for name, kept in columns.items()}
        parquet.write_table(pyarrow.table(arrays), os.fspath(path))

    def to_npz(self, path: str | os.PathLike[str]) -> None:
        """Writes arrays, tensors, numbers and texts to one .npz file, whose name ends with that.

        Keys are `iteration/tag/node/alias.k`, with `@attempt` for what a failed attempt wrote,
        followed by `/key` for each entry of a dict or list. What means something in a path is
        %XX in each of these, and a key that is taken gets `#2`, `#3`, ... at its end. Tensors of a
        type that numpy lacks, such as bfloat16, become float32. Raises InvalidArgument for a value
        that .npz cannot hold, and NotFound when there are no results, since an empty file would
        look like success.
        """
        self._require_some(path)
        arrays = exports.arrays(
            (
                f"{result.iteration}/{file_name(result.tag)}/{_place(result, file_name)}",
                result.value,
            )
            for result in sorted(self, key=_rank)
        )
        text = os.fspath(path)
        exports.write_npz(text if text.endswith(".npz") else f"{text}.npz", arrays)

    def _require_some(self, path: str | os.PathLike[str]) -> None:
        if not self:
            raise NotFound(
                f"There are no results to write to {os.fspath(path)}: the swarm wrote none so "
                "far, or the selection fits none; `list_result_tags` says what there is."
            )

    def __repr__(self) -> str:
        if not self:
            return "<Results: none>"
        tags = self.tags
        shown = (
            ", ".join(tags) if len(tags) <= 6 else f"{', '.join(tags[:5])} and {len(tags) - 5} more"
        )
        nodes = len(self.node_ids)
        where = f"{_ranges(self.iterations)}, {nodes} node{'s' * (nodes != 1)}"
        return f"<Results: {len(self)} of {visible(shown)}, {where}>"

    def _repr_html_(self) -> str:
        """Shows the first rows as a table in notebooks."""
        from manta.apis import drawing

        rows = [result.row() for result in self[:MOST_ROWS]]
        return drawing.table(repr(self).strip("<>"), rows, len(self) - len(rows))


MOST_ROWS = 20
"""Results that a notebook shows at most."""


def _brief(value: object) -> str:
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape and dtype is not None:
        return f"{dtype} array of {' x '.join(map(str, shape))}"
    return checks.shown(value)


_COLUMNS = (
    "iteration",
    "tag",
    "node_id",
    "node_alias",
    "alias",
    "index",
    "attempt",
    "counts",
    "value",
)


_TAG, _NODE = ("tag",), ("node_id", "node_alias")


def _package(name: str, what: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        raise MissingPackage(
            f"{what} needs {name}, which is not installed: pip install 'manta-swarm[data]'."
        ) from None


def _place(result: Result, quoted: Callable[[str], str] = str) -> str:
    """The node and the instance; with the attempt for what does not count."""
    failed = "" if result.counts else f"@{result.attempt}"
    return f"{quoted(result.node_id)}/{quoted(result.alias)}.{result.index}{failed}"


def _rank(result: Result) -> tuple[int, str, str, int, int]:
    return result.iteration, result.tag, result.alias, result.index, result.attempt


def _iteration(value: object) -> int:
    value = checks.plain(value)
    if not checks.is_integer(value):
        raise InvalidArgument(
            f"Results were asked for {checks.shown(value)}: "
            "give an iteration, a list of iterations, a tag, or a node's id or alias."
        )
    return value


def _ranges(iterations: list[int]) -> str:
    if len(iterations) == 1:
        return f"iteration {iterations[0]}"
    whole = iterations == list(range(iterations[0], iterations[-1] + 1))
    if whole:
        return f"iterations {iterations[0]} to {iterations[-1]}"
    return f"iterations {', '.join(map(str, iterations))}"
