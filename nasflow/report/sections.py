"""The parts of a search's report, each from the results to HTML."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from nasflow.models import Model, form
from nasflow.objectives import Objective
from nasflow.report.drawing import draw, legend
from nasflow.report.markup import Section, details, facts, paragraph, section, table, tiles
from nasflow.report.predictions import flag, notice
from nasflow.report.results import Results, Times, measured, noted
from nasflow.report.text import (
    aim,
    bounds,
    component,
    count,
    duration,
    esc,
    figure,
    label,
    listing,
    name,
    notation,
    quantity,
    spread,
)
from nasflow.study.records import Record
from searchspaces.genes import GeneSpace
from searchspaces.task import Task

SHOWN = 12  # drawings beyond these, and lists longer than this, open on a click
LISTED = 500  # trials beyond these are only in the study's log
_USUAL = form("fp32", 1)  # goes without saying
_SHOWN = ("strategy", "predictor", "encoding", "device")  # of the configuration


@dataclass(frozen=True)
class Run:
    """Everything a report is about.

    Attributes:
        folder: The run's folder; links are relative to it.
        results: What was found.
        times: When; None where the trials do not tell.
        space: What was searched.
        task: For which task.
        config: The resolved configuration.
        environment: What it ran on.
        models: The ONNX files that the run hands back, inside `folder`.
    """

    folder: Path
    results: Results
    times: Times | None
    space: GeneSpace
    task: Task
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    models: Sequence[Model] = ()

    def arch(self, record: Record) -> str:
        """Return a record's architecture in the space's notation, as HTML."""
        return notation(self.space.format(record.row[None])[0])

    def files(self, record: Record) -> list[Model]:
        """Return what the run hands back of a record."""
        return [model for model in self.models if model.slot == record.slot]


# -- summary -----------------------------------------------------------------------------------------------------


def summary(run: Run) -> Section:
    """What was searched and what came of it, in plain words and figures."""
    results = run.results
    parts = [paragraph(esc(_sentence(run)), "lead")]
    if len(results) and not len(results.front):
        parts.append(paragraph(_why_empty(run), "notice"))
    parts.append(notice(results))
    parts += [tiles(_figures(run)), facts(_facts(run))]
    if len(results.front) > 1 and len(results.objectives.optimised) > 1:
        parts.append(_ends(run))
    return section("summary", "Summary", *parts)


def _sentence(run: Run) -> str:
    results, front = run.results, run.results.front
    goals = listing([f"{aim(entry)} {name(entry.metric)}" for entry in results.objectives.optimised])
    limits = listing([f"{name(entry.metric)} {bounds(entry)}" for entry in results.objectives.bounded])
    kept = f", with {limits}" if limits else ""
    text = f"nasflow searched {run.space.name} for networks that {goals} on {run.task.name}{kept}. "
    if not len(results):
        return text + "No evaluation has finished yet."
    if not len(front):
        what = "meet the bounds" if results.missed.any() else "succeeded"
        return text + f"Of {count(len(results), 'evaluation')}, none {what}."
    ranges = [spread(e.metric, results.column(e.metric)[front].tolist()) for e in results.objectives.optimised]
    if len(results.objectives.optimised) == 1:
        return text + f"The best of {count(len(results), 'evaluation')} has {ranges[0]}."
    kind = "non-dominated model" + ("" if len(front) == 1 else "s")
    return text + f"{count(len(results), 'evaluation')} led to {len(front)} {kind} with {listing(ranges)}."


def _why_empty(run: Run) -> str:
    results = run.results
    if not results.missed.any():
        return f"<strong>No evaluation succeeded.</strong> The last one said: {esc(results.records[-1].error)}"
    nearest = results.records[results.nearest(1)[0]]
    limits = listing([f"{name(entry.metric)} {bounds(entry)}" for entry in results.objectives.bounded])
    misses = listing(
        [
            f"{name(entry.metric)} {quantity(entry.metric, nearest.metrics[entry.metric])}"
            for entry in results.objectives.bounded
            if entry.metric in nearest.metrics
        ]
    )
    return (
        f"<strong>No trial meets the bounds</strong> ({esc(limits)}). The nearest is "
        f'<a href="#slot-{nearest.slot}">slot {nearest.slot}</a> with {esc(misses)}, {nearest.violation:.0%} off. '
        "Loosen a bound, raise the budget, or choose a smaller scale of the space."
    )


def _figures(run: Run) -> list[tuple[str, str]]:
    results = run.results
    budget = run.config.get("budget")
    figures = [
        ("evaluations" + (f" of {budget}" if budget is not None else ""), f"{len(results):,}"),
        ("ruled out early", f"{len(results.in_state('ruled_out')):,}"),
        ("failed", f"{len(results.in_state('failed')):,}"),
    ]
    if results.objectives.bounded:
        figures.append(("meet the bounds", f"{int(results.feasible.sum()):,}"))
    if len(results.objectives.optimised) > 1:
        figures.append(("non-dominated", f"{len(results.front):,}"))
    if run.times:
        figures.append(("wall time", duration(run.times.wall)))
    return figures


def _facts(run: Run) -> list[tuple[str, str]]:
    channels, height, width = run.task.input_shape
    scale = ", ".join(f"{key}={value}" for key, value in run.space.scale_arguments.items())
    pairs = [
        ("Space", f"{run.space.name}{f' ({scale})' if scale else ''}"),
        ("Task", f"{run.task.name} ({channels}×{height}×{width}, {count(run.task.classes, 'class', 'classes')})"),
        ("Objectives", "; ".join(_goal(entry) for entry in run.results.objectives.entries)),
    ]
    pairs += [(key.capitalize(), component(run.config[key])) for key in _SHOWN if run.config.get(key)]
    if run.environment.get("processor"):
        pairs.append(("Processor", str(run.environment["processor"])))
    if run.times:
        pairs.append(("Evaluating", f"{duration(run.times.evaluating)} over all workers"))
    return [(term, esc(text)) for term, text in pairs]


def _goal(entry: Objective) -> str:
    goal = f"{aim(entry)} {label(entry.metric)}".strip()
    return ", ".join(filter(None, [goal, bounds(entry)]))


def _ends(run: Run) -> str:
    """The model that is best in each objective."""
    results, entries = run.results, run.results.objectives.optimised
    rows = []
    for k, entry in enumerate(entries):
        record = results.records[results.front[np.argmin(results.losses[results.front, k])]]
        cells = [figure(record.metrics[other.metric]) for other in entries]
        cells[k] = f'<span class="best">{cells[k]}</span>'
        extreme = "Highest" if entry.direction == "maximize" else "Lowest"
        rows.append([f"{extreme} {esc(name(entry.metric))}", _slot(record), *cells])
    heads = ["Model", "slot", *(esc(label(entry.metric)) for entry in entries)]
    return table("Ends of the front", heads, rows, [False, False, *[True] * len(entries)])


# -- models ------------------------------------------------------------------------------------------------------


def models(run: Run) -> Section | None:
    """Table and drawings of the non-dominated models, or of what is nearest where no trial meets the bounds."""
    results = run.results
    chosen = [results.records[i] for i in (results.front if len(results.front) else results.nearest())]
    if not chosen:
        return None
    if len(results.front):
        kind = "Best" if len(results.objectives.optimised) == 1 else "Non-dominated"
        title = f"{kind} model{'' if len(chosen) == 1 else 's'}"
        caption = f"{count(len(chosen), 'model')}, sorted by {name(results.objectives.optimised[0].metric)}"
    else:
        title, caption = "Nearest to the bounds", "Trials that miss the bounds by least, nearest first"
    drawings = [draw(run.space, record.row, f"Slot {record.slot}") for record in chosen]
    cards = [_card(run, record, drawing.html) for record, drawing in zip(chosen, drawings, strict=True)]
    parts = [_models_table(run, chosen, caption), legend(drawings), _cards(cards[:SHOWN])]
    if len(cards) > SHOWN:
        parts.append(details(f"{len(cards) - SHOWN} more drawings", _cards(cards[SHOWN:])))
    return section("models", title, *parts)


def _cards(cards: Sequence[str]) -> str:
    return f'<div class="cards">{"".join(cards)}</div>'


def _card(run: Run, record: Record, drawing: str) -> str:
    goals = run.results.objectives
    known = dict.fromkeys(e.metric for e in (*goals.optimised, *goals.bounded) if e.metric in record.metrics)
    figures = [f"{name(metric)} {quantity(metric, record.metrics[metric])}" for metric in known]
    forms = [model.form for model in run.files(record) if model.form != _USUAL]
    return (
        f'<article id="slot-{record.slot}"><h3>Slot {record.slot}</h3>'
        f'<p class="muted">{esc("; ".join([", ".join(figures), *forms]))}</p>'
        f"{drawing}{run.arch(record)}</article>"
    )


def _models_table(run: Run, chosen: Sequence[Record], caption: str) -> str:
    results = run.results
    metrics = [metric for metric in results.metrics if any(metric in record.metrics for record in chosen)]
    best = {entry.metric: _best(entry, chosen) for entry in results.objectives.optimised}
    tested = {record.slot: cell for record in chosen if (cell := _test_accuracies(run, record))}
    heads = ["Slot", *(_head(run, metric) for metric in metrics)]
    heads += ["test accuracy<small>not searched</small>"] if tested else []
    heads += ["bounds missed by"] if not len(results.front) else ["model"]
    rows = []
    for record in chosen:
        cells = [_slot(record), *(_cell(record, metric, best.get(metric)) for metric in metrics)]
        cells += [tested.get(record.slot, figure(np.nan))] if tested else []
        cells += [f"{record.violation:.1%}"] if not len(results.front) else [_link(run, record)]
        rows.append(cells)
    return table(caption, heads, rows, [False, *[True] * (len(heads) - 2), not len(results.front)])


def _best(entry: Objective, chosen: Sequence[Record]) -> float:
    values = [record.metrics[entry.metric] for record in chosen if entry.metric in record.metrics]
    return (max if entry.direction == "maximize" else min)(values, default=np.nan)


def _head(run: Run, metric: str) -> str:
    entry = next((e for e in run.results.objectives.entries if e.metric == metric), None)
    goal = ", ".join(filter(None, [aim(entry), bounds(entry)])) if entry else ""
    return f"{esc(label(metric))}{f'<small>{esc(goal)}</small>' if goal else ''}"


def _cell(record: Record, metric: str, best: float | None) -> str:
    """A figure, with its standard deviation where it was measured; the best of its column stands out."""
    value = record.metrics.get(metric, np.nan)
    notes = measured(record, metric)
    deviation = notes.get(f"std_{metric.rpartition('_')[2]}")
    text = figure(value) + (f" <small>± {deviation:.2g}</small>" if isinstance(deviation, (int, float)) else "")
    if notes.get("drifted"):
        text += ' <small title="The machine\'s speed changed during this measurement.">(drifted)</small>'
    text += flag(record, metric)
    return f'<span class="best">{text}</span>' if value == best else text


def _test_accuracies(run: Run, record: Record) -> str:
    """Those of the record's files, and of the weights before they were quantized; empty where none is known."""
    files = run.files(record)
    figures = [(model.precision, model.test_accuracy) for model in files]
    figures += [("fp32", model.fp32_test_accuracy) for model in files] + [("fp32", noted(record, "test_accuracy"))]
    cells: dict[str, str] = {}
    for precision, accuracy in figures:  # what stands first is nearest to what is shipped
        if accuracy is not None:
            cells.setdefault(precision, figure(accuracy))
    if cells.keys() <= {"fp32"}:
        return cells.get("fp32", "")
    return ", ".join(f"{cell} <small>{esc(precision)}</small>" for precision, cell in cells.items())


