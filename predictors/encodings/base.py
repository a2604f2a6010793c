"""The interface of encodings: architectures as vectors."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError
from searchspaces.genes import Rows
from searchspaces.pool import Pool
from searchspaces.space import SearchSpace

Features = NDArray[np.float64]

_LARGE = 500  # architectures from which on a batch is remembered: a search scores the same candidates again and again


class Encoding(ABC):
    """Turns architectures into vectors that predictors take.

    An encoding is comparable across architectures: what it gives for one does not depend on the batch in which that one
    stands, its figures are finite, and they are of the order of 1 over the space. Each says by which normalisation.
    Rows of one canonical class have one vector, unless the encoding says otherwise.

    Attributes:
        rising: Whether every entry is a cost, with which latencies mostly rise.
    """

    rising = False

    @abstractmethod
    def columns(self, space: SearchSpace) -> list[str]:
        """Return the names of the vectors' entries.

        Raises:
            ConfigError: If the encoding is not defined for architectures of `space`.
        """

    @abstractmethod
    def encode(self, archs: ArchBatch) -> Features:
        """Return the vectors `(n, len(columns))` of `archs`.

        Raises:
            ConfigError: If the encoding is not defined for their space.
            TableError: If it comes from a table that lacks one of them.
        """

    @property
    def parts(self) -> "tuple[Encoding, ...]":
        """The encodings that this one is made of; kernels give each a weight of its own."""
        return (self,)

    def __add__(self, other: "Encoding") -> "Concatenation":
        return Concatenation([*self.parts, *other.parts])


class Concatenation(Encoding):
    """Encodings side by side.

    Args:
        encodings: At least one; names, where there are any, only serve to address them in a configuration.

    Raises:
        ConfigError: If there is none.
    """

    def __init__(self, encodings: Sequence[Encoding] | Mapping[str, Encoding]) -> None:
        if not encodings:
            raise ConfigError("A concatenation needs at least one encoding.")
        self.encodings = tuple(encodings.values() if isinstance(encodings, Mapping) else encodings)

    def columns(self, space: SearchSpace) -> list[str]:
        """Return the names of all encodings' entries, in their order."""
        return [name for encoding in self.parts for name in encoding.columns(space)]

    def encode(self, archs: ArchBatch) -> Features:
        """Return the vectors of all encodings, side by side."""
        return np.concatenate([encoding.encode(archs) for encoding in self.parts], axis=1)

    @cached_property
    def _parts(self) -> tuple[Encoding, ...]:
        return tuple(part for encoding in self.encodings for part in encoding.parts)

    @property
    def parts(self) -> tuple[Encoding, ...]:
        """The encodings, concatenations among them taken apart."""
        return self._parts


class Standardised(Encoding):
    """Figures of architectures less their mean over the space, divided by their standard deviation there.

    Mean and deviation are those of a fixed random sample of the space; a figure that does not vary in it stays zero. A
    subclass implements `_names` and `_figures`, which get canonical rows.
    """

    sample = 2000

    def __init__(self) -> None:
        self._scales: dict[str, tuple[Features, Features]] = {}
        self._last: tuple[ArchBatch, Features] | None = None

    def columns(self, space: SearchSpace) -> list[str]:
        """Return the names of the figures."""
        return self._names(space)

    def encode(self, archs: ArchBatch) -> Features:
        """Return the standardised figures `(n, columns)`; of a large batch read-only, for they are remembered."""
        space = search_space(archs)
        if self._last is not None and self._last[0] is archs:
            return self._last[1]
        mean, deviation = self._scale(space)
        features = (self._figures(space, space.canonical(archs.rows)) - mean) / deviation
        if len(archs) >= _LARGE:
            features.setflags(write=False)
            self._last = archs, features
        return features

    @abstractmethod
    def _names(self, space: SearchSpace) -> list[str]: ...

    @abstractmethod
    def _figures(self, space: SearchSpace, rows: Rows) -> Features: ...

    def reference(self, space: SearchSpace) -> Rows:
        """Return the sample of the space `(sample, genes)`."""
        return space.sample(self.sample, np.random.default_rng(0))

    def _scale(self, space: SearchSpace) -> tuple[Features, Features]:
        if space.fingerprint not in self._scales:
            figures = self._figures(space, space.canonical(self.reference(space)))
            deviation = figures.std(axis=0)
            self._scales[space.fingerprint] = figures.mean(axis=0), np.where(deviation > 1e-12, deviation, np.inf)
        return self._scales[space.fingerprint]


def search_space(archs: ArchBatch) -> SearchSpace:
    """Return the space of `archs`; of a pool its base, whose canonical rows do not depend on what else the pool holds.

    Raises:
        ConfigError: If its rows are no networks.
    """
    if not isinstance(archs.space, SearchSpace):
        raise ConfigError(f"Only architectures of search spaces can be encoded, but {archs.space.name!r} is none.")
    return archs.space.base if isinstance(archs.space, Pool) else archs.space
