"""Metrics of records that a predictor gave, and what was measured of them after the search.

An evaluator that predicts a metric notes so with the trial (`notes`). What is measured later is kept beside the trials,
which cannot be changed once they have ended, and takes the place of the prediction in `Study.verified`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nasflow.objectives import Objectives
from nasflow.pareto import non_dominated, rank
from nasflow.study.records import Record
from predictors.base import WITHIN_90

Mask = NDArray[np.bool_]
_PREDICTED, _MEASURED = "predicted", "measured"
_WIDEST = 1e6  # deviations; a finite number, for some predictions have none


def _named(metric: str, what: str) -> str:
    stem, _, unit = metric.rpartition("_")
    return f"{stem}_{what}_{unit}"


def deviation_of(metric: str) -> str:
    """Return the name of a predicted metric's standard deviation: `latency_predicted_std_ms` of `latency_ms`."""
    return _named(metric, f"{_PREDICTED}_std")


def predicted_of(metric: str) -> str:
    """Return the name that a prediction has once the metric is measured: `latency_predicted_ms` of `latency_ms`."""
    return _named(metric, _PREDICTED)


def notes(metric: str, mean: float, std: float) -> dict[str, Any]:
    """Return what goes with a trial whose `metric` is predicted: the interval that holds it with 90 %."""
    low, high = max(mean - WITHIN_90 * std, 0.0), mean + WITHIN_90 * std
    return {_PREDICTED: metric, "mean": mean, "std": std, "low": low, "high": high}


@dataclass(frozen=True)
class Check:
    """A prediction beside what was measured.

    Attributes:
        metric: Name of the metric.
        measured: What was measured.
        predicted: What was predicted.
        std: The predictor's standard deviation.
        low: Lower end of its 90 % interval.
        high: Upper end.
    """

    metric: str
    measured: float
    predicted: float
    std: float
    low: float
    high: float

    @property
    def disagrees(self) -> bool:
        """Whether the measurement lies outside of the interval."""
        return not self.low <= self.measured <= self.high

    @property
    def off(self) -> float:
        """By how much the measurement is above the prediction, as a share of that; negative where it is below."""
        return self.measured / self.predicted - 1

    @property
    def deviations(self) -> float:
        """How many standard deviations lie between the two."""
        away = abs(self.measured - self.predicted)
        return away / self.std if self.std > 0 else np.inf if away else 0.0

    def __str__(self) -> str:
        unit = self.metric.rpartition("_")[2]
        side = "outside of" if self.disagrees else "within"
        return (
            f"{self.metric} {self.measured:.4g} is {abs(self.off):.0%} {'above' if self.off > 0 else 'below'} the "
            f"predicted {self.predicted:.4g} {unit}, {side} the 90 % interval from {self.low:.4g} to {self.high:.4g}"
        )


def predictions(record: Record) -> dict[str, Mapping[str, Any]]:
    """Return the notes on a record's predicted metrics, by metric."""
    given = [noted for noted in record.provenance.values() if isinstance(noted, Mapping) and _PREDICTED in noted]
    return {noted[_PREDICTED]: noted for noted in given if noted[_PREDICTED] in record.metrics}


def unmeasured(record: Record) -> list[str]:
    """Return the record's metrics that are predicted, and were not measured."""
    # Where another evaluator gives the metric first, the prediction is noted, but is not the figure.
    return [
        metric
        for metric, noted in predictions(record).items()
        if predicted_of(metric) not in record.metrics and record.metrics[metric] == noted["mean"]
    ]


def checks(record: Record) -> list[Check]:
    """Return what was both predicted and measured of a record."""
    return [
        Check(metric, record.metrics[metric], *(float(noted[key]) for key in ("mean", "std", "low", "high")))
        for metric, noted in predictions(record).items()
        if predicted_of(metric) in record.metrics
    ]


