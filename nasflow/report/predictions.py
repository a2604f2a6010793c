"""The part of a report that sets predicted figures beside measured ones."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from nasflow.report.canvas import FRONT, MISSED, MUTED, Plot, render
from nasflow.report.markup import Section, paragraph, section, table
from nasflow.report.plots import finish
from nasflow.report.results import Results
from nasflow.report.text import count, esc, figure, label, listing, name, number
from nasflow.statistics import kendall_tau
from nasflow.study.predictions import Check, candidates, checks, unmeasured
from nasflow.study.records import Record

_LEAST = 5  # measurements, of which an order can be told


def notice(results: Results) -> str:
    """What has to be known before the front is believed, as HTML; empty where there is nothing to say."""
    open_ = candidates(results.records, results.objectives)
    told = []
    if open_:
        metrics = listing(sorted({name(metric) for record in open_ for metric in unmeasured(record)}))
        told.append(
            f"<strong>Not all candidates are measured.</strong> {count(len(open_), 'candidate')} for the front, with "
            f"predicted {esc(metrics)}, {'is' if len(open_) == 1 else 'are'} still to be measured. The command of the "
            "search, given again, does so."
        )
    front = [results.records[i] for i in results.front]
    wrong = [record for record in front if any(check.disagrees for check in checks(record))]
    if wrong:
        slots = listing([f'<a href="#slot-{record.slot}">{record.slot}</a>' for record in wrong])
        told.append(
            f"<strong>Prediction and measurement disagree</strong> on {len(wrong)} of the {len(front)} models below "
            f"(slot{'' if len(wrong) == 1 else 's'} {slots}): what was measured lies outside of the predictor's 90 % "
            'interval. The <a href="#predictions">measured figures</a> count.'
        )
    return "".join(paragraph(html, "notice") for html in told)


def flag(record: Record, metric: str) -> str:
    """What a cell with a figure of `metric` says beside it, as HTML: that it is predicted, or was predicted wrongly."""
    if metric in unmeasured(record):
        return " <small>(predicted)</small>"
    wrong = [check for check in checks(record) if check.metric == metric and check.disagrees]
    return f' <small title="{esc(wrong[0])}">({_off(wrong[0])} the prediction)</small>' if wrong else ""


def _off(check: Check) -> str:
    away = check.off
    return f"{abs(away):.0%} {'above' if away > 0 else 'below'}"


def _metrics(found: Sequence[tuple[Record, Check]]) -> list[str]:
    return sorted({check.metric for _, check in found})


def _together(metric: str, found: Sequence[Check]) -> str:
    """Say how the measurements of a metric lie as a whole: level and order go wrong for different reasons."""
    if len(found) < _LEAST:
        return ""
    ratio = float(np.median([check.measured / check.predicted for check in found]))
    tau = kendall_tau(np.array([c.predicted for c in found]), np.array([c.measured for c in found]))
    return (
        f" Measured {name(metric)} is {number(ratio)} of the predicted in the median, and their order agrees with "
        f"Kendall's tau-b {tau}. Another level in the same order comes from another speed of the device than when the "
        "predictor's samples were measured; another order from a predictor that knows too little."
    )


def prediction_plots(results: Results) -> Iterator[Plot]:
    """Plot what was measured over what was predicted, with the predictor's 90 % intervals, one plot per metric."""
    found = [(record, check) for record in results.records for check in checks(record)]
    for i, metric in enumerate(_metrics(found)):
        yield _plot(metric, [check for _, check in found if check.metric == metric], f"predictions_{i}")


def _plot(metric: str, found: Sequence[Check], stem: str) -> Plot:
    def paint(axes: Axes) -> None:
        ends = [min(min(c.low, c.measured) for c in found), max(max(c.high, c.measured) for c in found)]
        axes.plot(ends, ends, color=MUTED, linestyle=":", linewidth=1.1, label="as predicted")
        for wrong, colour, text in ((False, FRONT, "within the interval"), (True, MISSED, "outside of it")):
            chosen = [check for check in found if check.disagrees == wrong]
            if chosen:
                x = np.array([check.predicted for check in chosen])
                reach = np.array([[c.predicted - c.low for c in chosen], [c.high - c.predicted for c in chosen]])
                y = [check.measured for check in chosen]
                style: dict[str, Any] = {"fmt": "x" if wrong else "o", "color": colour, "markersize": 4.5}
                axes.errorbar(x, y, xerr=reach, elinewidth=0.9, label=text, **style)
        finish(axes, f"predicted {label(metric)}", f"measured {label(metric)}")

    caption = f"{count(len(found), 'measurement')} of {name(metric)} over the predictions; bars are 90 % intervals."
    return render(stem, caption, paint)


def predictions(results: Results, plots: Sequence[Plot] = ()) -> Section | None:
    """What was both predicted and measured, in slot order; None where nothing was.

    Args:
        results: The results.
        plots: Those of `prediction_plots`.
    """
    found = [(record, check) for record in results.records for check in checks(record)]
    if not found:
        return None
    front = {results.records[i].slot for i in results.front}
    rows = []
    for record, check in found:
        slot = f'<a href="#slot-{record.slot}">{record.slot}</a>' if record.slot in front else str(record.slot)
        where = "outside of it" if check.disagrees else "within"
        cells = [slot, esc(label(check.metric)), figure(check.predicted), f"{figure(check.low)} – {figure(check.high)}"]
        cells += [f"<strong>{where}</strong>" if check.disagrees else where]
        rows.append([*cells[:4], figure(check.measured), f"{check.off:+.1%}", cells[4]])
    wrong = sum(check.disagrees for _, check in found)
    lead = (
        f"These candidates for the front were predicted, and then measured: {wrong} of {len(found)} measurements lie "
        "outside of the predictor's 90 % interval, where one in ten is to be expected. What was not measured is behind "
        "the front even if its figure is as good as its interval allows, widened where need be to hold nine tenths of "
        "what was measured."
    )
    lead += "".join(_together(metric, [c for _, c in found if c.metric == metric]) for metric in _metrics(found))
    heads = ["Slot", "metric", "predicted", "90 % interval", "measured", "off by", "in the interval"]
    caption = f"{count(len(found), 'measurement')} beside the prediction, in slot order"
    numeric = [False, False, True, True, True, True, False]
    figures = f'<div class="plots">{"".join(plot.html() for plot in plots)}</div>'
    parts = paragraph(esc(lead)), figures if plots else "", table(caption, heads, rows, numeric)
    return section("predictions", "Predicted and measured", *parts)
