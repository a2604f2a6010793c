"""How much a candidate is worth proposing, given what is expected of it."""

from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

Floats = NDArray[np.float64]
Acquisition = Literal["mean", "ucb", "ei", "thompson"]
ACQUISITIONS = get_args(Acquisition)

_AUGMENTATION = 0.05  # weight of the sum beside the maximum, as in ParEGO


class Expectation(NamedTuple):
    """What is expected of c candidates, on scales where smaller is better.

    Attributes:
        mean: Losses, shape `(objectives, c)`.
        std: Their standard deviations, shape `(objectives, c)`.
        known: Losses of the trials to improve upon, shape `(objectives, t)`.
        violation: Mean and standard deviation of the violation of bounds, shape `(2, c)`; 0 and less is feasible.
            None where no trial has missed a bound.
    """

    mean: Floats
    std: Floats
    known: Floats
    violation: Floats | None


def ranking(
    kind: Acquisition, expected: Expectation, weights: Floats, width: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return the candidates' positions, best first, shape `(c,)`.

    Candidates whose violation is not expected to be positive come first, by acquisition; the others follow by
    violation. Expected are: for `mean` and `ei` the mean; for `ucb` the bound in the candidate's favour, `width` times
    an exponential draw away from the mean (doi 10.1007/978-3-642-34413-8_5), so that proposals under way at the same
    time differ; for `thompson` a draw for each candidate on its own (arXiv 1910.11858).

    Args:
        kind: `mean`, `ucb`, `ei` (expected improvement) or `thompson`.
        expected: What is expected of the candidates.
        weights: Of the objectives, shape `(objectives,)`; those of one proposal of ParEGO
            (doi 10.1109/TEVC.2005.851274).
        width: Mean number of standard deviations for `ucb`.
        rng: Source of draws.
    """
    shift = np.zeros(1)
    if kind == "ucb":
        shift = np.full(1, -width * rng.exponential())
    if kind == "thompson":
        shift = rng.standard_normal(expected.mean.shape)
    if kind == "ei":
        value = -_expected_improvement(expected, weights)
    else:
        value = tchebycheff(expected.mean + shift * expected.std, weights)[0]
    if expected.violation is None:
        return np.argsort(value, kind="stable")
    middle, doubt = expected.violation
    drift = rng.standard_normal(len(middle)) if kind == "thompson" else shift
    return np.lexsort((value, np.maximum(middle + drift * doubt, 0)))


def tchebycheff(losses: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Return the augmented Tchebycheff norm of `losses (objectives, c)`, and its derivatives by them.

    Returns:
        Norms `(c,)` and derivatives `(objectives, c)`.
    """
    weighted = weights[:, None] * losses
    slopes = weights[:, None] * ((np.arange(len(losses))[:, None] == weighted.argmax(axis=0)) + _AUGMENTATION)
    return weighted.max(axis=0) + _AUGMENTATION * weighted.sum(axis=0), slopes


def _expected_improvement(expected: Expectation, weights: Floats) -> Floats:
    """By how much each candidate is expected to fall below the best known norm, shape `(c,)`.

    The norm counts as normal, with the deviation that its slopes at the mean give.
    """
    mean, slopes = tchebycheff(expected.mean, weights)
    std = np.sqrt(((slopes * expected.std) ** 2).sum(axis=0)) + 1e-12
    best = tchebycheff(expected.known, weights)[0].min()
    z = (best - mean) / std
    return np.asarray(std * (z * norm.cdf(z) + norm.pdf(z)))
