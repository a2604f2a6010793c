"""One slot's evaluation: its seed, and its evaluators run in turn."""

import errno
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nasflow.evaluators.base import Context, Evaluator
from nasflow.objectives import Objectives
from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError, NasflowError, unknown

_MACHINE_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}
_NO_SPACE_BYTES = 1 << 16


def slot_seed(seed: int, slot: int) -> int:
    """Return the seed of a slot's evaluation, a non-negative 31-bit number."""
    return int(np.random.SeedSequence([seed, slot], spawn_key=(1,)).generate_state(1)[0] >> 1)


def proposal_rng(seed: int, slot: int) -> np.random.Generator:
    """Return the generator that a slot's proposal draws from, independent of the evaluation's seed."""
    return np.random.default_rng(np.random.SeedSequence([seed, slot], spawn_key=(0,)))


def select(evaluators: Sequence[Evaluator], metrics: Sequence[str]) -> list[Evaluator]:
    """Return those evaluators that are needed for `metrics`, cheap ones first, each metric from its first provider.

    Raises:
        ConfigError: If no evaluator provides a metric.
    """
    provided = {name for evaluator in evaluators for name in evaluator.provides}
    for metric in metrics:
        if metric not in provided:
            raise ConfigError(
                f"No evaluator gives {metric!r}. {unknown('metric', metric, provided)} Or add the evaluator that gives "
                "it, for instance evaluator=[costs,device,train]."
            )
    chosen: list[Evaluator] = []
    open_metrics = set(metrics)
    for evaluator in evaluators:
        if open_metrics & set(evaluator.provides):
            chosen.append(evaluator)
            open_metrics -= set(evaluator.provides)
    return sorted(chosen, key=lambda evaluator: evaluator.cost != "cheap")


@dataclass(frozen=True)
class Outcome:
    """What came out of an evaluation.

    Attributes:
        metrics: Metrics by name.
        violations: Relative violation of each bounded metric that is known.
        provenance: What the evaluators said, by evaluator; `fidelity` where it was not the full one.
        ruled_out: Whether a missed bound spared the remaining evaluators, so that an objective is not known.
    """

    metrics: dict[str, float]
    violations: dict[str, float]
    provenance: dict[str, Any]
    ruled_out: bool


class Evaluation:
    """The evaluators of a search, run one after the other.

    Args:
        evaluators: In the user's order: a metric that several provide comes from the first of them.
        objectives: Which metrics are needed, and their bounds.

    Raises:
        ConfigError: If no evaluator provides a metric.
    """

    def __init__(self, evaluators: Sequence[Evaluator], objectives: Objectives) -> None:
        self._objectives = objectives
        self.evaluators = select(evaluators, objectives.metrics)
        self._first = {
            name: evaluator
            for evaluator in reversed(evaluators)
            if any(evaluator is used for used in self.evaluators)
            for name in evaluator.provides
        }

    def __call__(self, archs: ArchBatch, context: Context) -> Outcome:
        """Evaluate one architecture, up to the first missed bound.

        Raises:
            NasflowError: If an evaluator leaves out what it promised, or gives a number that is not finite.
        """
        metrics: dict[str, float] = {}
        provenance: dict[str, Any] = {} if context.fidelity is None else {"fidelity": context.fidelity}
        violations: dict[str, float] = {}
        left = list(self.evaluators)
        while left and not any(missed > 0 for missed in violations.values()):
            evaluator = left.pop(0)
            metrics |= self._columns(evaluator, archs, context, provenance)
            columns = {name: np.array([value]) for name, value in metrics.items()}
            violations = {name: float(missed[0]) for name, missed in self._objectives.violations(columns).items()}
        ruled_out = any(metric not in metrics for metric in self._objectives.metrics)
        return Outcome(metrics, violations, _plain(provenance), ruled_out)

    def _columns(
        self, evaluator: Evaluator, archs: ArchBatch, context: Context, provenance: dict[str, Any]
    ) -> Mapping[str, float]:
        """Run one evaluator; return the metrics that are its to give, and note its provenance."""
        evaluation = evaluator.evaluate(archs, context)
        name = type(evaluator).__name__.lower()
        if evaluation.provenance:
            same = sum(key == name or key.startswith(f"{name}_") for key in provenance)
            provenance[f"{name}_{same + 1}" if same else name] = evaluation.provenance[0]
        values = {metric: float(column[0]) for metric, column in evaluation.columns.items()}
        own = {metric for metric in self._objectives.metrics if self._first.get(metric) is evaluator}
        for metric in sorted(own):
            if metric not in values:
                raise NasflowError(f"{type(evaluator).__name__} says that it gives {metric!r}, but did not.")
            if not np.isfinite(values[metric]):
                raise NasflowError(f"{metric} is {values[metric]}, not a finite number.")
        first = self._first
        return {m: value for m, value in values.items() if first.get(m, evaluator) is evaluator and np.isfinite(value)}


def _plain(provenance: dict[str, Any]) -> dict[str, Any]:
    """Return provenance as JSON gives it back; numpy's numbers and paths are made plain."""

    def default(value: Any) -> Any:
        if isinstance(value, np.generic):
            return value.item()
        if isinstance(value, np.ndarray):
            return value.tolist()
        if isinstance(value, Path):
            return str(value)
        raise TypeError(f"{type(value).__name__} in it cannot be stored as JSON")

    try:
        return dict(json.loads(json.dumps(provenance, default=default)))
    except (TypeError, ValueError) as error:
        raise NasflowError(f"The provenance of {', '.join(provenance)} cannot be kept: {error}.") from error


def machine_fault(error: BaseException, folder: Path | None) -> str:
    """Return what is wrong with the machine, where that explains an error; empty when it does not.

    Libraries wrap a failed write in errors of their own, so the errors behind it count as well, and a full disk.
    """
    for cause in _chain(error):
        if isinstance(cause, OSError) and cause.errno in _MACHINE_FAULTS:
            return str(cause)
    try:
        full = folder is not None and shutil.disk_usage(folder).free < _NO_SPACE_BYTES
    except FileNotFoundError:  # nothing was to be kept so far
        full = False
    except OSError as broken:
        return str(broken)
    return f"no space is left in {folder} ({error})" if full else ""


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__
