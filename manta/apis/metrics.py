"""What tasks logged with `world.log_metrics`, as a list."""

from __future__ import annotations

from typing import TYPE_CHECKING

from manta.apis.errors import MissingPackage
from manta.apis.overviews import MetricsOverview

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
        names = dict.fromkeys(name for item in self for name in item.metrics)
        columns = [f"metric.{name}" if name in _COLUMNS else name for name in names]
        rows = [
            [item[column] for column in _COLUMNS]
            + [item.metrics.get(name, float("nan")) for name in names]
            for item in self
        ]
        return pandas.DataFrame(rows, columns=[*_COLUMNS, *columns])
