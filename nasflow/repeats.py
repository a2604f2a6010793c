"""How well two collections of the same models agree, and what they can be trusted to rank."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nasflow.statistics import Correlation, kendall_tau, spearman

GAPS = (0.05, 0.10)
_ALIKE = 0.95  # share of pairs from which on an order is trusted
_LEAST_PAIRS = 20  # below which a share says nothing


@dataclass(frozen=True)
class Pairs:
    """Pairs of models about some gap apart.

    Attributes:
        gap: Their times differ by this share up to twice it, by the geometric mean of both collections.
        pairs: How many there are.
        alike: Share of them that both collections order alike; NaN where there are none.
    """

    gap: float
    pairs: int
    alike: float

    def __str__(self) -> str:
        what = f"models {self.gap:.0%} apart"
        if self.pairs < _LEAST_PAIRS:
            return f"whether it ranks {what} cannot be told from {self.pairs} such pairs: repeat more models"
        verdict = "fit" if self.alike >= _ALIKE else "not fit"
        return f"{verdict} to rank {what}: both collections order {self.alike:.1%} of {self.pairs} such pairs alike"


@dataclass(frozen=True)
class Agreement:
    """What two collections of the same models say of their noise.

    Attributes:
        kendall_tau: Rank correlation of the two.
        spearman: Rank correlation of the two.
        spread_percent: Standard deviation of one figure: that of the ratios' logarithms over √2, in percent.
        shift_percent: By how much the median model was slower in the second collection.
        pairs: How pairs about a gap apart are ordered.
    """

    kendall_tau: Correlation
    spearman: Correlation
    spread_percent: float
    shift_percent: float
    pairs: Sequence[Pairs] = field(default=())

    def facts(self) -> dict[str, Any]:
        """Return all of it JSON-able; NaN becomes None."""
        return dict(_finite(asdict(self))) | {"in_words": self.lines()}

    def lines(self) -> list[str]:
        """Return it in words."""
        return [
            f"Kendall tau {self.kendall_tau}, Spearman {self.spearman}, {self.kendall_tau.n} models",
            f"one figure varies by {self.spread_percent:.1f} %, all of them shifted by {self.shift_percent:+.1f} %",
            *map(str, self.pairs),
        ]


def agreement(first: ArrayLike, second: ArrayLike, gaps: Sequence[float] = GAPS) -> Agreement:
    """Compare two collections of the same n models.

    Args:
        first: Latencies, shape `(n,)`, all known and above 0.
        second: Those of the other collection.
        gaps: Differences of two models' times to judge.

    Raises:
        ConfigError: If there are fewer than five models.
    """
    a, b = np.log(np.asarray(first, dtype=np.float64)), np.log(np.asarray(second, dtype=np.float64))
    tau, rho = kendall_tau(a, b), spearman(a, b)
    i, j = np.triu_indices(len(a), 1)
    # The mean of both decides how far apart two models are: by one alone, its own errors would choose the pairs.
    apart = np.abs((a + b)[i] - (a + b)[j]) / 2
    alike = (a[i] - a[j]) * (b[i] - b[j]) > 0
    pairs = []
    for gap in gaps:
        chosen = (apart >= np.log1p(gap)) & (apart < np.log1p(2 * gap))
        pairs.append(Pairs(gap, int(chosen.sum()), float(alike[chosen].mean()) if chosen.any() else float("nan")))
    ratio = b - a
    spread, shift = float(ratio.std(ddof=1) / np.sqrt(2)), float(np.expm1(np.median(ratio)))
    return Agreement(tau, rho, 100 * spread, 100 * shift, tuple(pairs))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
