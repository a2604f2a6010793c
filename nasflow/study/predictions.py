"""Metrics of records that a predictor gave, and what was measured of them after the search.

An evaluator that predicts a metric notes so with the trial (`notes`). What is measured later is kept beside the trials,
which cannot be changed once they have ended, and takes the place of the prediction in `Study.verified`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nasflow.objectives import Objectives
from nasflow.pareto import non_dominated
from nasflow.study.records import Record
from predictors.base import WITHIN_90

Mask = NDArray[np.bool_]
_PREDICTED, _MEASURED = "predicted", "measured"


def _named(metric: str, what: str) -> str:
    stem, _, unit = metric.rpartition("_")
    return f"{stem}_{what}_{unit}"


def deviation_of(metric: str) -> str:
    """Return the name of a predicted metric's standard deviation: `latency_std_ms` of `latency_ms`."""
    return _named(metric, "std")


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
        low: Lower end of the predictor's 90 % interval.
        high: Upper end.
    """

    metric: str
    measured: float
    predicted: float
    low: float
    high: float

    @property
    def disagrees(self) -> bool:
        """Whether the measurement lies outside of the interval."""
        return not self.low <= self.measured <= self.high

    def __str__(self) -> str:
        unit = self.metric.rpartition("_")[2]
        away = self.measured / self.predicted - 1
        side = "outside of" if self.disagrees else "within"
        return (
            f"{abs(away):.0%} {'above' if away > 0 else 'below'} the predicted {self.predicted:.4g} {unit}, {side} the "
            f"90 % interval from {self.low:.4g} to {self.high:.4g}"
        )


def predictions(record: Record) -> dict[str, Mapping[str, Any]]:
    """Return the notes on a record's predicted metrics, by metric."""
    given = [noted for noted in record.provenance.values() if isinstance(noted, Mapping) and _PREDICTED in noted]
    return {noted[_PREDICTED]: noted for noted in given if noted[_PREDICTED] in record.metrics}


def unmeasured(record: Record) -> list[str]:
    """Return the record's metrics that are predicted, and were not measured."""
    return [metric for metric in predictions(record) if predicted_of(metric) not in record.metrics]


def checks(record: Record) -> list[Check]:
    """Return what was both predicted and measured of a record."""
    return [
        Check(metric, record.metrics[metric], *(float(noted[key]) for key in ("mean", "low", "high")))
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


def candidates(records: Sequence[Record], objectives: Objectives) -> list[Record]:
    """Return the records that have to be measured before the front of measured figures can be told.

    Of each predicted figure the better end of its 90 % interval is taken, of each measured one itself. Those that are
    then non-dominated might be on the front. Where all of these are measured, nothing is left.
    """
    done = [record for record in records if record.state == "complete"]
    if not any(unmeasured(record) for record in done):
        return []
    known = [{**record.metrics, **_at_best(record, objectives)} for record in done]
    columns = {metric: np.array([figures[metric] for figures in known]) for metric in objectives.metrics}
    missed = sum(objectives.violations(columns).values(), np.zeros(len(done)))
    losses = np.where(missed[:, None] > 0, np.inf, objectives.losses(columns))
    return [record for record, best in zip(done, non_dominated(losses), strict=True) if best and unmeasured(record)]


def _at_best(record: Record, objectives: Objectives) -> dict[str, float]:
    noted, raised = predictions(record), {e.metric for e in objectives.optimised if e.direction == "maximize"}
    return {metric: noted[metric]["high" if metric in raised else "low"] for metric in unmeasured(record)}
