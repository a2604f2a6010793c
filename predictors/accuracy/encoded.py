"""What predictors on vectors share: encoding, the target's scale, figures of other tasks, and saving."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from predictors.base import Arrays, Prediction, Predictor, SourceError, SourceSamples
from predictors.encodings import Encoding, Features
from predictors.normalisation import NormalScores, Scale
from searchspaces.arch import ArchBatch
from searchspaces.genes import GeneSpace

Vector = NDArray[np.float64]


class EncodedPredictor(Predictor):
    """A predictor on vectors of fixed width, which learns the target on another scale.

    By default that is the normal scores of the target's ranks: accuracies crowd at the upper end and have a long tail
    of failures at the lower; their ranks have neither. Predictions are brought back to the target's unit.

    Sources must be of the target's own space, at any scale: a model of the same kind is fitted to each, and what it
    predicts is one more part of the encoding. What is saved are the samples and what could not be found again quickly;
    the rest is fitted again on loading.

    Args:
        encoding: What architectures are described by.
        seed: Seed of all that is random.

    Attributes:
        scale: The scale, made from the samples' figures.
    """

    scale: ClassVar[type[Scale]] = NormalScores

    def __init__(self, encoding: Encoding, seed: int = 0) -> None:
        self.encoding = encoding
        self.seed = seed

    @abstractmethod
    def _learn(self, parts: list[Features], target: Vector, learned: Mapping[str, Any] | None) -> dict[str, Any]:
        """Fit to the parts of the encoding `(n, d_i)` and standardised targets `(n,)`.

        Args:
            parts: At least one.
            target: The figures on the scale.
            learned: What this returned before, when a saved predictor is loaded.

        Returns:
            What is to be kept for a quick repetition, such as JSON can hold.
        """

    @abstractmethod
    def _expect(self, parts: list[Features]) -> tuple[Vector, Vector]:
        """Return mean and standard deviation `(k,)` of the standardised target."""

    def _fit(self, archs: ArchBatch, y: Vector, sources: Sequence[SourceSamples]) -> None:
        self._samples = archs, y
        self._begin(None)

    def _fit_sources(self, space: GeneSpace, sources: Sequence[SourceSamples]) -> None:
        self._sources = [self._twin() for _ in sources]
        for model, source in zip(self._sources, at_home(self, space, sources), strict=True):
            model.fit(source.archs, source.y)

    @abstractmethod
    def _twin(self) -> "EncodedPredictor":
        """Return an unfitted predictor with the same arguments."""

    def _begin(self, learned: Mapping[str, Any] | None) -> None:
        archs, y = self._samples
        self._scaled = self.scale(y)
        self._learned = self._learn(self._parts(archs), self._scaled(y), learned)

    def _parts(self, archs: ArchBatch) -> list[Features]:
        return [part.encode(archs) for part in self.encoding.parts] + self._source_parts(archs)

    def _source_parts(self, archs: ArchBatch) -> list[Features]:
        """Return what the sources tell of architectures, as further parts of the encoding."""
        return [model._standard(archs)[0][:, None] for model in self._sources]

    def _standard(self, archs: ArchBatch) -> tuple[Vector, Vector]:
        return self._expect(self._parts(archs))

    def _predict(self, archs: ArchBatch) -> Prediction:
        return Prediction(*self._scaled.restored(*self._standard(archs)))

    def _state(self) -> tuple[Arrays, dict[str, Any]]:
        archs, y = self._samples
        arrays, sources = self._source_state()
        return arrays | {"rows": archs.rows, "y": y}, {"learned": self._learned, "sources": sources}

    def _source_state(self) -> tuple[Arrays, list[Any]]:
        """Return what was learned from the sources; names of arrays begin with `source`."""
        arrays: Arrays = {}
        facts = []
        for i, model in enumerate(self._sources):
            more, of_source = model._state()
            arrays |= {f"source{i}.{name}": array for name, array in more.items()}
            facts.append(of_source)
        return arrays, facts

    def _restore(self, space: GeneSpace, arrays: Arrays, facts: Mapping[str, Any]) -> None:
        self._known = None  # other sources than those of the last fit may be the ones that come now
        self._restore_sources(space, arrays, facts["sources"])
        self._samples = ArchBatch(space, arrays["rows"]), arrays["y"]
        self._begin(facts["learned"])

    def _restore_sources(self, space: GeneSpace, arrays: Arrays, facts: Sequence[Any]) -> None:
        """Take up what `_source_state` returned."""
        self._sources = []
        for i, of_source in enumerate(facts):
            prefix = f"source{i}."
            model = self._twin()
            own = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
            model._restore(space, own, of_source)
            model.space = space
            self._sources.append(model)


def at_home(predictor: Predictor, own: GeneSpace, sources: Sequence[SourceSamples]) -> list[SourceSamples]:
    """Return sources as ones of the target's own space; their scale may be another one.

    Raises:
        SourceError: If one is of another space.
    """
    for source in sources:
        other = source.archs.space
        if (own.name, own.genes) != (other.name, other.genes):
            raise SourceError(
                f"{type(predictor).__name__} learns from sources of its own space only, but {source.name!r} is of "
                f"{other.fingerprint} and the samples of {own.fingerprint}. Leave it out, or take a predictor on "
                "graphs, such as predictor=flan."
            )
    return [SourceSamples(ArchBatch(own, source.archs.rows), source.y, source.name) for source in sources]
