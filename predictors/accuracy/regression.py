"""Regressors of scikit-learn on encodings."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.base import RegressorMixin, clone
from sklearn.ensemble import ExtraTreesRegressor, RandomForestRegressor
from sklearn.model_selection import KFold

from predictors.accuracy.encoded import EncodedPredictor, Vector
from predictors.encodings import Encoding, Features

_FOLDS = 4
_MANY = 100  # samples from which on one fold tells enough


class Regression(EncodedPredictor):
    """A regressor of scikit-learn on an encoding.

    The standard deviation is the root mean square of the errors on left-out samples; for forests half of the variance
    goes with the disagreement of the trees about the architecture.

    Args:
        encoding: What architectures are described by.
        regressor: The regressor, unfitted; it is copied for each fit.
        seed: Its `random_state`, where it has one.
    """

    def __init__(self, encoding: Encoding, regressor: RegressorMixin, seed: int = 0) -> None:
        super().__init__(encoding, seed)
        self.regressor = regressor

    def _twin(self) -> "Regression":
        return Regression(self.encoding, self.regressor, self.seed)

    def _new(self, n: int) -> Any:
        """A copy of the regressor that can be fitted to `n` samples."""
        new = clone(self.regressor)
        known = new.get_params()
        if "random_state" in known:
            new.set_params(random_state=self.seed)
        if "n_neighbors" in known:
            new.set_params(n_neighbors=min(known["n_neighbors"], n))
        return new

    def _learn(self, parts: list[Features], target: Vector, learned: Mapping[str, Any] | None) -> dict[str, Any]:
        x = np.concatenate(parts, axis=1)
        self._fitted = self._new(len(x)).fit(x, target)
        self._errors = dict(learned or self._left_out(x, target))
        return self._errors

    def _left_out(self, x: Features, target: Vector) -> dict[str, float]:
        """Root mean squares of left-out errors and of the trees' disagreement about them."""
        folds = list(KFold(min(_FOLDS, len(x)), shuffle=True, random_state=self.seed).split(x))
        errors, doubts = [], []
        for train, test in folds[: 1 if len(x) >= _MANY else None]:
            mean, doubt = _voted(self._new(len(train)).fit(x[train], target[train]), x[test])
            errors.append(mean - target[test])
            doubts.append(doubt)
        return {"error": _rms(np.concatenate(errors)), "doubt": _rms(np.concatenate(doubts))}

    def _expect(self, parts: list[Features]) -> tuple[Vector, Vector]:
        mean, doubt = _voted(self._fitted, np.concatenate(parts, axis=1))
        return mean, self._errors["error"] * np.sqrt((1 + (doubt / (self._errors["doubt"] or 1.0)) ** 2) / 2)


def _voted(fitted: Any, x: Features) -> tuple[Vector, Vector]:
    """Return predictions `(n,)` and how far the trees of a forest disagree; one everywhere for what is no forest."""
    if not isinstance(fitted, (RandomForestRegressor, ExtraTreesRegressor)):
        return np.asarray(fitted.predict(x), dtype=np.float64), np.ones(len(x))
    numbers = np.ascontiguousarray(x, dtype=np.float32)  # what trees compare with
    votes = np.array([tree.tree_.predict(numbers)[:, 0] for tree in fitted.estimators_])
    return votes.mean(axis=0), votes.std(axis=0)


def _rms(values: Vector) -> float:
    return float(np.sqrt(np.mean(values**2)))
