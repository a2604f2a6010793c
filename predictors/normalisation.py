"""The scales on which predictors learn figures: normal scores of ranks, and logarithms."""

from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from searchspaces.errors import PredictorError

_KNOTS = 513  # more reference figures than that are thinned to so many quantiles


class Scale(Protocol):
    """A map from figures to a scale on which their errors are about normal, and back.

    Args:
        reference: The samples' figures `(n,)`.
    """

    def __init__(self, reference: ArrayLike) -> None: ...

    def __call__(self, figures: ArrayLike) -> NDArray[np.float64]:
        """Return the targets that `figures` have on the scale."""

    def restored(self, mean: NDArray[np.float64], std: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        """Return location and standard deviation, in the figures' unit, of normal distributions on the scale."""


class Identity:
    """The figures' own scale.

    Args:
        reference: Unused; scales are made from the samples' figures.
    """

    def __init__(self, reference: ArrayLike) -> None:
        pass

    def __call__(self, figures: ArrayLike) -> NDArray[np.float64]:
        """Return the figures."""
        return np.asarray(figures, dtype=np.float64)

    def restored(self, mean: NDArray[np.float64], std: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        """Return both as they are."""
        return mean, std


class Logarithm:
    """The natural logarithm, for positive figures whose errors are relative ones.

    Args:
        reference: Figures `(n,)`.

    Raises:
        PredictorError: If one is not positive.
    """

    def __init__(self, reference: ArrayLike) -> None:
        figures = np.asarray(reference, dtype=np.float64)
        if (figures <= 0).any():
            raise PredictorError(
                f"Latencies are above 0 ms, but {int((figures <= 0).sum())} of {len(figures)} are not; the smallest is "
                f"{figures.min():g}. Leave out what failed, and give all in one unit."
            )

    def __call__(self, figures: ArrayLike) -> NDArray[np.float64]:
        """Return the logarithms of `figures`."""
        return np.log(np.asarray(figures, dtype=np.float64))

    def restored(self, mean: NDArray[np.float64], std: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        """Return the median and the standard deviation of the log-normal distributions.

        Beyond 100 the ratio of deviation to median says no more than that nothing is known, and is cut.
        """
        median = np.exp(mean)
        variance = np.minimum(std, 3.0) ** 2
        return median, median * np.minimum(np.sqrt(np.expm1(variance) * np.exp(variance)), 100.0)


class NormalScores:
    """Maps figures to the normal scores of their ranks among reference figures, and back.

    The map depends on the order of the reference alone, so it takes any scale and any outlier, infinite ones too. It is
    piecewise linear between the distinct reference figures, equal figures have one score, and beyond the ends it goes
    on with the mean slope.

    Args:
        reference: Figures `(n,)`; those that are NaN are left out.
    """

    def __init__(self, reference: ArrayLike) -> None:
        known = np.asarray(reference, dtype=np.float64).ravel()
        known = np.clip(np.sort(known[~np.isnan(known)]), -_LARGEST, _LARGEST)
        values, counts = np.unique(known, return_counts=True)
        # The mean rank of equal figures, as a share.
        shares = (np.cumsum(counts) - counts / 2) / max(1, len(known))
        if len(values) > _KNOTS:
            even = np.searchsorted(shares, np.linspace(shares[0], shares[-1], _KNOTS))
            kept = np.unique(np.minimum(even, len(values) - 1))
            values, shares = values[kept], shares[kept]
        self.values: NDArray[np.float64] = values
        self.scores: NDArray[np.float64] = ndtri(shares)

    def __call__(self, figures: ArrayLike) -> NDArray[np.float64]:
        """Return the scores of `figures`, of any shape; NaN stays NaN."""
        return _piecewise(np.clip(np.asarray(figures, dtype=np.float64), -_LARGEST, _LARGEST), self.values, self.scores)

    def inverse(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Return the figures that have these scores."""
        return _piecewise(np.asarray(scores, dtype=np.float64), self.scores, self.values)

    def restored(self, mean: NDArray[np.float64], std: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        """Return the figure at the mean, and half the distance of those one standard deviation below and above."""
        return self.inverse(mean), (self.inverse(mean + std) - self.inverse(mean - std)) / 2


_LARGEST = 1e300


def _piecewise(x: NDArray[np.float64], knots: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Interpolate linearly, and go on beyond the ends with the slope between the ends."""
    if len(knots) < 2:
        return np.where(np.isnan(x), np.nan, at[0] if len(at) else 0.0)
    slope = (at[-1] / 2 - at[0] / 2) / (knots[-1] / 2 - knots[0] / 2)  # halves, for differences may overflow
    beyond = np.minimum(x - knots[0], 0) + np.maximum(x - knots[-1], 0)
    return np.asarray(np.interp(x, knots, at) + slope * beyond)
