"""Sets of devices cut into sources and targets that have little in common."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from searchspaces.errors import ConfigError

_STARTS = 20  # random cuts from which swaps lead on


def weakly_correlated(
    latencies: NDArray[np.float64],
    names: Sequence[str],
    sources: int | None = None,
    targets: int | None = None,
    seed: int = 0,
) -> tuple[list[str], list[str]]:
    """Choose sources and targets among devices so that the ranks of their latencies agree as little as can be found.

    NASFLAT (arXiv 2403.02446) makes its tasks by Kernighan-Lin bisection of the graph whose edges are Spearman's
    coefficients, and then drops devices from both halves. Here the numbers of devices are part of the problem: from
    random choices, any two devices change places, chosen or not, as long as the mean coefficient between a source
    and a target falls; the best end of several is returned.

    Args:
        latencies: All known, shape `(devices, archs)`.
        names: The devices' names.
        sources: How many sources to choose; all that are no targets when absent.
        targets: How many targets to choose; half of the devices, or what `sources` leaves, when absent.
        seed: Decides the choices that the search starts from.

    Returns:
        Names of the sources and of the targets, each in the order of `names`.

    Raises:
        ConfigError: If there are fewer devices than are asked for, or none of a kind.
    """
    count = len(names)
    if targets is None:
        targets = count // 2 if sources is None else count - sources
    if sources is None:
        sources = count - targets
    if min(sources, targets) < 1 or sources + targets > count:
        raise ConfigError(
            f"{count} devices ({', '.join(names)}) cannot give {sources} sources and {targets} targets: there has to "
            "be one of each, and none can be both. Ask for fewer, or collect on further devices."
        )
    alike = np.corrcoef(rankdata(latencies, axis=1))
    role = np.repeat([1, -1, 0], [sources, targets, count - sources - targets])  # source, target, left out
    rng = np.random.default_rng(seed)
    ends = [_descended(alike, rng.permutation(role)) for _ in range(_STARTS)]
    best = min(ends, key=lambda end: _between(alike, end))
    return _named(names, best > 0), _named(names, best < 0)


def _named(names: Sequence[str], chosen: NDArray[np.bool_]) -> list[str]:
    return [name for name, one in zip(names, chosen, strict=True) if one]


def _between(alike: NDArray[np.float64], role: NDArray[np.int64]) -> float:
    return float(alike[np.ix_(role > 0, role < 0)].mean())


def _descended(alike: NDArray[np.float64], role: NDArray[np.int64]) -> NDArray[np.int64]:
    """Make the best swap of two devices until none lowers the mean coefficient."""
    pairs = [(i, j) for i in range(len(role)) for j in range(i) if i != j]
    while True:
        swapped = [np.array(role) for _ in pairs]
        for other, (i, j) in zip(swapped, pairs, strict=True):
            other[[i, j]] = other[[j, i]]
        best = min(swapped, key=lambda other: _between(alike, other))
        if _between(alike, best) >= _between(alike, role):
            return role
        role = best
