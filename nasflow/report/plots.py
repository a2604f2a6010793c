"""Plots of a study's results."""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from nasflow.objectives import Objective
from nasflow.report.canvas import FRONT, INK, MISSED, MUTED, Plot, render
from nasflow.report.results import Box, Floats, Results
from nasflow.report.text import aim, count, label, name, number, quantity
from nasflow.study.predictions import unmeasured

Indices = NDArray[np.int64]
Points = tuple[Floats, Floats]
_RASTERED = 1000  # more dots than this are an image within the SVG, which stays small
_FRAMED = 8  # with fewer points nothing is an outlier
_LEGEND_WIDTH = 84  # letters that fit side by side
_NUMBERED = 14  # larger fronts have no slot numbers, which would cover each other


def front_plots(results: Results) -> Iterator[Plot]:
    """Plot every pair of objectives: all trials, the front, the bounds; nothing for a single objective."""
    entries = results.objectives.optimised
    for first, second in combinations(range(len(entries)), 2):
        x, y = axes_of(entries, first, second)
        yield _front_plot(results, x, y, "front" if len(entries) == 2 else f"front_{x}_{y}")


def axes_of(entries: Sequence[Objective], first: int, second: int) -> tuple[int, int]:
    """Return which objective goes on the x axis and which on the y axis: what is maximised goes up."""
    if entries[first].direction == "minimize" and entries[second].direction == "maximize":
        return first, second
    return second, first


def stairs(losses: Floats, x: int, y: int) -> Indices:
    """Return positions of the points of `losses (n, k)` that no other dominates in columns `x` and `y`, by `x`."""
    best, kept = np.inf, []
    for i in np.lexsort((losses[:, y], losses[:, x])):
        if losses[i, y] < best:
            best = losses[i, y]
            kept.append(i)
    return np.array(kept, dtype=np.int64)


def _front_plot(results: Results, x: int, y: int, stem: str) -> Plot:
    entries = results.objectives.optimised[x], results.objectives.optimised[y]
    points = results.column(entries[0].metric), results.column(entries[1].metric)
    known = np.isfinite(points[0]) & np.isfinite(points[1])
    dominated = results.feasible & known
    dominated[results.front] = False
    predicted = np.array([bool(unmeasured(record)) for record in results.records], dtype=np.bool_)

    def paint(axes: Axes) -> None:
        _crosses(axes, points, np.flatnonzero(results.missed & known))
        _rings(axes, points, np.flatnonzero(dominated & ~predicted), "dominated")
        _rings(axes, points, np.flatnonzero(dominated & predicted), "predicted, not measured", style="dotted")
        if len(results.front):
            _front(axes, results, points, x, y)
        else:
            nearest = [i for i in results.nearest(1) if known[i]]
            if nearest:
                place = points[0][nearest], points[1][nearest]
                axes.scatter(*place, s=130, facecolors="none", edgecolors=FRONT, label="nearest to the bounds")
        _bounds(axes, entries[0], axis="x")
        _bounds(axes, entries[1], axis="y")
        _scales(axes, *points)
        _frame(axes, points, results.front)
        finish(axes, label(entries[0].metric), label(entries[1].metric))

    return render(stem, _front_caption(results, entries, int(known.sum())), paint)


def _front(axes: Axes, results: Results, points: Points, x: int, y: int) -> None:
    front = results.front
    steps = front[stairs(results.losses[front], x, y)]
    axes.plot(points[0][steps], points[1][steps], drawstyle="steps-post", color=FRONT, linewidth=1.4)
    dots = axes.scatter(points[0][front], points[1][front], s=34, c=FRONT, zorder=3, label="non-dominated")
    _link(dots, results.slots[front])
    if len(front) <= _NUMBERED:
        _number(axes, results, points, x, y)


def _number(axes: Axes, results: Results, points: Points, x: int, y: int) -> None:
    """Write slot numbers on the better side of the front's points, where no other points are."""
    entries = results.objectives.optimised
    right, up = entries[x].direction == "maximize", entries[y].direction == "maximize"
    side: Literal["left", "right"] = "left" if right else "right"
    for i in results.front:
        place = (float(points[0][i]), float(points[1][i]))
        offset = (4 if right else -4, 3 if up else -9)
        text = str(results.slots[i])
        axes.annotate(text, place, offset, textcoords="offset points", ha=side, fontsize=7.5, color=INK)


def _link(dots: PathCollection, slots: Indices) -> None:
    """Let each point lead to its model's place on the page."""
    dots.set_urls([f"#slot-{slot}" for slot in slots])


