"""The predictor that suits the samples at hand."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau
from sklearn.model_selection import KFold

from predictors.base import Arrays, Prediction, Predictor, SourceSamples
from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError, PredictorError
from searchspaces.genes import GeneSpace

logger = logging.getLogger(__name__)

_FEWEST = 8  # samples below which left-out ranks tell nothing
_RESAMPLES = 100


@dataclass(frozen=True)
class Candidate:
    """A predictor that `Auto` may take.

    Attributes:
        name: What it is called.
        predictor: The predictor.
        least: Samples from which on it is considered.
    """

    name: str
    predictor: Predictor
    least: int = 0


class Auto(Predictor):
    """Takes, among candidates, the one that ranks left-out samples best.

    The candidates stand in the order of preference: the first one is taken unless another has a Kendall tau-b of
    left-out samples that is better by more than the standard error of the difference (bootstrap over samples). With
    fewer than eight samples there is no comparison.

    Args:
        candidates: In the order of preference; keys, where there are any, only address them in a configuration.
        folds: Folds of the cross-validation; no more than there are samples.
        seed: Seed of folds and bootstrap.

    Attributes:
        choice: Name of the candidate taken, after `fit`.
        scores: Kendall tau-b of left-out samples by candidate; empty where there was no comparison.
        reason: In words why it was taken.

    Raises:
        ConfigError: If there is no candidate for few samples, or names stand twice.
    """

    def __init__(
        self, candidates: Sequence[Candidate] | Mapping[str, Candidate], folds: int = 5, seed: int = 0
    ) -> None:
        candidates = list(candidates.values() if isinstance(candidates, Mapping) else candidates)
        self.candidates = {candidate.name: candidate for candidate in candidates}
        if len(self.candidates) < len(candidates) or all(candidate.least > 2 for candidate in candidates):
            raise ConfigError(
                "An automatic predictor chooses among candidates of different names, of which one takes any number of "
                f"samples (least: 0), but got {[(c.name, c.least) for c in candidates]}."
            )
        if folds < 2:
            raise ConfigError(f"A cross-validation has at least 2 folds, not {folds}.")
        self.folds = folds
        self.seed = seed

    def _fit(self, archs: ArchBatch, y: NDArray[np.float64], sources: Sequence[SourceSamples]) -> None:
        able = [candidate for candidate in self.candidates.values() if len(y) >= candidate.least]
        self.scores = {}
        self.choice = able[0].name
        if len(able) == 1 or len(y) < _FEWEST:
            why = "the only one for so few" if len(able) == 1 else "preferred, and they are too few to compare"
            self.reason = f"{self.choice}: of {len(y)} samples, {why}"
        else:
            left_out = {candidate.name: self._left_out(candidate.predictor, archs, y, sources) for candidate in able}
            self.scores = {name: _tau(found, y) for name, found in left_out.items()}
            self.choice, margin = self._best(left_out, y)
            told = ", ".join(f"{name} {score:.3f}" for name, score in self.scores.items())
            self.reason = f"{self.choice}: {margin} (Kendall tau of {len(y)} left-out samples: {told})"
        logger.info("Chose the predictor %s.", self.reason)
        self.candidates[self.choice].predictor.fit(archs, y, sources)

    def _left_out(
        self, predictor: Predictor, archs: ArchBatch, y: NDArray[np.float64], sources: Sequence[SourceSamples]
    ) -> NDArray[np.float64]:
        found = np.empty(len(y))
        calibrates, predictor.calibrates = predictor.calibrates, False
        try:
            for train, test in KFold(min(self.folds, len(y)), shuffle=True, random_state=self.seed).split(y):
                try:
                    found[test] = predictor.fit(archs[train], y[train], sources).predict(archs[test]).mean
                except PredictorError:  # the figures of this fold are all the same
                    found[test] = y[train].mean()
        finally:
            predictor.calibrates = calibrates
        return found

    def _best(self, left_out: Mapping[str, NDArray[np.float64]], y: NDArray[np.float64]) -> tuple[str, str]:
        """Return the name of the candidate to take, and why."""
        first = next(iter(left_out))
        rng = np.random.default_rng(self.seed)
        picks = [rng.integers(len(y), size=len(y)) for _ in range(_RESAMPLES)]
        base = np.array([_tau(left_out[first][pick], y[pick]) for pick in picks])
        best, gain = first, 0.0
        for name in list(left_out)[1:]:
            differences = np.array([_tau(left_out[name][pick], y[pick]) for pick in picks]) - base
            ahead = self.scores[name] - self.scores[first]
            if ahead > max(gain, float(differences.std())):
                best, gain = name, ahead
        if best == first:
            return first, "preferred, and none is better beyond doubt"
        return best, f"better than the preferred {first} by {gain:.3f}, beyond one standard error"

    def _predict(self, archs: ArchBatch) -> Prediction:
        return self.candidates[self.choice].predictor.predict(archs)

    def _state(self) -> tuple[Arrays, dict[str, Any]]:
        arrays, learned = self.candidates[self.choice].predictor._state()
        return arrays, {"choice": self.choice, "scores": self.scores, "reason": self.reason, "learned": learned}

    def _restore(self, space: GeneSpace, arrays: Arrays, facts: Mapping[str, Any]) -> None:
        self.choice, self.scores, self.reason = facts["choice"], dict(facts["scores"]), facts["reason"]
        predictor = self.candidates[self.choice].predictor
        predictor._restore(space, arrays, facts["learned"])
        predictor.space = space


def _tau(found: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Kendall tau-b; 0 where one side is constant."""
    tau = float(kendalltau(found, y).statistic)
    return 0.0 if np.isnan(tau) else tau
