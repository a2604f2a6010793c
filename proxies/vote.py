"""Merging the scores of several proxies."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

VOTERS = ("synflow", "jacov", "snip")
_BLOCK = 256


def vote(scores: ArrayLike) -> NDArray[np.float64]:
    """Rank networks by majority: one beats another where more of the scores say so than the contrary.

    Published for the three proxies `VOTERS` on pairs of networks (arXiv 2101.08134, whose figure of 0.82 for
    NAS-Bench-201 is the share of pairs that the majority puts in the order of their accuracy). Majorities of pairs
    need not make an order, so networks are ranked by the number of others they beat (Copeland's rule). The vote depends
    on which networks are voted on together.

    Args:
        scores: Shape `(n, k)`, larger is better, one column per proxy; NaN counts as the smallest.

    Returns:
        Shape `(n,)`: by how many more of the others each one beats than it loses to, NaN where all its scores are
        NaN. A single column is returned as it is.
    """
    columns = np.asarray(scores, dtype=np.float64)
    if columns.shape[1] == 1:
        return columns[:, 0]
    missing = np.isnan(columns)
    known = np.where(missing, -np.inf, columns)
    ranks = [np.unique(column, return_inverse=True)[1] for column in known.T]
    margins = np.empty(len(columns))
    for start in range(0, len(columns), _BLOCK):  # all pairs at once would take n² numbers
        ahead = sum(np.sign(rank[start : start + _BLOCK, None] - rank[None]) for rank in ranks)
        margins[start : start + _BLOCK] = np.sign(ahead).sum(axis=1)
    margins[missing.all(axis=1)] = np.nan
    return margins
