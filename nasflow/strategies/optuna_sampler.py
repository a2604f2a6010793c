"""Optuna's samplers as strategies."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

from nasflow.strategies.base import judged
from nasflow.study.log import Log
from searchspaces.errors import ConfigError, unknown
from searchspaces.genes import GeneSpace, Rows

# Optuna's further samplers keep state beside the trials' results (the genetic ones generations), or know no categories.
SAMPLERS: dict[str, type[BaseSampler]] = {
    sampler.__name__: sampler for sampler in (TPESampler, GPSampler, RandomSampler)
}
# Former proposals that a study may hold, beyond as many as trials, before it is built anew: they slow samplers down.
_SPENT = 50


class OptunaSampler:
    """Asks a sampler of Optuna, which sees the log as a study in memory, each gene as a categorical parameter.

    Trials under way are shown as running, missed bounds as constraints. Each proposal comes from a sampler made
    anew, so it follows from the log and the generator alone. A proposal that is not valid in the space is taken over
    gene by gene into a random valid architecture, as far as that stays valid.

    Args:
        sampler: `TPESampler`, `GPSampler`, `RandomSampler`, or what makes a sampler when called with `seed`; its
            suggestions have to follow from the trials' parameters, values and constraints.
        **arguments: Further arguments of the sampler.

    Raises:
        ConfigError: If the sampler is unknown or takes other arguments.
    """

    def __init__(self, sampler: str | Callable[..., BaseSampler] = "TPESampler", **arguments: Any) -> None:
        if isinstance(sampler, str) and sampler not in SAMPLERS:
            raise ConfigError(unknown("Optuna sampler", sampler, SAMPLERS))
        self._make: Callable[..., BaseSampler] = SAMPLERS[sampler] if isinstance(sampler, str) else sampler
        self._arguments = arguments
        self._cache: tuple[Study, _Trials] | None = None
        self._distributions: tuple[str, dict[str, BaseDistribution]] = ("", {})
        try:
            self._sampler(0)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"Optuna's {sampler} cannot be made with the arguments {arguments}: {error}.") from error

    def _sampler(self, seed: int) -> BaseSampler:
        return self._make(seed=seed, **self._arguments)

    def propose(self, log: Log, k: int, rng: np.random.Generator) -> tuple[Rows, float | None]:
        """Return `k` suggestions of the sampler."""
        if self._distributions[0] != log.space.fingerprint:
            self._distributions = log.space.fingerprint, _choices(log.space)
        distributions = self._distributions[1]
        trials = _Trials.of(log)
        study = self._study(trials, distributions)
        study.sampler = self._sampler(int(rng.integers(2**31)))
        running = [_add(study, _trial(row, distributions, TrialState.RUNNING)) for row in log.pending]
        rows = np.zeros((k, len(distributions)), dtype=np.int64)
        for i in range(k):
            trial = study.ask(fixed_distributions=distributions)
            running.append(trial._trial_id)
            rows[i] = [d.to_internal_repr(trial.params[name]) for name, d in distributions.items()]
        for trial_id in running:  # they were of this proposal only, and samplers do not look at failed trials
            study._storage.set_trial_state_values(trial_id, TrialState.FAIL)
        self._cache = study, trials
        return repair(log.space, rows, rng), None

    def _study(self, trials: "_Trials", distributions: dict[str, BaseDistribution]) -> Study:
        """Return a study of `trials`: the last one, continued, where it holds the first of them and little else."""
        study, start = _new_study(trials.losses.shape[1]), 0
        if self._cache is not None and self._cache[1].begin(trials):
            former, held = self._cache[0], len(self._cache[1].rows)
            if len(former.get_trials(deepcopy=False)) < 2 * held + _SPENT:
                study, start = former, held
        self._cache = None  # until the proposal has been made
        for i in range(start, len(trials.rows)):
            _add(study, trials.finished(i, distributions))
        return study


def repair(space: GeneSpace, rows: Rows, rng: np.random.Generator) -> Rows:
    """Return `rows (n, genes)` with invalid ones replaced by valid ones that share many genes with them."""
    bad = np.flatnonzero(~space.is_valid(rows))
    if len(bad) == 0:
        return rows
    mended = space.sample(len(bad), rng)
    for gene in rng.permutation(rows.shape[1]):
        candidate = mended.copy()
        candidate[:, gene] = rows[bad, gene]
        mended = np.where(space.is_valid(candidate)[:, None], candidate, mended)
    result = rows.copy()
    result[bad] = mended
    return result


@dataclass(frozen=True)
class _Trials:
    """The trials of a log that samplers are to see."""

    fingerprint: str
    constrained: bool
    rows: Rows
    losses: NDArray[np.float64]
    violation: NDArray[np.float64]

    @classmethod
    def of(cls, log: Log) -> "_Trials":
        members = judged(log)
        violation = log.violation[members]
        constrained = bool((violation > 0).any())
        return cls(log.space.fingerprint, constrained, log.rows[members], log.losses[members], violation)

    def begin(self, other: "_Trials") -> bool:
        """Tell whether these are the first ones of `other`."""
        n = len(self.rows)
        return (
            (self.fingerprint, self.constrained) == (other.fingerprint, other.constrained)
            and np.array_equal(self.rows, other.rows[:n])
            and np.array_equal(self.losses, other.losses[:n])
            and np.array_equal(self.violation, other.violation[:n])
        )

    def finished(self, i: int, distributions: dict[str, BaseDistribution]) -> FrozenTrial:
        """Trial `i` as Optuna's; pruned where a missed bound ended it before its objectives were known."""
        complete = bool(np.isfinite(self.losses[i]).all())
        return _trial(
            self.rows[i],
            distributions,
            TrialState.COMPLETE if complete else TrialState.PRUNED,
            values=self.losses[i].tolist() if complete else None,
            constraints={"violation": float(self.violation[i])} if self.constrained else None,
        )


class _Choices(CategoricalDistribution):
    """A gene's labels. Samplers compare those of all trials each time, so being one object has to settle it."""

    def __eq__(self, other: object) -> bool:
        return self is other or super().__eq__(other)

    __hash__ = CategoricalDistribution.__hash__

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Choices":
        return self


def _choices(space: GeneSpace) -> dict[str, BaseDistribution]:
    return {
        gene.name: _Choices([c.item() if isinstance(c, np.generic) else c for c in gene.choices])
        for gene in space.genes
    }


def _trial(
    row: NDArray[np.int64], distributions: dict[str, BaseDistribution], state: TrialState, **rest: Any
) -> FrozenTrial:
    choices = zip(distributions.items(), row.tolist(), strict=True)
    params = {name: distribution.to_external_repr(choice) for (name, distribution), choice in choices}
    return create_trial(state=state, params=params, distributions=distributions, **rest)


def _new_study(objectives: int) -> Study:
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # Optuna announces new studies, but no user began this one
    try:
        return optuna.create_study(directions=["minimize"] * objectives)
    finally:
        optuna.logging.set_verbosity(level)


def _add(study: Study, trial: FrozenTrial) -> int:
    return study._storage.create_new_trial(study._study_id, template_trial=trial)
