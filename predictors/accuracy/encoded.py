"""What predictors on vectors share: encoding, the target's scale, figures of other tasks, and saving."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predictors.base import Arrays, Prediction, Predictor, SourceError, SourceSamples
from predictors.encodings import Encoding, Features
from predictors.normalisation import NormalScores
from searchspaces.arch import ArchBatch
from searchspaces.genes import GeneSpace

Vector = NDArray[np.float64]


class EncodedPredictor(Predictor):
    """A predictor on vectors of fixed width, which learns the normal scores of the target's ranks.

    Accuracies crowd at the upper end and have a long tail of failures at the lower; their ranks have neither.
    Predictions are brought back to the target's unit.

    Sources must be of the target's own space, at any scale: a model of the same kind is fitted to each, and what it
    predicts is one more part of the encoding. What is saved are the samples and what could not be found again quickly;
    the rest is fitted again on loading.

    Args:
        encoding: What architectures are described by.
        seed: Seed of all that is random.
    """

    def __init__(self, encoding: Encoding, seed: int = 0) -> None:
        self.encoding = encoding
        self.seed = seed

    @abstractmethod
    def _learn(self, parts: list[Features], target: Vector, learned: Mapping[str, Any] | None) -> dict[str, Any]:
        """Fit to the parts of the encoding `(n, d_i)` and standardised targets `(n,)`.

        Args:
            parts: At least one.
            target: Normal scores.
            learned: What this returned before, when a saved predictor is loaded.

        Returns:
            What is to be kept for a quick repetition, such as JSON can hold.
        """

    @abstractmethod
    def _expect(self, parts: list[Features]) -> tuple[Vector, Vector]:
        """Return mean and standard deviation `(k,)` of the standardised target."""

    def _fit(self, archs: ArchBatch, y: Vector, sources: Sequence[SourceSamples]) -> None:
        self._sources = []
        for source in sources:
            own, other = archs.space, source.archs.space
            if (own.name, own.genes) != (other.name, other.genes):
                raise SourceError(
                    f"{type(self).__name__} learns from sources of its own space only, but {source.name!r} is of "
                    f"{other.fingerprint} and the samples of {own.fingerprint}. Leave it out, or take a predictor on "
                    "graphs, such as predictor=flan."
                )
            model = self._twin()
            model.fit(ArchBatch(own, source.archs.rows), source.y)  # the scale may be another one
            self._sources.append(model)
        self._samples = archs, y
        self._begin(None)

    @abstractmethod
    def _twin(self) -> "EncodedPredictor":
        """Return an unfitted predictor with the same arguments."""

    def _begin(self, learned: Mapping[str, Any] | None) -> None:
        archs, y = self._samples
        self._scores = NormalScores(y)
        self._learned = self._learn(self._parts(archs), self._scores(y), learned)

    def _parts(self, archs: ArchBatch) -> list[Features]:
        parts = [part.encode(archs) for part in self.encoding.parts]
        return parts + [model._standard(archs)[0][:, None] for model in self._sources]

    def _standard(self, archs: ArchBatch) -> tuple[Vector, Vector]:
        return self._expect(self._parts(archs))

    def _predict(self, archs: ArchBatch) -> Prediction:
        mean, std = self._standard(archs)
        low, high = self._scores.inverse(mean - std), self._scores.inverse(mean + std)
        return Prediction(self._scores.inverse(mean), (high - low) / 2)

    def _state(self) -> tuple[Arrays, dict[str, Any]]:
        archs, y = self._samples
        arrays: Arrays = {"rows": archs.rows, "y": y}
        facts: dict[str, Any] = {"learned": self._learned, "sources": []}
        for i, model in enumerate(self._sources):
            more, of_source = model._state()
            arrays |= {f"source{i}.{name}": array for name, array in more.items()}
            facts["sources"].append(of_source)
        return arrays, facts

    def _restore(self, space: GeneSpace, arrays: Arrays, facts: Mapping[str, Any]) -> None:
        self._sources = []
        for i, of_source in enumerate(facts["sources"]):
            prefix = f"source{i}."
            model = self._twin()
            own = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
            model._restore(space, own, of_source)
            model.space = space
            self._sources.append(model)
        self._samples = ArchBatch(space, arrays["rows"]), arrays["y"]
        self._begin(facts["learned"])
