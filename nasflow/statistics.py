"""Rank correlations with their uncertainty, and the reliability of repeated figures."""

from dataclasses import dataclass
from itertools import combinations
from math import atanh, sqrt, tanh
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from searchspaces.errors import ConfigError

_NORMAL_95 = 1.959964
_LEAST = 5  # observations below which the intervals have no meaning


@dataclass(frozen=True)
class Correlation:
    """A rank correlation.

    Attributes:
        value: Between -1 and 1; NaN where one side is constant.
        low: Lower end of the 95 % confidence interval.
        high: Upper end.
        n: Number of pairs.
    """

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def spearman(x: ArrayLike, y: ArrayLike) -> Correlation:
    """Spearman's rank correlation of `x` and `y`, each `(n,)`, ties at their average rank.

    The interval is that of Bonett and Wright (Psychometrika 65, 2000) on Fisher's scale.

    Raises:
        ConfigError: If there are fewer than five pairs.
    """
    a, b = _pairs(x, y)
    value = float(stats.spearmanr(a, b).statistic) if _varies(a, b) else float("nan")
    return _interval(value, sqrt((1 + value**2 / 2) / max(1, len(a) - 3)), len(a))


def kendall_tau(x: ArrayLike, y: ArrayLike) -> Correlation:
    """Kendall's tau-b of `x` and `y`, each `(n,)`; the interval as for `spearman`.

    Raises:
        ConfigError: If there are fewer than five pairs.
    """
    a, b = _pairs(x, y)
    value = float(stats.kendalltau(a, b).statistic) if _varies(a, b) else float("nan")
    return _interval(value, sqrt(0.437 / max(1, len(a) - 4)), len(a))


def reliability(repeats: ArrayLike) -> float:
    """Reliability of the mean of repeated figures, by the Spearman-Brown formula.

    Args:
        repeats: `(n, k)`: k repeats of n figures, for instance accuracies under k seeds.

    Returns:
        `k r / (1 + (k - 1) r)`, r being the mean Spearman correlation between two repeats: the rank correlation to
        expect between this mean and that of k further repeats.

    Raises:
        ConfigError: If there are fewer than two repeats or five figures.
    """
    figures = np.asarray(repeats, dtype=np.float64)
    count = figures.shape[1] if figures.ndim == 2 else 0
    if count < 2:
        raise ConfigError(f"Reliability needs at least two repeats of each figure, but got shape {figures.shape}.")
    between = [spearman(figures[:, a], figures[:, b]).value for a, b in combinations(range(count), 2)]
    r = float(np.mean(between))
    return count * r / (1 + (count - 1) * r)


def _pairs(x: ArrayLike, y: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1 or len(a) < _LEAST or np.isnan(a).any() or np.isnan(b).any():
        raise ConfigError(
            f"A rank correlation needs at least {_LEAST} pairs of known figures, but got arrays of shapes {a.shape} "
            f"and {b.shape} with {int(np.isnan(a).sum() + np.isnan(b).sum())} unknown."
        )
    return a, b


def _varies(*arrays: NDArray[Any]) -> bool:
    return all(np.ptp(array) > 0 for array in arrays)


def _interval(value: float, error: float, n: int) -> Correlation:
    if np.isnan(value) or abs(value) >= 1:
        return Correlation(value, value, value, n)
    centre = atanh(value)
    return Correlation(value, tanh(centre - _NORMAL_95 * error), tanh(centre + _NORMAL_95 * error), n)
