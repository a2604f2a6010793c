"""A Gaussian process on encodings."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predictors.accuracy.encoded import EncodedPredictor, Vector
from predictors.encodings import Encoding, Features
from predictors.gp import MOST_SAMPLES, GaussianProcess, on_one_thread

logger = logging.getLogger(__name__)

_BLOCK = 512  # architectures scored at a time


class GaussianProcessPredictor(EncodedPredictor):
    """A Gaussian process with kernels on each part of an encoding and on all together.

    Each part has a linear kernel and two squared-exponential ones, of length 0.7 and 1.5 times its typical distance;
    all parts together have two, of length 0.6 and 1. Which of them matter is left to the marginal likelihood. Of more
    than 1,000 samples a random 1,000 are used.

    Args:
        encoding: What architectures are described by.
        draws: Settings of the kernels to draw, see `GaussianProcess`.
        ascents: How many of them to improve.
        seed: Seed of the draws.

    Attributes:
        outliers: See `GaussianProcess`.
        folds: See `GaussianProcess`.
    """

    outliers: float | None = None
    folds: int = 0

    def __init__(self, encoding: Encoding, draws: int = 64, ascents: int = 2, seed: int = 0) -> None:
        super().__init__(encoding, seed)
        self.draws = draws
        self.ascents = ascents

    def _between(self, parts: list[Features]) -> "Kernels":
        """Return the kernels between architectures and the samples that have these parts."""
        return Kernels(parts)

    def _rising(self, parts: list[Features]) -> Features | None:
        """Return figures `(n, q)` with which the target is known to rise; None if there are none."""
        return None

    def _twin(self) -> "GaussianProcessPredictor":
        return GaussianProcessPredictor(self.encoding, self.draws, self.ascents, self.seed)

    def _learn(self, parts: list[Features], target: Vector, learned: Mapping[str, Any] | None) -> dict[str, Any]:
        if len(target) > MOST_SAMPLES:
            logger.warning("A Gaussian process takes a random %d of the %d samples.", MOST_SAMPLES, len(target))
            kept = np.random.default_rng(self.seed).permutation(len(target))[:MOST_SAMPLES]
            parts, target = [part[kept] for part in parts], target[kept]
        self._kernels = self._between(parts)
        grams, rising = self._kernels(parts), self._rising(parts)
        folds = self.folds if self.calibrates else 0
        self._process = GaussianProcess(self.draws, self.ascents, self.seed, self.outliers, folds)
        if learned is None:
            self._process.fit(grams, target, rising)
        else:
            self._process.restore(grams, target, learned, rising)
        return self._process.state()

    def _expect(self, parts: list[Features]) -> tuple[Vector, Vector]:
        n = len(parts[0])
        mean, std = np.empty(n), np.empty(n)
        used = self._process.used
        for start in range(0, n, _BLOCK):
            block = [part[start : start + _BLOCK] for part in parts]
            cross, diagonal = self._kernels(block, used), self._kernels.diagonal(block)[used]
            part_mean, part_std = self._process.predict(cross, diagonal, self._rising(block))
            mean[start : start + _BLOCK], std[start : start + _BLOCK] = part_mean, part_std
        return mean, std


class Kernels:
    """Linear and squared-exponential kernels between architectures and the samples.

    Args:
        parts: Parts of the samples' encoding, each `(n, d_i)`.
        lengths: Lengths of the squared-exponential kernels of each part, in its typical distances.
        common_lengths: Lengths of those of all parts together.
        single_lengths: Lengths of those of parts that have one column.
    """

    def __init__(
        self,
        parts: list[Features],
        lengths: Sequence[float] = (0.7, 1.5),
        common_lengths: Sequence[float] = (0.6, 1.0),
        single_lengths: Sequence[float] = (0.7, 1.5),
    ) -> None:
        self.parts = parts
        self.common_lengths = common_lengths
        self._lengths = [lengths if part.shape[1] > 1 else single_lengths for part in parts]
        self._squares = [(part**2).sum(axis=1) for part in parts]
        self._widths = [max(1, int((part.std(axis=0) > 0).sum())) for part in parts]

    @on_one_thread
    def __call__(self, parts: list[Features], used: NDArray[np.bool_] | None = None) -> Features:
        """Return the kernels `(m, k, n)` between k architectures and the n samples, or those of them that are used."""
        wanted = np.ones(self.number, dtype=np.bool_) if used is None else used
        out = np.empty((int(wanted.sum()), len(parts[0]), len(self.parts[0])))
        place, want = iter(out), iter(wanted)  # where the next kernel goes, and whether it is one of those used
        common_used = wanted[self.number - len(self.common_lengths) :].any()
        common = np.zeros(out.shape[1:]) if common_used else None
        samples = zip(self.parts, self._squares, self._widths, self._lengths, strict=True)
        for part, (own, squares, width, lengths) in zip(parts, samples, strict=True):
            linear, *these = [next(want) for _ in range(1 + len(lengths))]
            if not (common_used or linear or any(these)):
                continue
            inner = part @ own.T
            if linear:
                np.divide(inner, width, out=next(place))
            distance = np.maximum((part**2).sum(axis=1)[:, None] + squares - 2 * inner, 0)
            if common is not None:
                common += distance
            for length, this in zip(lengths, these, strict=True):
                if this:
                    _squared_exponential(distance, length**2 * width, next(place))
        if common is not None:
            for length, this in zip(self.common_lengths, want, strict=True):
                if this:
                    _squared_exponential(common, length**2 * sum(self._widths), next(place))
        return out

    @property
    def number(self) -> int:
        """How many kernels there are."""
        return sum(1 + len(lengths) for lengths in self._lengths) + len(self.common_lengths)

    def diagonal(self, parts: list[Features]) -> Features:
        """Return the kernels `(m, k)` of each architecture with itself."""
        ones = np.ones(len(parts[0]))
        out = []
        for part, width, lengths in zip(parts, self._widths, self._lengths, strict=True):
            out += [(part**2).sum(axis=1) / width, *(ones for _ in lengths)]
        return np.stack([*out, *(ones for _ in self.common_lengths)])


def _squared_exponential(distance: Features, width: float, out: Features) -> None:
    np.multiply(distance, -1 / (2 * width), out=out)
    np.exp(out, out=out)