def _front_caption(results: Results, entries: tuple[Objective, Objective], shown: int) -> str:
    goals = " and ".join(f"{name(entry.metric)} {aim(entry)}d" for entry in entries)
    hidden = len(results) - shown
    absent = f" {count(hidden, 'trial')} without both figures cannot be shown." if hidden else ""
    numbered = " Numbers are slots." if 0 < len(results.front) <= _NUMBERED else ""
    several = len(results.objectives.optimised) > 2 and len(results.front)
    line = " Dots are non-dominated in all objectives, the line in these two." if several else ""
    return f"{count(shown, 'trial')}, {goals}.{line}{numbered}{absent}"


def history_plots(results: Results) -> Iterator[Plot]:
    """Plot each objective over the slots, with the best feasible value so far."""
    entries = results.objectives.optimised
    for i, entry in enumerate(entries):
        yield _history_plot(results, entry, "history" if len(entries) == 1 else f"history_{i}")


def _history_plot(results: Results, entry: Objective, stem: str) -> Plot:
    values = results.column(entry.metric)
    points = results.slots.astype(np.float64), values
    best = running_best(results, entry)
    failed = [record.slot for record in results.in_state("failed")]

    def paint(axes: Axes) -> None:
        _rings(axes, points, np.flatnonzero(results.feasible), _counted("evaluated", int(results.feasible.sum())), INK)
        _infeasible(axes, results, points)
        if failed:
            low, text = [0.02] * len(failed), _counted("failed", len(failed))
            axes.plot(failed, low, "|", transform=axes.get_xaxis_transform(), c=MISSED, markersize=9, label=text)
        if results.feasible.any():
            axes.plot(points[0], best, drawstyle="steps-post", color=FRONT, linewidth=1.6, label="best so far")
        _bounds(axes, entry, axis="y")
        _scales(axes, None, values)
        _frame(axes, (points[0], values), np.flatnonzero(np.isin(values, best)))
        margin = 0.03 * float(np.ptp(points[0])) + 0.5  # all slots, also those without a mark
        axes.set_xlim(points[0][0] - margin, points[0][-1] + margin)
        if not np.isfinite(values).any():
            axes.set_yticks([])
        over_slots(axes, label(entry.metric))

    outcome = f"best {quantity(entry.metric, best[-1])}" if results.feasible.any() else "no trial meets the bounds"
    hidden = sum(entry.metric not in record.metrics for record in results.in_state("ruled_out"))
    absent = f" {count(hidden, 'slot')} ruled out before it was known, marked at the lower edge." if hidden else ""
    if any(entry.metric in unmeasured(record) for record in results.records):
        absent += " Where it was not measured it is predicted."
    title = name(entry.metric)[:1].upper() + name(entry.metric)[1:]
    return render(stem, f"{title} by slot, {aim(entry)}d: {outcome}.{absent}", paint)


def _infeasible(axes: Axes, results: Results, points: Points) -> None:
    """Mark what does not count: trials that miss a bound, and ruled-out slots, at the lower edge where not known."""
    ruled_out = np.array([record.state == "ruled_out" for record in results.records])
    known = np.isfinite(points[1])
    kinds = (results.missed & ~ruled_out, "x", 24, "misses a bound"), (ruled_out, "1", 40, "ruled out")
    for which, marker, size, text in kinds:
        if not which.any():
            continue
        many = int(which.sum()) > _RASTERED
        style: dict[str, Any] = {"marker": marker, "c": MUTED, "s": size, "linewidths": 1.0, "rasterized": many}
        seen, hidden = points[0][which & known], points[0][which & ~known]
        axes.scatter(seen, points[1][which & known], label=_counted(text, int(which.sum())), **style)
        axes.scatter(hidden, np.full_like(hidden, 0.02), transform=axes.get_xaxis_transform(), **style)


def _counted(text: str, n: int) -> str:
    return f"{text} ({n:,})"


def running_best(results: Results, entry: Objective) -> Floats:
    """Return the best feasible value of a metric up to each record, NaN before the first, shape `(n,)`."""
    values = np.where(results.feasible, results.column(entry.metric), np.nan)
    better = np.fmax if entry.direction == "maximize" else np.fmin
    return np.asarray(better.accumulate(values), dtype=np.float64)


def hypervolume_plot(results: Results, box: Box) -> Plot:
    """Plot the share of `box` that is dominated, over the slots."""
    values = results.hypervolumes(box)

    def paint(axes: Axes) -> None:
        axes.plot(results.slots, values, drawstyle="steps-post", color=FRONT, linewidth=1.6)
        axes.fill_between(results.slots, values, step="post", color=FRONT, alpha=0.12, linewidth=0)
        axes.set_ylim(0, 1)
        over_slots(axes, "hypervolume (share of the box)")

    where = describe_box(results.objectives.optimised, box)
    return render("hypervolume", f"Dominated share, {number(values[-1])} in the end, of the box {where}.", paint)


