"""A predictor as the surrogate of a search: what the trials so far make it expect of candidates."""

from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from nasflow.pareto import best_first
from nasflow.strategies.base import judged
from nasflow.strategies.guided_acquisition import Expectation
from nasflow.study.log import Log
from predictors.base import Predictor, merged_samples
from predictors.normalisation import NormalScores
from searchspaces.arch import ArchBatch
from searchspaces.errors import PredictorError
from searchspaces.genes import GeneSpace, Rows
from searchspaces.pool import Pool

Floats = NDArray[np.float64]

_MOST_ROWS = 1_000_000  # rows of a space from which on its classes are not listed: going through them takes too long
_PARENTS = 10
_MOST_EDITS = 3
_STREAM = 5  # keeps the draws of candidates apart from other uses of the same seed


@dataclass(frozen=True)
class Candidates:
    """What may be proposed, one row per canonical class, and what is expected of it.

    Attributes:
        rows: Shape `(c, genes)`.
        keys: Their classes.
        expected: None where the trials tell nothing yet.
    """

    rows: Rows
    keys: list[bytes]
    expected: Expectation | None


class Surrogate:
    """Fits a predictor to trials.

    What it learns are the normal scores of the ranks of each objective and of the violation of bounds, so no scale and
    no outlier matters. Failed trials are left out. A trial that missed bounds before its objectives were known counts
    for the violation alone.

    Candidates are all classes of the space where these are few. Of other spaces random architectures are drawn, and
    mutations, of one to three edits, of the ten best trials; they follow from the seed and the trials.

    Args:
        predictor: The predictor; it is fitted anew to each objective, which must not depend on former fits.
        whole: Classes up to which all of them are candidates.
        candidates: How many to draw otherwise.
        mutated: Share of mutations among these.
        seed: The study's seed.
    """

    def __init__(self, predictor: Predictor, whole: int, candidates: int, mutated: float, seed: int) -> None:
        self.predictor = predictor
        self.whole = whole
        self.drawn = candidates
        self.mutated = mutated
        self.seed = seed
        self._listed: tuple[GeneSpace | None, ArchBatch | None] = (None, None)
        self._cache: tuple[Log, Candidates] | None = None

    def candidates(self, log: Log) -> Candidates:
        """Return candidates and what the trials of `log` make the predictor expect of them.

        The last answer is kept with the trials that it followed from, and is given again where they are the same.

        Raises:
            NasflowError: If the predictor cannot be fitted to architectures of this space.
        """
        if self._cache is None or not _same(self._cache[0], log):
            archs = self._archs(log)
            self._cache = log, Candidates(archs.rows, archs.keys(), self._expectation(log, archs))
        return self._cache[1]

    def _expectation(self, log: Log, archs: ArchBatch) -> Expectation | None:
        known, finite, feasible = log.succeeded, log.violation < np.inf, log.violation <= 0
        figures = [self._figure(log, known, column, archs) for column in log.losses.T]
        violation = self._figure(log, finite, log.violation, archs) if (finite & ~feasible).any() else None
        if violation is None and all(figure is None for figure in figures):
            return None
        tied = np.zeros((2, len(archs)))
        mean, std = np.stack([tied if figure is None else figure for figure in figures], axis=1)
        scores = np.zeros((len(mean), 1))
        if known.any():
            scores = np.stack([_scores(column) for column in log.losses[known].T])
        ideal = scores.min(axis=1, keepdims=True)
        if (known & feasible).any():
            scores = scores[:, feasible[known]]
        if violation is not None:
            violation[0] -= _limit(log.violation[finite])
        return Expectation(mean - ideal, std, scores - ideal, violation)

    def _figure(self, log: Log, known: NDArray[np.bool_], figures: Floats, archs: ArchBatch) -> Floats | None:
        """Return mean and standard deviation `(2, c)` of a figure's normal score; None where all trials tie.

        The predictor gets the scores with the opposite sign: some take larger figures to be better ones.
        """
        trials, scores = ArchBatch(log.space, log.rows[known]), _scores(figures[known])
        try:
            merged_samples(trials, -scores)
        except PredictorError:
            return None
        mean, std = self.predictor.fit(trials, -scores).predict(archs)
        return np.stack([-mean, std])

    def _archs(self, log: Log) -> ArchBatch:
        if self._listed[0] is not log.space:
            self._listed = log.space, self._all(log.space)
        return self._listed[1] or self._draw(log)

    def _all(self, space: GeneSpace) -> ArchBatch | None:
        """All classes, or None where these are too many."""
        if not self.whole or (not isinstance(space, Pool) and prod(space.sizes.tolist()) > _MOST_ROWS):
            return None
        rows = space.enumerate_classes()
        return ArchBatch(space, rows) if len(rows) <= self.whole else None

    def _draw(self, log: Log) -> ArchBatch:
        rng = np.random.default_rng([self.seed, _STREAM, len(log)])
        members = judged(log)
        mutants = round(self.mutated * self.drawn) if len(members) else 0
        rows = log.space.sample(self.drawn - mutants, rng)
        if mutants:
            best = log.rows[members[best_first(log.losses[members], log.violation[members])[:_PARENTS]]]
            parents = best[rng.integers(len(best), size=mutants)]
            edits = rng.integers(1, _MOST_EDITS + 1, size=mutants)
            children = [log.space.mutate(parents[edits == n], rng, n) for n in range(1, _MOST_EDITS + 1)]
            rows = np.concatenate([*children, rows])
        return ArchBatch(log.space, rows).unique()


def _scores(figures: Floats) -> Floats:
    return NormalScores(figures)(figures)


def _limit(violation: Floats) -> float:
    """The score half-way between feasible trials and the nearest that are not; below all where none is feasible."""
    scores = _scores(violation)
    missed = scores[violation > 0].min()
    return float((scores.min() + missed) / 2 if (violation <= 0).any() else missed - 1)


def _same(one: Log, other: Log) -> bool:
    """Whether two logs hold the same trials, pending ones aside."""
    return one is other or (
        one.space is other.space
        and np.array_equal(one.rows, other.rows)
        and np.array_equal(one.losses, other.losses)
        and np.array_equal(one.violation, other.violation)
    )
