"""An exact Gaussian process over precomputed Gram matrices, for few samples."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize
from scipy.stats import norm, t
from threadpoolctl import ThreadpoolController

from searchspaces.errors import PredictorError

MOST_SAMPLES = 1000
_KEPT = 1e-3  # share of the evidence from which on a hypothesis takes part in predictions
_COUNTS = 5e-3  # share of the kernels' weights from which on one counts
_JITTER = 1e-8
_NOTHING = -100.0  # logarithm of a weight that is none
_STEPS = 30  # of an ascent
_WIDTH = 2.0  # how far an ascent may lead, in natural logarithms
_HOPELESS = 1e10
_REFITS = 6  # at most, for outliers
_PRIOR = 4  # samples' worth of belief that the stated deviations are right
_MOST_LEFT_OUT = 200  # samples up to which leaving some out is worth its time
_QUANTILE = 0.95
_WITHOUT = 0.25  # share of the settings that have no trend
_LEAST_TREND = 0.5  # of the others, in deviations of the target per deviation along it
_RISING = 0.3  # parameter of the Dirichlet distribution of its direction
_EXPLAINED = 0.9  # share of what a trend explains that kernels lose
_FLATTEST = 0.3  # deviation of the samples along a trend below which it is taken to be this
Matrix = NDArray[np.float64]

_BLAS = ThreadpoolController()
_Function = TypeVar("_Function", bound=Callable[..., Any])


def on_one_thread(function: _Function) -> _Function:
    """Return `function` without threads of BLAS.

    Matrices of at most a thousand rows gain little from them, and lose much where other processes keep the cores busy:
    threads then wait for each other (seen: ten times slower).
    """
    wrapped: _Function = _BLAS.wrap(limits=1, user_api="blas")(function)
    return wrapped


class GaussianProcess:
    """Gaussian process regression whose kernel is a mixture of given ones.

    With few samples no single setting of a kernel is certain, so predictions are averaged over settings by their
    marginal likelihood: mixtures drawn from the prior, and the best of them after ascending the likelihood. The prior
    of a setting: weights of the kernels Dirichlet with parameter 0.4, so that mostly few kernels matter; amplitude and
    share of noise log-uniform. Where the target is known to rise with some figures, three of four settings expect a
    trend: a mixture of the figures (Dirichlet, too), by half to a whole deviation of the target per deviation of the
    samples; kernels then have less left to explain. Standard deviations are scaled to the errors on left-out samples.

    Args:
        draws: Settings to draw.
        ascents: How many of the best to improve further.
        seed: Seed of the draws.
        outliers: Errors on left-out samples beyond so many standard deviations, estimated by their median, are cut to
            that (Huber's pseudo-values), and the process is fitted again; None for samples without outliers.
        folds: Parts of the samples that are left out in turn, and predicted by a process that was fitted to the others,
            to find what standard deviations are scaled by: of few samples, settings chosen with all of them know too
            much. 0 to keep the settings, and for more than 200 samples.

    Attributes:
        evidence: Logarithm of the mean marginal likelihood of the settings, after `fit`.
    """

    def __init__(
        self, draws: int = 128, ascents: int = 2, seed: int = 0, outliers: float | None = None, folds: int = 0
    ) -> None:
        self.draws = draws
        self.ascents = ascents
        self.seed = seed
        self.outliers = outliers
        self.folds = folds

    @on_one_thread
    def fit(self, grams: Matrix, y: Matrix, rising: Matrix | None = None) -> "GaussianProcess":
        """Condition on samples.

        Args:
            grams: `(m, n, n)`, of m kernels between n samples, each with a mean diagonal of about 1.
            y: `(n,)`.
            rising: `(n, q)`, figures with which y is known to rise, each with a deviation of about 1; None without.

        Raises:
            PredictorError: If there are more than 1,000 samples.
        """
        n = len(y)
        if n > MOST_SAMPLES:
            raise PredictorError(
                f"An exact Gaussian process takes at most {MOST_SAMPLES} samples, but got {n}. Give it a part of them, "
                "or take predictor=trees."
            )
        rising = _nothing(n) if rising is None else rising
        self._settle(grams, y, rising)
        refitted = self.folds > 1 and 1 < n <= _MOST_LEFT_OUT
        self._calibration = self._cross_calibrated(grams, y, rising) if refitted else self._calibrated(y)
        return self

    def _settle(self, grams: Matrix, y: Matrix, rising: Matrix) -> None:
        """Find settings, and what is left of outliers."""
        self._fit_once(grams, y, rising)
        self._cut = y
        for _ in range(_REFITS if self.outliers is not None else 0):
            cut = self._without_outliers(y)
            if np.allclose(cut, self._cut, atol=1e-6 * self._spread):
                break
            self._cut = cut
            self._fit_once(grams, cut, rising)

    def _fit_once(self, grams: Matrix, y: Matrix, rising: Matrix) -> None:
        rng = np.random.default_rng(self.seed)
        target = self._standardised(y)
        settings = [_drawn(len(grams), rng) for _ in range(self.draws)]
        slopes = [_slopes(rising, theta, rng) for theta in settings]
        left = target - np.array(slopes) @ (rising - rising.mean(axis=0)).T
        scores = np.array([_evidence(grams, own, theta)[0] for own, theta in zip(left, settings, strict=True)])
        for best in np.argsort(-scores)[: self.ascents]:
            settings.append(_ascended(grams, left[best], settings[best]))
            slopes.append(slopes[best])
            scores = np.append(scores, _evidence(grams, left[best], settings[-1])[0])
        # Where an ascent ended is as likely as what it began with was to be drawn: it stands for that one's region.
        weights = np.exp(scores - scores.max())
        self.evidence = float(np.log(weights.mean()) + scores.max())
        weights /= weights.sum()
        kept = weights >= _KEPT
        self._settings = _pruned(np.array(settings)[kept])
        self._weights = weights[kept] / weights[kept].sum()
        self._slopes = np.array(slopes)[kept]
        self._condition(grams, target, rising)

    def _standardised(self, y: Matrix) -> Matrix:
        self._mean, self._spread = float(y.mean()), float(y.std()) or 1.0
        return (y - self._mean) / self._spread

    def _without_outliers(self, y: Matrix) -> Matrix:
        """Bring figures nearer to what the other samples let expect, where they are too far from it."""
        assert self.outliers is not None
        errors, _ = self._left_out
        limit = self.outliers * 1.4826 * max(float(np.median(np.abs(errors))), 1e-6) * self._spread
        expected = self._cut - errors * self._spread
        return expected + np.clip(y - expected, -limit, limit)

    @property
    def used(self) -> NDArray[np.bool_]:
        """Which kernels have a weight in any setting, shape `(m,)`; the others need not be computed for `predict`."""
        return np.asarray((self._settings[:, :-1] > -np.inf).any(axis=0))

    def _condition(self, grams: Matrix, target: Matrix, rising: Matrix) -> None:
        self._factors, self._solved = [], []
        self._centre = rising.mean(axis=0)
        for theta, trend in zip(self._settings, self._trends(rising), strict=True):
            factor = _factor(grams, theta)
            self._factors.append(factor)
            self._solved.append(cho_solve((factor, True), target - trend))
        self._left_out = self._errors(target)

    def _trends(self, rising: Matrix) -> Matrix:
        """Return what settings expect without samples, shape `(settings, k)`."""
        return np.asarray(self._slopes @ (rising - self._centre).T)

    def _errors(self, target: Matrix) -> tuple[Matrix, Matrix]:
        """Errors on left-out samples and the variances that were stated for them, on the standardised scale."""
        errors, variances = np.zeros_like(target), np.zeros_like(target)
        for weight, factor, solved in zip(self._weights, self._factors, self._solved, strict=True):
            precision = np.diag(cho_solve((factor, True), np.eye(len(target))))
            errors += weight * solved / precision
            variances += weight / precision
        return errors, variances

    def _calibrated(self, y: Matrix) -> float:
        """Ratio of left-out errors to the standard deviations that were stated for them (root mean square)."""
        errors, variances = self._left_out
        whole = errors + (y - self._cut) / self._spread  # outliers are errors, too
        ratio = float(np.sqrt(np.mean(whole**2 / variances)))
        if self.outliers is not None:  # errors by which outliers were cut are too small to promise more
            ratio = max(1.0, ratio)
        # A handful of errors says little about a ratio: it counts in full from some dozens of samples on.
        return float(ratio ** (len(y) / (len(y) + 10)))

    def _cross_calibrated(self, grams: Matrix, y: Matrix, rising: Matrix) -> float:
        """Ratio of left-out errors to the standard deviations stated for them, by processes that never saw them.

        A few errors more, as large as stated, stand for what is believed before. That few samples tell the ratio with
        error is made up for by Student's distribution, so that intervals of 1.645 deviations hold 90 %.
        """
        n = len(y)
        folds = np.random.default_rng(self.seed).permutation(n) % min(self.folds, n)
        ratios = np.ones(n)
        for fold in range(int(folds.max()) + 1):
            out, kept = folds == fold, folds != fold
            if np.ptp(y[kept]) == 0:  # what is left has no scale to tell errors by
                continue
            other = GaussianProcess(self.draws, self.ascents, self.seed, self.outliers)
            other._settle(grams[:, kept][:, :, kept], y[kept], rising[kept])
            other._calibration = 1.0
            used = grams[other.used]
            cross, diagonal = used[:, out][:, :, kept], np.diagonal(used, axis1=1, axis2=2)[:, out]
            mean, std = other.predict(cross, diagonal, rising[out])
            ratios[out] = (y[out] - mean) / std
        ratio = max(1.0, float(np.sqrt((ratios @ ratios + _PRIOR) / (n + _PRIOR))))
        return ratio * float(t.ppf(_QUANTILE, n - 1) / norm.ppf(_QUANTILE))

    @on_one_thread
    def predict(self, cross: Matrix, diagonal: Matrix, rising: Matrix | None = None) -> tuple[Matrix, Matrix]:
        """Return mean and standard deviation `(k,)` at k places, noise of the samples included.

        Args:
            cross: `(u, k, n)`, those kernels that are `used` between the places and the samples.
            diagonal: `(u, k)`, the same kernels of each place with itself.
            rising: `(k, q)`, the figures of the places, if samples had such.
        """
        trends = self._trends(_nothing(cross.shape[1]) if rising is None else rising)
        weights, noise = np.exp(self._settings[:, :-1][:, self.used]), np.exp(self._settings[:, -1:])
        mixtures = np.tensordot(weights, cross, axes=1)
        explained = [
            (solve_triangular(factor, mixed.T, lower=True, check_finite=False) ** 2).sum(axis=0)
            for factor, mixed in zip(self._factors, mixtures, strict=True)
        ]
        means = trends + np.einsum("skn,sn->sk", mixtures, np.array(self._solved))
        variances = np.maximum(weights @ diagonal - explained, 0) + noise
        mean = np.tensordot(self._weights, means, axes=1)
        between = np.tensordot(self._weights, (means - mean) ** 2, axes=1)
        variance = np.tensordot(self._weights, variances, axes=1) + between
        return mean * self._spread + self._mean, np.sqrt(variance) * self._calibration * self._spread

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs beside the Gram matrices and the samples."""
        # -inf is no number in JSON; so small a weight means the same.
        settings = np.maximum(self._settings, _NOTHING)
        numbers = {"evidence": self.evidence, "calibration": self._calibration}
        found = {"settings": settings.tolist(), "weights": self._weights.tolist(), **numbers}
        found |= {"slopes": self._slopes.tolist()} if self._slopes.size else {}
        return found | ({"cut": self._cut.tolist()} if self.outliers is not None else {})

    @on_one_thread
    def restore(
        self, grams: Matrix, y: Matrix, state: Mapping[str, Any], rising: Matrix | None = None
    ) -> "GaussianProcess":
        """Condition on the samples again, with settings found before."""
        rising = _nothing(len(y)) if rising is None else rising
        self._cut = np.array(state.get("cut", y))
        settings = np.array(state["settings"])
        self._settings = np.where(settings <= _NOTHING, -np.inf, settings)
        self._weights = np.array(state["weights"])
        self.evidence = float(state["evidence"])
        self._slopes = np.array(state.get("slopes", np.zeros((len(settings), rising.shape[1]))))
        self._condition(grams, self._standardised(self._cut), rising)
        self._calibration = float(state["calibration"])
        return self


def _drawn(kernels: int, rng: np.random.Generator) -> Matrix:
    """Logarithms of the kernels' weights times the amplitude, then that of the noise."""
    weights = np.maximum(rng.dirichlet(np.full(kernels, 0.4)), 1e-6)
    amplitude = 10 ** rng.uniform(-0.3, 0.7)
    return np.append(np.log(weights * amplitude), np.log(10) * rng.uniform(-2.5, -0.1))


def _slopes(rising: Matrix, theta: Matrix, rng: np.random.Generator) -> Matrix:
    """Slopes `(q,)` of a trend; the kernels of the setting lose what it explains."""
    none = np.zeros(rising.shape[1])
    if not len(none) or rng.random() < _WITHOUT:
        return none
    amount, direction = rng.uniform(_LEAST_TREND, 1), rng.dirichlet(none + _RISING)
    theta[:-1] += np.log(1 - _EXPLAINED * amount**2)
    return np.asarray(amount * direction / max(float((rising @ direction).std()), _FLATTEST))


def _nothing(n: int) -> Matrix:
    return np.zeros((n, 0))


def _pruned(settings: Matrix) -> Matrix:
    """Leave out kernels that hardly count in a setting, which saves most of the time of predicting."""
    weights = settings[:, :-1]
    hardly = weights < np.logaddexp.reduce(weights, axis=1, keepdims=True) + np.log(_COUNTS)
    return np.concatenate([np.where(hardly, -np.inf, weights), settings[:, -1:]], axis=1)


def _read(theta: Matrix) -> tuple[Matrix, float]:
    return np.exp(theta[:-1]), float(np.exp(theta[-1]))


def _factor(grams: Matrix, theta: Matrix) -> Matrix:
    weights, noise = _read(theta)
    matrix = np.tensordot(weights, grams, axes=1)
    matrix[np.diag_indices_from(matrix)] += noise + _JITTER
    return np.asarray(cholesky(matrix, lower=True))


def _evidence(grams: Matrix, target: Matrix, theta: Matrix) -> tuple[float, Matrix, Matrix]:
    """Log marginal likelihood, the matrix's Cholesky factor and its solution for the target; -inf where it fails."""
    try:
        factor = _factor(grams, theta)
    except LinAlgError:
        return -np.inf, np.zeros(0), np.zeros(0)
    solved = cho_solve((factor, True), target)
    value = -0.5 * target @ solved - np.log(np.diag(factor)).sum() - 0.5 * len(target) * np.log(2 * np.pi)
    return float(value), factor, solved


def _ascended(grams: Matrix, target: Matrix, start: Matrix) -> Matrix:
    """Ascend the marginal likelihood from a drawn setting, held near it by a normal prior."""
    flat = grams.reshape(len(grams), -1)
    identity = np.eye(len(target))

    def loss(theta: Matrix) -> tuple[float, Matrix]:
        value, factor, solved = _evidence(grams, target, theta)
        if not np.isfinite(value):
            return _HOPELESS, np.zeros_like(theta)
        weights, noise = _read(theta)
        inner = np.outer(solved, solved) - cho_solve((factor, True), identity)
        slopes = np.append(weights * (flat @ inner.ravel()), noise * np.trace(inner)) / 2
        pull = (theta - start) / _WIDTH**2
        return -value + 0.5 * float((pull * (theta - start)).sum()), pull - slopes

    bounds = [(np.log(1e-6), np.log(20.0))] * (len(start) - 1) + [(np.log(1e-3), 0.0)]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": _STEPS})
    return np.asarray(found.x)
