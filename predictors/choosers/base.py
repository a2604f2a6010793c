"""The interface of choosers: which architectures to measure."""

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from searchspaces.arch import ArchBatch
from searchspaces.errors import PredictorError

Places = NDArray[np.int64]


class Chooser(ABC):
    """Picks, among candidates that nothing was measured of, those to measure.

    A subclass implements `_choose`; `choose` has then checked the arguments.
    """

    def choose(self, candidates: ArchBatch, n: int, rng: np.random.Generator) -> Places:
        """Return the places `(n,)` of `n` candidates, each of another canonical class.

        Args:
            candidates: Architectures; of one class the first counts.
            n: How many to pick.
            rng: Source of all that is random.

        Raises:
            PredictorError: If there are fewer classes than that, or the chooser cannot tell them apart.
        """
        first: dict[bytes, int] = {}
        for i, key in enumerate(candidates.keys()):
            first.setdefault(key, i)
        if not 1 <= n <= len(first):
            raise PredictorError(
                f"{type(self).__name__} was asked for {n} of {len(first)} different architectures. Ask for at least "
                "one and at most all of them."
            )
        places = np.array(list(first.values()), dtype=np.int64)
        return places[self._choose(candidates[places], n, rng)]

    @abstractmethod
    def _choose(self, candidates: ArchBatch, n: int, rng: np.random.Generator) -> Places:
        """Return `n` distinct places among candidates of different classes."""


class Random(Chooser):
    """Any `n`, each with the same probability."""

    def _choose(self, candidates: ArchBatch, n: int, rng: np.random.Generator) -> Places:
        return rng.permutation(len(candidates))[:n]