def _slot(record: Record) -> str:
    return f'<a href="#slot-{record.slot}">{record.slot}</a>'


def _link(run: Run, record: Record) -> str:
    return "<br>".join(_file(run, model) for model in run.files(record)) or "–"


def _file(run: Run, model: Model) -> str:
    path = model.path.relative_to(run.folder).as_posix()
    facts = [model.form] if model.form != _USUAL else []
    facts += [f"{model.path.stat().st_size / 1000:,.0f} kB"] if model.path.is_file() else []
    about = f" <small>{esc(', '.join(facts))}</small>" if facts else ""
    return f'<span class="whole"><a href="{esc(quote(path))}">{esc(path)}</a>{about}</span>'


# -- trials ------------------------------------------------------------------------------------------------------


def failures(run: Run) -> Section | None:
    """Slots whose evaluation failed, and why; None where none did."""
    failed = run.results.in_state("failed")
    rows = [[str(record.slot), run.arch(record), esc(record.error)] for record in failed]
    if not rows:
        return None
    caption = f"{count(len(rows), 'evaluation')} failed; the slots are spent"
    listed = table(caption, ["Slot", "architecture", "reason"], rows[:LISTED], [False] * 3) + _cut(len(rows))
    return section("failures", "Failures", listed if len(rows) <= SHOWN else details(caption, listed))


def trials(run: Run) -> Section | None:
    """All evaluations in slot order."""
    results = run.results
    if not len(results):
        return None
    front = {results.records[i].slot for i in results.front}
    rows = [
        [
            _slot(record) if record.slot in front else str(record.slot),
            f'<span class="whole">{"non-dominated" if record.slot in front else _outcome(record)}</span>',
            *(figure(record.metrics.get(metric, np.nan)) + flag(record, metric) for metric in results.metrics),
            run.arch(record),
        ]
        for record in results.records[:LISTED]
    ]
    heads = ["Slot", "outcome", *(esc(label(metric)) for metric in results.metrics), "architecture"]
    numeric = [False, False, *[True] * len(results.metrics), False]
    listed = table("All evaluations, in slot order", heads, rows, numeric) + _cut(len(results))
    return section("trials", "Evaluations", details(f"All {count(len(results), 'evaluation')}", listed))


def _outcome(record: Record) -> str:
    if record.state != "complete":
        return record.state.replace("_", " ")
    return "misses a bound" if record.violation > 0 else "dominated"


def _cut(rows: int) -> str:
    text = f"The first {LISTED} of {rows:,}; the study's log has all."
    return paragraph(text, "note") if rows > LISTED else ""