def describe_box(entries: Sequence[Objective], box: Box) -> str:
    """Say where the box of hypervolumes begins and ends, in the metrics' own signs."""
    signs = [-1.0 if entry.direction == "maximize" else 1.0 for entry in entries]
    corners = [
        [f"{name(e.metric)} {quantity(e.metric, s * v)}" for e, s, v in zip(entries, signs, corner, strict=True)]
        for corner in (box.reference, box.ideal)
    ]
    return f"from the reference point ({', '.join(corners[0])}) to the best seen values ({', '.join(corners[1])})"


def _crosses(axes: Axes, points: Points, which: Indices) -> None:
    if len(which):
        x, y, many = points[0][which], points[1][which], len(which) > _RASTERED
        axes.scatter(x, y, marker="x", c=MISSED, s=24, label="misses a bound", rasterized=many)


def _rings(
    axes: Axes, points: Points, which: Indices, text: str, colour: str = MUTED, style: str = "solid"
) -> None:
    if len(which):
        x, y, many = points[0][which], points[1][which], len(which) > _RASTERED
        rings: dict[str, Any] = {"facecolors": "none", "edgecolors": colour, "linestyles": style}
        axes.scatter(x, y, s=22, label=text, rasterized=many, **rings)


def _bounds(axes: Axes, entry: Objective, axis: str) -> None:
    """Draw an objective's bounds as dashed lines across `axis`."""
    draw = axes.axvline if axis == "x" else axes.axhline
    for word, limit in (("at least", entry.at_least), ("at most", entry.at_most)):
        if limit is not None:
            text = f"{word} {quantity(entry.metric, limit)}"
            draw(limit, color=MISSED, linestyle=(0, (4, 3)), linewidth=1.1, label=text)


def _scales(axes: Axes, x: Floats | None, y: Floats) -> None:
    """Use a logarithmic axis for positive values that span much."""
    for values, scale in ((x, axes.set_xscale), (y, axes.set_yscale)):
        finite = values[np.isfinite(values)] if values is not None else np.empty(0)
        if len(finite) and finite.min() > 0 and finite.max() > 50 * finite.min():
            scale("log")


def frame(values: Floats, keep: Indices) -> tuple[float, float] | None:
    """Return limits of an axis that leave far outliers of `values (n,)` out, or None where there are none.

    Far is beyond the quartiles by more than four times their distance; the points `keep` are always inside.
    """
    finite = values[np.isfinite(values)]
    if len(finite) < _FRAMED:
        return None
    low, high = np.percentile(finite, [25, 75])
    reach = 4 * (high - low)
    inside = finite[(finite >= low - reach) & (finite <= high + reach)]
    if reach == 0 or len(inside) == len(finite):
        return None
    shown = np.concatenate([inside, values[keep]])
    margin = 0.06 * float(np.ptp(shown))
    return float(shown.min()) - margin, float(shown.max()) + margin


def _frame(axes: Axes, points: Points, keep: Indices) -> None:
    """Show the bulk of the points; arrows at the rim stand for those far away."""
    limits = frame(points[0], keep), frame(points[1], keep)
    if limits[0] and axes.get_xscale() == "linear":
        axes.set_xlim(*limits[0])
    if limits[1] and axes.get_yscale() == "linear":
        axes.set_ylim(*limits[1])
    known = np.isfinite(points[0]) & np.isfinite(points[1])
    x, y = points[0][known], points[1][known]
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    text: str | None = "outside the frame"
    for outside, marker, place in (
        (y < bottom, "v", (x, np.full_like(y, bottom))),
        (y > top, "^", (x, np.full_like(y, top))),
        (x < left, "<", (np.full_like(x, left), y)),
        (x > right, ">", (np.full_like(x, right), y)),
    ):
        if outside.any():
            axes.scatter(place[0][outside], place[1][outside], marker=marker, c=MUTED, s=30, clip_on=False, label=text)
            text = None


def over_slots(axes: Axes, y_label: str) -> None:
    """Finish axes whose x axis counts slots."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    finish(axes, "slot", y_label)


def finish(axes: Axes, x_label: str, y_label: str) -> None:
    """Write what the axes and the marks mean."""
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        columns = max(1, min(3, _LEGEND_WIDTH // (max(map(len, labels)) + 6)))
        style = {"ncols": columns, "handletextpad": 0.4, "columnspacing": 1.2}
        axes.figure.legend(handles, labels, loc="outside upper left", **style)
