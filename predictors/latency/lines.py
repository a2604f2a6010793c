"""Baselines: a line through the samples, over one figure that is known of every architecture."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata

from predictors.accuracy.encoded import EncodedPredictor, Vector, at_home
from predictors.base import Arrays, SourceSamples
from predictors.encodings import Encoding, Features
from predictors.encodings.base import search_space
from predictors.latency.sources import SourceDevices
from predictors.normalisation import Logarithm
from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError, PredictorError
from searchspaces.genes import GeneSpace

_LEAST_SLOPE = 1e-3  # where samples say that more costs less, the order is that of the costs all the same
_GUESS = 0.2  # deviation of the logarithm before any sample tells
_DOUBT = 4  # samples that this guess counts as


class LogLine(EncodedPredictor):
    """A rising line through logarithms of latencies, by least squares.

    Predicted are the median and the standard deviation of a log-normal distribution, in the unit of the samples.
    """

    scale = Logarithm

    @abstractmethod
    def _column(self, parts: list[Features], target: Vector | None) -> Vector:
        """Return the figure `(n,)` that the line is over; with the samples' targets, choose it."""

    def _learn(self, parts: list[Features], target: Vector, learned: Mapping[str, Any] | None) -> dict[str, Any]:
        x = self._column(parts, target)
        self._centre, self._level = float(x.mean()), float(target.mean())
        moved = x - self._centre
        self._squares = float(moved @ moved)
        self._slope = max(float(moved @ target) / max(self._squares, 1e-12), _LEAST_SLOPE)
        errors = target - self._level - self._slope * moved
        self._variance = (float(errors @ errors) + _DOUBT * _GUESS**2) / (len(target) - 2 + _DOUBT)
        self._count = len(target)
        return {}

    def _expect(self, parts: list[Features]) -> tuple[Vector, Vector]:
        moved = self._column(parts, None) - self._centre
        leverage = 1 + 1 / self._count + moved**2 / max(self._squares, 1e-12)
        return self._level + self._slope * moved, np.sqrt(self._variance * leverage)


class CostLine(LogLine):
    """The line over one figure of an encoding, such as the logarithm of the multiply-accumulate operations.

    Args:
        encoding: An encoding that has the figure.
        column: Its name.
        seed: Unused; all predictors on encodings have one.

    Raises:
        PredictorError: On fitting, if the encoding has no such column.
    """

    def __init__(self, encoding: Encoding, column: str, seed: int = 0) -> None:
        super().__init__(encoding, seed)
        self.column = column

    def _twin(self) -> "CostLine":
        return CostLine(self.encoding, self.column, self.seed)

    def _fit_sources(self, space: GeneSpace, sources: Sequence[SourceSamples]) -> None:
        self._sources = []  # one figure is all it looks at

    def _parts(self, archs: ArchBatch) -> list[Features]:
        names = self.encoding.columns(search_space(archs))
        if self.column not in names:
            raise ConfigError(f"The encoding has no column {self.column!r}. Take one of: {', '.join(names[:20])}.")
        return [self.encoding.encode(archs)[:, [names.index(self.column)]]]

    def _column(self, parts: list[Features], target: Vector | None) -> Vector:
        return parts[0][:, 0]


class SourceCopy(LogLine):
    """The line over the latency on that source device which ranks the samples most alike.

    A source's latency is the measured one where there is one, else what a model of the device predicts.

    Args:
        encoding: What architectures are described by, for the models of the source devices.
        seed: Seed of those models.

    Attributes:
        device: Name of the source device, after `fit`.

    Raises:
        PredictorError: On fitting, if there are no sources.
    """

    def __init__(self, encoding: Encoding, seed: int = 0) -> None:
        super().__init__(encoding, seed)
        self._devices = SourceDevices(encoding, seed)

    def _twin(self) -> "SourceCopy":
        return SourceCopy(self.encoding, self.seed)

    def _fit_sources(self, space: GeneSpace, sources: Sequence[SourceSamples]) -> None:
        if not sources:
            raise PredictorError(
                "A copy of the most similar source device needs sources: give figures of at least one other device, or "
                "take predictor=latency_gp."
            )
        self._devices.fit(at_home(self, space, sources))

    def _parts(self, archs: ArchBatch) -> list[Features]:
        return [np.log(self._devices.milliseconds(archs))]

    def _column(self, parts: list[Features], target: Vector | None) -> Vector:
        if target is not None:
            alike = [rank_correlation(column, target) for column in parts[0].T]
            self._chosen = int(np.argmax(alike))
            self.device = self._devices.names[self._chosen]
        return parts[0][:, self._chosen]

    def _source_state(self) -> tuple[Arrays, list[Any]]:
        return self._devices.state()

    def _restore_sources(self, space: GeneSpace, arrays: Arrays, facts: Sequence[Any]) -> None:
        self._devices.restore(space, arrays, facts)


def rank_correlation(a: Vector, b: Vector) -> float:
    """Spearman's coefficient; 0 where one side is constant."""
    ranks = np.stack([rankdata(a), rankdata(b)])
    return float(np.corrcoef(ranks)[0, 1]) if (np.ptp(ranks, axis=1) > 0).all() else 0.0
