"""Comparison of several searches for the same task and objectives."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from nasflow.objectives import Objective
from nasflow.pareto import non_dominated
from nasflow.report.canvas import SERIES, Plot, render
from nasflow.report.differences import Compared, Difference, check_tasks, differences, purpose, warnings
from nasflow.report.markup import Section, paragraph, section, table, write_page
from nasflow.report.page import plot_section
from nasflow.report.plots import axes_of, describe_box, finish, over_slots, running_best, stairs
from nasflow.report.results import Box, Floats, Results
from nasflow.report.text import aim, bounds, count, esc, figure, label, listing, moment, name
from searchspaces.errors import ConfigError

_DASHES = ("-", "--", ":", "-.")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
Runs = Sequence[Compared]
Named = Sequence[tuple[str, Results]]


def write_comparison(out: Path, runs: Runs, title: str = "Comparison of searches") -> Path:
    """Write a self-contained page that compares searches, and its plots as PNG into the folder `<out's name>_plots`.

    Hypervolumes of all runs are taken in one box, from the best to 10 % beyond the worst feasible trial of any run.
    The page lists the settings in which the runs differ, and warns of those that keep figures from comparing. Runs
    of different spaces are compared, with a warning, for their networks solve the same task; those of different
    tasks are not.

    Args:
        out: The page.
        runs: The searches.
        title: Heading of the page.

    Returns:
        Path of the page.

    Raises:
        ConfigError: If there are fewer than two runs, they do not optimise the same metrics, or their tasks differ.
    """
    if len(runs) < 2:
        raise ConfigError(f"A comparison needs at least two runs, but got {len(runs)}: name more folders.")
    entries = _common_objectives(runs)
    check_tasks(runs)
    runs = _distinct(runs)
    named = [(run.name, Results.of(run.study)) for run in runs]
    counted = [results.losses[results.feasible] for _, results in named]
    losses = np.concatenate(counted)
    box = Box.around(losses) if len(losses) else None
    plots = _plots(named, entries, box)
    found = differences(runs)
    notices = [paragraph(html, "notice") for html in warnings(runs, found)]
    written = moment(datetime.now(UTC))
    lead = paragraph(esc(_sentence(named, entries, box)), "lead")
    parts = [
        section("summary", "Runs", *notices, lead, _table(named, runs, box)),
        _settings(runs, found),
        plot_section("plots", "Progress and Pareto fronts" if len(entries) > 1 else "Progress", plots),
    ]
    for plot in plots:
        plot.save(out.parent / f"{out.stem}_plots")
    subtitle = f"nasflow comparison, written <time>{esc(written)}</time>"
    return write_page(out, title, subtitle, [part for part in parts if part])


def _settings(runs: Runs, found: Sequence[Difference]) -> Section:
    """The settings in which the runs differ."""
    if not found:
        return section("settings", "Settings", paragraph("The runs differ in nothing but budget and seed."))
    heads = ["Setting", "decides", *(_breakable(run.name) for run in runs)]
    rows = [[_breakable(entry.key), esc(purpose(entry)), *map(esc, entry.values)] for entry in found]
    listed = table("Settings that differ, beside budget and seed", heads, rows, [False] * len(heads))
    return section("settings", "Settings", listed)


def _common_objectives(runs: Runs) -> tuple[Objective, ...]:
    entries = runs[0].study.objectives.optimised
    wanted = [(entry.metric, entry.direction) for entry in entries]
    for run in runs[1:]:
        found = [(entry.metric, entry.direction) for entry in run.study.objectives.optimised]
        if found != wanted:
            raise ConfigError(
                f"Only runs that optimise the same metrics can be compared, but {runs[0].name!r} has {_goals(wanted)} "
                f"and {run.name!r} has {_goals(found)}. Leave one out, or search again with the same objective."
            )
    return entries


def _goals(pairs: Sequence[tuple[str, str | None]]) -> str:
    return ", ".join(f"{direction} {metric}" for metric, direction in pairs)


def _distinct(runs: Runs) -> list[Compared]:
    """Number runs of the same name."""
    names = [run.name for run in runs]
    numbered = [
        f"{text} ({names[: i + 1].count(text)})" if names.count(text) > 1 else text for i, text in enumerate(names)
    ]
    # matplotlib leaves out what begins with an underscore
    shown = [f" {text}" if text.startswith("_") else text for text in numbered]
    return [replace(run, name=text) for text, run in zip(shown, runs, strict=True)]


def _breakable(text: str) -> str:
    """Return an override as HTML that may break between its parts."""
    return "<wbr>".join(esc(part) for part in re.split(r"(?<=[.,=/])(?!\d)", text))


def _sentence(named: Named, entries: Sequence[Objective], box: Box | None) -> str:
    goals = listing([f"{aim(entry)} {name(entry.metric)}" for entry in entries])
    evaluations = count(sum(len(results) for _, results in named), "evaluation")
    where = f" Hypervolumes are shares of the box {describe_box(entries, box)}." if box and len(entries) > 1 else ""
    return f"{len(named)} searches to {goals}, {evaluations} in all.{where}"


def _table(named: Named, runs: Runs, box: Box | None) -> str:
    entries, joint = runs[0].study.objectives.optimised, _joint_front(named)
    heads = ["Run", "space", "seed", "bounds", "evaluations", "failed", "non-dominated", "in the joint front"]
    heads += [f"best {esc(label(entry.metric))}<small>{aim(entry)}</small>" for entry in entries]
    rows = []
    for (text, results), run, members in zip(named, runs, joint, strict=True):
        limits = "; ".join(f"{name(entry.metric)} {bounds(entry)}" for entry in results.objectives.bounded)
        budget = f" of {run.config['budget']}" if "budget" in run.config else ""
        cells = [_breakable(text), esc(run.study.space.name), str(run.study.seed), esc(limits or "none")]
        cells.append(esc(f"{len(results):,}{budget}"))
        cells += [f"{len(results.in_state('failed')):,}", str(len(results.front)), str(members)]
        cells += [figure(running_best(results, entry)[-1]) if len(results) else "–" for entry in entries]
        if len(entries) > 1:
            cells.append(figure(results.hypervolumes(box)[-1]) if box and len(results) else "–")
        rows.append(cells)
    if len(entries) > 1:
        heads.append("hypervolume")
    return table("One line per run", heads, rows, [False, False, True, False, *[True] * (len(heads) - 4)])


def _joint_front(named: Named) -> list[int]:
    """Number of models that each run has in the front of all runs together."""
    losses = [results.losses[results.front] for _, results in named]
    owner = np.repeat(np.arange(len(named)), [len(part) for part in losses])
    members = owner[non_dominated(np.concatenate(losses))]
    return [int((members == i).sum()) for i in range(len(named))]


def _plots(named: Named, entries: Sequence[Objective], box: Box | None) -> list[Plot]:
    """Plots of the progress and of the fronts; none where no run has a feasible trial."""
    if box is None:
        return []
    if len(entries) == 1:
        best = f"best {label(entries[0].metric)}"
        return [_progress(named, lambda results: running_best(results, entries[0]), best)]
    progress = _progress(named, lambda results: results.hypervolumes(box), "hypervolume (share of the box)")
    pairs = combinations(range(len(entries)), 2)
    return [progress, *(_fronts(named, entries, *axes_of(entries, first, second)) for first, second in pairs)]


def _progress(named: Named, series: Callable[[Results], Floats], y_label: str) -> Plot:
    def paint(axes: Axes) -> None:
        for i, (text, results) in enumerate(named):
            axes.plot(results.slots, series(results), drawstyle="steps-post", label=text, linewidth=1.6, **_style(i))
        over_slots(axes, y_label)

    return render("progress", f"{y_label[0].upper()}{y_label[1:]} by slot, one line per run.", paint)


def _fronts(named: Named, entries: Sequence[Objective], x: int, y: int) -> Plot:
    def paint(axes: Axes) -> None:
        for i, (text, results) in enumerate(named):
            front = results.front[stairs(results.losses[results.front], x, y)]
            points = results.column(entries[x].metric)[front], results.column(entries[y].metric)[front]
            style = _style(i) | {"marker": _MARKERS[i % len(_MARKERS)], "markersize": 5}
            axes.plot(*points, drawstyle="steps-post", label=text, linewidth=1.3, **style)
        finish(axes, label(entries[x].metric), label(entries[y].metric))

    caption = f"Non-dominated trials by {name(entries[x].metric)} and {name(entries[y].metric)}, one line per run."
    return render("front" if len(entries) == 2 else f"front_{x}_{y}", caption, paint)


def _style(i: int) -> dict[str, Any]:
    """Colour and dashes of run `i`: told apart without colours too."""
    return {"color": SERIES[i % len(SERIES)], "linestyle": _DASHES[i % len(_DASHES)]}
