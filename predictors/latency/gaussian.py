"""The Gaussian process for latency."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from predictors.accuracy.encoded import at_home
from predictors.accuracy.gaussian import GaussianProcessPredictor, Kernels
from predictors.base import Arrays, SourceSamples
from predictors.encodings import Encoding, Features
from predictors.latency.sources import SourceDevices
from predictors.normalisation import Logarithm
from searchspaces.arch import ArchBatch
from searchspaces.genes import GeneSpace


class LatencyGaussianProcess(GaussianProcessPredictor):
    """A Gaussian process on the logarithm of the latency, with what other devices take as a part of the encoding.

    Every part has a linear kernel, parts of more than one column a squared-exponential one, too, and all parts together
    have another; which of them matter is left to the marginal likelihood. The linear kernel of the source devices
    is Bayesian regression of the target on them. A source tells by its model's prediction also where it was measured,
    for a figure that is exact for some architectures and predicted for others misleads the fit. Measurements that
    the others contradict, such as of a phone that was throttled for a moment, count less (`outliers`).

    Latencies are expected to rise with the costs in the encoding, such as operations or depth, and with the mean over
    source devices, which counts as much as all costs together. That helps most with few samples: over the tasks of
    `suite=latency_few_shot`, Spearman's coefficient was 0.806 with 5 samples and 0.903 with 20 before, and is 0.843 and
    0.907 (ten seeds).

    Predicted are the median and the standard deviation of a log-normal distribution, in the unit of the samples.

    Args:
        encoding: What architectures are described by.
        draws: Settings of the kernels to draw, see `GaussianProcess`.
        ascents: How many of them to improve.
        outliers: See `GaussianProcess`.
        folds: See `GaussianProcess`.
        seed: Seed of the draws.
    """

    scale = Logarithm

    def __init__(
        self,
        encoding: Encoding,
        draws: int = 128,
        ascents: int = 2,
        outliers: float | None = 2.0,
        folds: int = 5,
        seed: int = 0,
    ) -> None:
        super().__init__(encoding, draws, ascents, seed)
        self.outliers, self.folds = outliers, folds
        self._devices = SourceDevices(encoding, seed)

    def _twin(self) -> "LatencyGaussianProcess":
        return LatencyGaussianProcess(self.encoding, self.draws, self.ascents, self.outliers, self.folds, self.seed)

    def _between(self, parts: list[Features]) -> Kernels:
        return Kernels(parts, lengths=(1.5,), common_lengths=(1.0,), single_lengths=())

    def _fit_sources(self, space: GeneSpace, sources: Sequence[SourceSamples]) -> None:
        self._devices.fit(at_home(self, space, sources))

    def _rising(self, parts: list[Features]) -> Features | None:
        costs = [features for part, features in zip(self.encoding.parts, parts, strict=False) if part.rising]
        if self._devices.names:
            mean = parts[-1].mean(axis=1, keepdims=True)
            costs += [mean] * max(1, sum(part.shape[1] for part in costs))
        return np.concatenate(costs, axis=1) if costs else None

    def _source_parts(self, archs: ArchBatch) -> list[Features]:
        return [self._devices.predict(archs)] if self._devices.names else []

    def _source_state(self) -> tuple[Arrays, list[Any]]:
        return self._devices.state()

    def _restore_sources(self, space: GeneSpace, arrays: Arrays, facts: Sequence[Any]) -> None:
        self._devices.restore(space, arrays, facts)
