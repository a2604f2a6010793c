"""A study's records as arrays, and what follows from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nasflow.objectives import Objectives
from nasflow.pareto import hypervolume_history, non_dominated
from nasflow.study.predictions import eligible
from nasflow.study.records import Record
from nasflow.study.study import Study
from searchspaces.errors import ConfigError

Floats = NDArray[np.float64]
MARGIN = 0.1


@dataclass(frozen=True)
class Box:
    """The region that hypervolumes are taken in, as losses: from the best to a bit beyond the worst seen values.

    Attributes:
        ideal: Best value per objective, shape `(k,)`.
        reference: Point that every counted trial is better than, shape `(k,)`.
    """

    ideal: Floats
    reference: Floats

    @classmethod
    def around(cls, losses: Floats) -> "Box":
        """Return the box around finite `losses (n, k)`; the reference lies 10 % of the range beyond the worst."""
        ideal, worst = losses.min(axis=0), losses.max(axis=0)
        span = np.where(worst > ideal, worst - ideal, np.maximum(np.abs(worst), 1.0))
        return cls(ideal, worst + MARGIN * span)

    @classmethod
    def below(cls, reference: Mapping[str, float], objectives: Objectives, losses: Floats) -> "Box":
        """Return the box between the best of `losses (n, k)` and a given reference point, a value per metric.

        Raises:
            ConfigError: If the reference lacks an optimised metric.
        """
        missing = [entry.metric for entry in objectives.optimised if entry.metric not in reference]
        if missing:
            raise ConfigError(
                f"The reference point of the hypervolume needs a value for every optimised metric, but {missing[0]!r} "
                f"is missing from {dict(reference)}. Add reference.{missing[0]}=VALUE, or leave the reference out."
            )
        columns = {entry.metric: np.array([float(reference[entry.metric])]) for entry in objectives.optimised}
        return cls(losses.min(axis=0), objectives.losses(columns)[0])

    @property
    def volume(self) -> float:
        """Its volume; 0 where the reference is better than the best value of an objective."""
        return float(np.prod(np.maximum(self.reference - self.ideal, 0.0)))


@dataclass(frozen=True)
class Results:
    """What a study has found so far.

    Attributes:
        objectives: What was searched for.
        records: The spent slots, in slot order.
    """

    objectives: Objectives
    records: tuple[Record, ...]

    @classmethod
    def of(cls, study: Study) -> "Results":
        """Read a study."""
        return cls(study.objectives, tuple(study.verified()))

    def __len__(self) -> int:
        return len(self.records)

    def in_state(self, state: str) -> list[Record]:
        """Return the records in a state: `complete`, `ruled_out` or `failed`."""
        return [record for record in self.records if record.state == state]

    @cached_property
    def slots(self) -> NDArray[np.int64]:
        """Slot numbers, shape `(n,)`."""
        return np.array([record.slot for record in self.records], dtype=np.int64)

    @cached_property
    def metrics(self) -> list[str]:
        """All metrics that some record has: the objectives first, in their order, then the others by name."""
        wanted = [entry.metric for entry in (*self.objectives.optimised, *self.objectives.bounded)]
        others = sorted({metric for record in self.records for metric in record.metrics} - set(wanted))
        return [*dict.fromkeys(wanted), *others]

    def column(self, metric: str) -> Floats:
        """Return a metric of all records, NaN where it is not known, shape `(n,)`."""
        return np.array([record.metrics.get(metric, np.nan) for record in self.records], dtype=np.float64)

    @cached_property
    def losses(self) -> Floats:
        """The optimised metrics as values to minimise, NaN where not known, shape `(n, k)`."""
        return self.objectives.losses({entry.metric: self.column(entry.metric) for entry in self.objectives.optimised})

    @cached_property
    def feasible(self) -> NDArray[np.bool_]:
        """Trials with all objectives known and all bounds met, shape `(n,)`."""
        return np.array([record.state == "complete" and record.violation <= 0 for record in self.records], dtype=bool)

    @cached_property
    def missed(self) -> NDArray[np.bool_]:
        """Trials that miss a bound, shape `(n,)`."""
        return np.array([record.state != "failed" and record.violation > 0 for record in self.records], dtype=bool)

    @cached_property
    def front(self) -> NDArray[np.int64]:
        """Positions of the feasible non-dominated records, best in the first objective first.

        Where predicted figures were measured, it is the front of the measured ones.
        """
        good = np.flatnonzero(eligible(self.records))
        if len(good) == 0:
            return good
        front = good[non_dominated(self.losses[good])]
        return front[np.argsort(self.losses[front, 0], kind="stable")]

    def nearest(self, n: int = 5) -> NDArray[np.int64]:
        """Return positions of the `n` records that miss the bounds by least."""
        near = np.flatnonzero(self.missed)
        violation = np.array([self.records[i].violation for i in near])
        return near[np.argsort(violation, kind="stable")][:n]

    def hypervolumes(self, box: Box) -> Floats:
        """Return the share of `box` that the feasible trials up to each record dominate, shape `(n,)`.

        It is 0 as long as none of them is better than the reference in all objectives.
        """
        losses = np.where(self.feasible[:, None], self.losses, box.reference)  # the reference dominates nothing
        volumes = np.asarray(hypervolume_history(losses, box.reference), dtype=np.float64)
        return volumes / box.volume if box.volume > 0 else volumes  # in a box without inside, all are 0


@dataclass(frozen=True)
class Times:
    """When a study's trials ran.

    Attributes:
        first: Start of the first trial.
        last: End of the last one.
        evaluating: Sum of the evaluations' wall times in seconds.
    """

    first: datetime
    last: datetime
    evaluating: float

    @classmethod
    def of(cls, study: Study, records: Sequence[Record]) -> "Times | None":
        """Read the times of `records`; None where no trial tells."""
        trials = {trial.number: trial for trial in study.optuna.get_trials(deepcopy=False)}
        spans = [(trials[record.trial].datetime_start, trials[record.trial].datetime_complete) for record in records]
        known = [(_utc(start), _utc(end)) for start, end in spans if start and end]
        if not known:
            return None
        first, last = min(start for start, _ in known), max(end for _, end in known)
        return cls(first, last, sum(record.seconds for record in records))

    @property
    def wall(self) -> float:
        """Seconds from the first start to the last end."""
        return (self.last - self.first).total_seconds()


def _utc(time: datetime) -> datetime:
    """Optuna's storages give times without a zone in the machine's own."""
    return time.astimezone(UTC)


def noted(record: Record, key: str) -> float | None:
    """Return a number that one of a record's evaluators noted under `key`; None where none did."""
    for notes in record.provenance.values():
        value = notes.get(key) if isinstance(notes, Mapping) else None
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
    return None


def measured(record: Record, metric: str) -> Mapping[str, Any]:
    """Return what was noted when `metric` was measured (see `devices.Measurement`); empty where it was not."""
    for notes in record.provenance.values():
        if isinstance(notes, Mapping) and notes.get("metric") == metric:
            return notes
    return {}
