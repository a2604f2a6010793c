"""The report of one search: a self-contained page, and its plots as PNG."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nasflow.models import Model
from nasflow.report import sections
from nasflow.report.canvas import Plot
from nasflow.report.markup import Section, section, write_page
from nasflow.report.plots import front_plots, history_plots, hypervolume_plot
from nasflow.report.predictions import prediction_plots, predictions
from nasflow.report.provenance import provenance
from nasflow.report.results import Box, Results, Times
from nasflow.report.text import esc, moment
from nasflow.study.study import Study
from searchspaces.genes import GeneSpace
from searchspaces.task import Task

PAGE, PLOTS = "report.html", "plots"
_STEMS = ("front", "history", "hypervolume", "predictions")


def write_report(
    folder: Path,
    study: Study,
    space: GeneSpace,
    task: Task,
    config: Mapping[str, Any],
    environment: Mapping[str, Any],
    models: Sequence[Model],
    title: str,
) -> Path:
    """Write `report.html` and `plots/*.png` into `folder`, replacing former ones.

    The page needs nothing from elsewhere; equal inputs give equal pages but for the time of writing. Plots of a
    former report that this one does not have are deleted.

    Args:
        folder: Folder of the run.
        study: Its study, finished or under way.
        space: The space that was searched.
        task: The task it was searched for.
        config: The resolved configuration; `budget`, `strategy`, `predictor`, `encoding` and `device` stand in the
            summary, `reference` (per optimised metric a value) is the reference point of hypervolumes. Without it, that
            lies beyond the worst feasible trial by 10 % of the feasible trials' range.
        environment: What it ran on, as `nasflow.environment` gives it.
        models: The ONNX files that the run hands back, inside `folder`.
        title: Heading of the page.

    Returns:
        Path of the page.

    Raises:
        ConfigError: If the configured reference point lacks an objective.
    """
    results = Results.of(study)
    times = Times.of(study, results.records)
    run = sections.Run(folder, results, times, space, task, config, environment, models)
    fronts, histories = _plots(results, config.get("reference"))
    checked = list(prediction_plots(results))
    written = moment(datetime.now(UTC))
    parts = [
        sections.summary(run),
        plot_section("front", "Pareto front", fronts),
        plot_section("history", "Search history", histories),
        sections.models(run),
        predictions(results, checked),
        sections.failures(run),
        sections.trials(run),
        provenance(run, study, written),
    ]
    _save(folder / PLOTS, [*fronts, *histories, *checked])
    subtitle = f"nasflow search report, written <time>{esc(written)}</time>"
    return write_page(folder / PAGE, title, subtitle, [part for part in parts if part])


def _plots(results: Results, reference: Mapping[str, float] | None) -> tuple[list[Plot], list[Plot]]:
    """Plots of the front and of the history."""
    if not any(record.metrics for record in results.records):
        return [], []
    fronts = list(front_plots(results))
    if fronts and results.feasible.any():
        losses = results.losses[results.feasible]
        box = Box.below(reference, results.objectives, losses) if reference else Box.around(losses)
        fronts.append(hypervolume_plot(results, box))
    return fronts, list(history_plots(results))


def plot_section(key: str, title: str, plots: Sequence[Plot]) -> Section | None:
    """Plots side by side where there is room; None without plots."""
    figures = "".join(plot.html() for plot in plots)
    return section(key, title, f'<div class="plots">{figures}</div>') if plots else None


def _save(folder: Path, plots: Sequence[Plot]) -> None:
    """Write the plots into `folder`, and delete those of a former report that this one does not have."""
    for path in [path for stem in _STEMS for path in folder.glob(f"{stem}*.png")]:
        if path.stem not in {plot.stem for plot in plots}:
            path.unlink()
    for plot in plots:
        plot.save(folder)