def with_measured(record: Record, objectives: Objectives, found: Mapping[str, Mapping[str, Any]]) -> Record:
    """Return a record with measured figures in place of predicted ones, and its violation anew.

    Args:
        record: As it was evaluated.
        objectives: What bounds figures.
        found: By metric, what a measurement says of itself (`devices.Measurement.record`), or `error` where the device
            refused the model: such a record counts as failed.
    """
    for metric, entry in found.items():
        if "error" in entry:
            return replace(record, state="failed", error=f"{metric} could not be measured: {entry['error']}")
    before = {predicted_of(metric): record.metrics[metric] for metric in found}
    metrics = {**record.metrics, **{metric: float(entry["latency_ms"]) for metric, entry in found.items()}, **before}
    columns = {name: np.array([value]) for name, value in metrics.items()}
    violation = float(sum(float(missed[0]) for missed in objectives.violations(columns).values()))
    kept = {f"{_MEASURED}_{metric}": {"metric": metric, **entry} for metric, entry in found.items()}
    return replace(record, metrics=metrics, violation=violation, provenance={**record.provenance, **kept})


def eligible(records: Sequence[Record]) -> Mask:
    """Tell which records may be on the front, shape `(n,)`: complete, with all bounds met, and with no open figure.

    Where metrics are predicted, only measured records are on the front, as soon as there is one.
    """
    done = np.array([record.state == "complete" and record.violation <= 0 for record in records], dtype=np.bool_)
    if not any(checks(record) for record in records):
        return done
    return done & np.array([not unmeasured(record) for record in records], dtype=np.bool_)


def candidates(records: Sequence[Record], objectives: Objectives, fill: int = 0) -> list[Record]:
    """Return the records that have to be measured before the front of measured figures can be told.

    Of each predicted figure the better end of its 90 % interval is taken, of each measured one itself. Those that are
    then non-dominated might be on the front. Where all of these are measured, nothing is left. Intervals that do not
    hold nine tenths of what was measured so far are widened until they do, for a predictor that is wrong about what was
    measured is not believed about the rest.

    Args:
        records: All records.
        objectives: What makes losses of metrics.
        fill: Where these are fewer, so many, with others that nothing measured dominates, best first: to measure models
            side by side costs less than one after the other.
    """
    done = [record for record in records if record.state == "complete"]
    open_ = np.array([bool(unmeasured(record)) for record in done], dtype=np.bool_)
    if not open_.any():
        return []
    reach = _reach(done)
    known = [{**record.metrics, **_at_best(record, objectives, reach)} for record in done]
    columns = {metric: np.array([figures[metric] for figures in known]) for metric in objectives.metrics}
    missed = sum(objectives.violations(columns).values(), np.zeros(len(done)))
    losses = np.where(missed[:, None] > 0, np.inf, objectives.losses(columns))
    first = non_dominated(losses) & open_
    ranks = np.where(first, -1, rank(losses, missed))
    behind = np.array([_dominated(loss, losses[~open_]) for loss in losses], dtype=np.bool_)
    possible = np.flatnonzero(open_ & (missed <= 0) & ~behind)
    ordered = possible[np.argsort(ranks[possible], kind="stable")]
    return [done[i] for i in ordered[: max(int(first.sum()), fill)]] if first.any() else []


def _dominated(loss: NDArray[np.float64], others: NDArray[np.float64]) -> bool:
    """Tell whether any of `others (n, k)` dominates `loss (k,)`."""
    return bool(((others <= loss).all(axis=1) & (others < loss).any(axis=1)).any())


def _reach(records: Sequence[Record]) -> dict[str, float]:
    """Return by metric how many standard deviations wide intervals are, to each side."""
    errors: dict[str, list[float]] = {}
    for record in records:
        for check in checks(record):
            errors.setdefault(check.metric, []).append(check.deviations)
    tenths = {metric: sorted(found)[ceil(0.9 * len(found)) - 1] for metric, found in errors.items()}
    return {metric: min(max(WITHIN_90, error), _WIDEST) for metric, error in tenths.items()}


def _at_best(record: Record, objectives: Objectives, reach: Mapping[str, float]) -> dict[str, float]:
    raised = {entry.metric for entry in objectives.optimised if entry.direction == "maximize"}
    noted = {metric: predictions(record)[metric] for metric in unmeasured(record)}
    ends = {metric: reach.get(metric, WITHIN_90) * entry["std"] for metric, entry in noted.items()}
    return {
        metric: entry["mean"] + ends[metric] if metric in raised else max(entry["mean"] - ends[metric], 0.0)
        for metric, entry in noted.items()
    }
