"""What tasks logged with `world.log_metrics`, as a list."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from manta.apis.curves import Axis, By, graphs
from manta.apis.errors import MissingPackage
from manta.apis.overviews import MetricsOverview
from manta.console.visible import visible

if TYPE_CHECKING:
    from pandas import DataFrame

_COLUMNS = ("iteration", "step", "node_id", "node_alias", "alias", "index", "attempt", "at")


class Metrics(list[MetricsOverview]):
    """A list with an entry for each call of `log_metrics`, in order of arrival."""

    def to_pandas(self) -> DataFrame:
        """Returns a data frame with a row per entry and a column per metric; NaN for a metric that
        the entry does not have.

        The other columns: iteration, step, node_id, node_alias, alias, index, attempt, and `at`,
        in seconds since the epoch. A metric of such a name gets `metric.` in front. Raises
        MissingPackage.
        """
        try:
            import pandas
        except ImportError:
            raise MissingPackage(
                "to_pandas() needs pandas, which is not installed: pip install 'manta-swarm[data]'."
            ) from None
        header, rows = self._table(float("nan"))
        return pandas.DataFrame(rows, columns=header)

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Writes a table in CSV (RFC 4180, but lines end with `\\n` alone) and UTF-8, with the
        columns of `to_pandas`; what an entry does not have is empty, and a NaN is `nan`. Characters
        that cannot be seen are written as `\\x1b`. Raises OSError."""
        with open(path, "w", encoding="utf-8", newline="") as file:
            self.write_csv(file)

    def write_csv(self, file: TextIO) -> None:
        """Writes the same to an open file."""
        import csv

        header, rows = self._table(None)
        writer = csv.writer(file, lineterminator="\n")
        lines: list[Sequence[object]] = [header, *rows]
        for row in lines:
            writer.writerow([visible(cell) if isinstance(cell, str) else cell for cell in row])

    def plot(
        self,
        path: str | os.PathLike[str],
        metrics: Sequence[str] = (),
        *,
        by: By = "mean",
        axis: Axis | None = None,
    ) -> None:
        """Draws these metrics, or all, to a .png, .svg or .pdf file: a graph for each, by "mean"
        over the instances of a task or by "node".

        `axis` is "iteration" or "step"; without it, "step" where that identifies each value.
        Raises NotFound, InvalidArgument, MissingPackage, OSError.
        """
        from manta.apis.picture import draw

        draw(path, graphs(self, metrics, by=by, axis=axis), "")

    def _table(self, lacking: float | None) -> tuple[list[str], list[list[object]]]:
        """Returns a header and rows; `lacking` stands for a metric that an entry lacks."""
        names = dict.fromkeys(name for item in self for name in item.metrics)
        columns = [f"metric.{name}" if name in _COLUMNS else name for name in names]
        rows = [
            [item[column] for column in _COLUMNS]
            + [item.metrics.get(name, lacking) for name in names]
            for item in self
        ]
        return [*_COLUMNS, *columns], rows
