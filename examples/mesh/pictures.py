"""Curves as a PNG, by matplotlib: `pip install 'manta-swarm[plot]'`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Series = Mapping[str, tuple[Sequence[float], Sequence[float]]]
"""By name: where each value is on the x-axis, and the values."""
STYLES = ("-", "--", "-.", ":")


def draw(
    path: str,
    series: Series,
    title: str,
    x: str,
    y: str,
    *,
    log: str = "",
    marks: Mapping[str, float] | None = None,
) -> None:
    """Draws the curves into a file. `log`: "x", "y" or "xy" for logarithmic axes. `marks`: what
    happened at which x, as lines from top to bottom."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.2, 4.0), layout="constrained")
    for number, (name, (xs, ys)) in enumerate(series.items()):
        axes.plot(xs, ys, STYLES[number % len(STYLES)], label=name, linewidth=1.8)
    for name, at in (marks or {}).items():
        axes.axvline(at, color="0.6", linewidth=1, linestyle=":")
        axes.annotate(
            name,
            (at, 1),
            xycoords=("data", "axes fraction"),
            xytext=(4, -14),
            textcoords="offset points",
            color="0.35",
            fontsize=9,
        )
    if "x" in log:
        axes.set_xscale("log", base=2)
    if "y" in log:
        axes.set_yscale("log")
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    if len(series) > 1:
        figure.legend(frameon=False, loc="outside right upper")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
