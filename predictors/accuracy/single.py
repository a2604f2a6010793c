"""The baseline of one figure: the column that ranks the samples best."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from predictors.accuracy.encoded import EncodedPredictor, Vector
from predictors.encodings import Encoding, Features


class BestColumn(EncodedPredictor):
    """Ranks by the one column of an encoding that has the largest Kendall tau with the samples, of either sign.

    On zero-cost scores it is the best single proxy. The standard deviation is that of the residuals of a line through
    the samples.

    Args:
        encoding: The columns to choose from.
        seed: Unused; all predictors on encodings have one.

    Attributes:
        column: Number of the chosen column, after `fit`.
    """

    def __init__(self, encoding: Encoding, seed: int = 0) -> None:
        super().__init__(encoding, seed)

    def _twin(self) -> "BestColumn":
        return BestColumn(self.encoding, self.seed)

    def _learn(self, parts: list[Features], target: Vector, learned: Mapping[str, Any] | None) -> dict[str, Any]:
        x = np.concatenate(parts, axis=1)
        taus = np.nan_to_num([kendalltau(column, target).statistic for column in x.T])
        self.column = int(np.argmax(np.abs(taus)))
        chosen = x[:, self.column]
        # The sign is that of the ranks: with few samples a line may go the other way because of one of them.
        slope = float(chosen @ target) / max(float(chosen @ chosen), 1e-12)
        self._slope = float(np.sign(taus[self.column])) * max(abs(slope), 1e-3)
        self._level = float(np.mean(target - self._slope * chosen))
        self._error = float(np.std(target - self._slope * chosen)) or 1e-6
        return {}

    def _expect(self, parts: list[Features]) -> tuple[Vector, Vector]:
        chosen = np.concatenate(parts, axis=1)[:, self.column]
        return self._level + self._slope * chosen, np.full(len(chosen), self._error)
