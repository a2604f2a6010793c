"""Models of devices on which many architectures were measured."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from predictors.base import Arrays, SourceSamples
from predictors.encodings import Encoding, Features
from predictors.gp import MOST_SAMPLES, on_one_thread
from predictors.normalisation import Logarithm
from predictors.similarity import side_by_side, similarity
from searchspaces.arch import ArchBatch
from searchspaces.genes import GeneSpace

logger = logging.getLogger(__name__)

_NOISES = 10.0 ** np.arange(-4, 1.01, 0.5)
_BLOCK = 2048  # architectures predicted at a time


@dataclass(frozen=True)
class _Group:
    """Devices on which the same architectures were measured."""

    devices: list[int]
    features: Features
    weights: Features
    level: Features
    spread: Features


class SourceDevices:
    """Predicts logarithms of latencies on source devices.

    Each device has a Gaussian process of its own on a linear and a squared-exponential kernel over all parts of an
    encoding, each part with the same weight; the share of noise is that of the largest marginal likelihood. Devices on
    which the same architectures were measured share the decomposition of the kernel matrix, so that ten of them take
    hardly longer than one. Of more than 1,000 architectures a random 1,000 are used.

    Args:
        encoding: What architectures are described by.
        seed: Seed of that choice.
    """

    def __init__(self, encoding: Encoding, seed: int = 0) -> None:
        self.encoding = encoding
        self.seed = seed
        self.names: list[str] = []
        self._groups: list[_Group] = []
        self._samples: list[SourceSamples] = []
        self._last: tuple[ArchBatch, Features] | None = None

    @on_one_thread
    def fit(self, sources: Sequence[SourceSamples]) -> "SourceDevices":
        """Learn from sources of one space, and forget others.

        Raises:
            PredictorError: If a latency is not positive.
        """
        self._last = None
        together: dict[bytes, list[int]] = {}
        for i, source in enumerate(sources):
            together.setdefault(source.archs.rows.tobytes(), []).append(i)
        self._groups = [self._fitted(devices, [sources[i] for i in devices]) for devices in together.values()]
        self.names = [source.name for source in sources]
        self._samples = list(sources)
        return self

    def _fitted(self, devices: list[int], sources: Sequence[SourceSamples]) -> _Group:
        archs = sources[0].archs
        figures = np.stack([Logarithm(source.y)(source.y) for source in sources], axis=1)
        if len(archs) > MOST_SAMPLES:
            logger.warning("A model of a device takes a random %d of the %d samples.", MOST_SAMPLES, len(archs))
            kept = np.random.default_rng(self.seed).permutation(len(archs))[:MOST_SAMPLES]
            archs, figures = archs[kept], figures[kept]
        level, spread = figures.mean(axis=0), figures.std(axis=0)
        features = side_by_side(self.encoding, archs)
        values, vectors = eigh(similarity(features, features))
        turned = vectors.T @ ((figures - level) / spread)
        weights = np.empty_like(turned)
        for device, target in enumerate(turned.T):
            totals = np.maximum(values, 0)[:, None] + _NOISES
            amplitude = (target[:, None] ** 2 / totals).mean(axis=0)
            evidence = -len(target) * np.log(amplitude) - np.log(totals).sum(axis=0)
            weights[:, device] = target / totals[:, np.argmax(evidence)]
        return _Group(devices, features, vectors @ weights, level, spread)

    @on_one_thread
    def predict(self, archs: ArchBatch) -> Features:
        """Return logarithms of latencies on each device, less their mean and divided by their deviation there.

        Mean and deviation are those over the device's own samples. Shape `(n, devices)`.
        """
        if self._last is not None and self._last[0] is archs:
            return self._last[1]
        out = np.empty((len(archs), len(self.names)))
        features = side_by_side(self.encoding, archs)
        for group in self._groups:
            for start in range(0, len(archs), _BLOCK):
                block = slice(start, start + _BLOCK)
                out[block, group.devices] = similarity(features[block], group.features) @ group.weights
        self._last = archs, out
        return out

    def milliseconds(self, archs: ArchBatch) -> Features:
        """Return latencies on each device, shape `(n, devices)`: measured ones where known, else predicted."""
        out = self.predict(archs).copy()
        for group in self._groups:
            out[:, group.devices] = np.exp(group.level + group.spread * out[:, group.devices])
        keys = archs.keys()
        for device, source in enumerate(self._samples):
            known = dict(zip(source.archs.keys(), source.y, strict=True))
            out[:, device] = [known.get(key, value) for key, value in zip(keys, out[:, device], strict=True)]
        return out

    def state(self) -> tuple[Arrays, list[Any]]:
        """Return samples, by whose names arrays begin with `source`, and what else `restore` needs."""
        arrays: Arrays = {}
        for i, source in enumerate(self._samples):
            arrays |= {f"source{i}.rows": source.archs.rows, f"source{i}.y": source.y}
        return arrays, list(self.names)

    def restore(self, space: GeneSpace, arrays: Arrays, facts: Sequence[Any]) -> "SourceDevices":
        """Learn from the samples again."""
        stored: Mapping[str, NDArray[Any]] = arrays
        return self.fit(
            [
                SourceSamples(ArchBatch(space, stored[f"source{i}.rows"]), stored[f"source{i}.y"], str(name))
                for i, name in enumerate(facts)
            ]
        )
