"""Choosers that spread the samples over what an encoding tells of architectures."""

import warnings

import numpy as np
from sklearn.cluster import KMeans as Clusters
from sklearn.exceptions import ConvergenceWarning

from predictors.choosers.base import Chooser, Places
from predictors.encodings import Encoding, Features
from predictors.encodings.base import search_space
from predictors.similarity import side_by_side
from searchspaces.arch import ArchBatch
from searchspaces.errors import PredictorError

_MOST = 4000  # candidates that are compared; of more, so many random ones


class EncodedChooser(Chooser):
    """A chooser that looks at vectors of architectures.

    Args:
        encoding: What architectures are described by.
    """

    def __init__(self, encoding: Encoding) -> None:
        self.encoding = encoding

    def _vectors(self, candidates: ArchBatch) -> Features:
        """Return the vectors `(n, d)`, each part of the encoding with the same weight.

        Raises:
            PredictorError: If they are all the same.
        """
        vectors = side_by_side(self.encoding, candidates)
        if len(vectors) > 1 and not np.ptp(vectors, axis=0).any():
            raise PredictorError(
                f"{type(self).__name__} cannot tell the {len(vectors)} candidates apart: all have the same vector. "
                "Take another encoding, or chooser=random."
            )
        return vectors


class Strata(EncodedChooser):
    """One random candidate of each of `n` equal strata of a cost, such as parameters (arXiv 2403.02446).

    Args:
        encoding: An encoding that has the cost.
        column: Its name.
    """

    def __init__(self, encoding: Encoding, column: str) -> None:
        super().__init__(encoding)
        self.column = column

    def _choose(self, candidates: ArchBatch, n: int, rng: np.random.Generator) -> Places:
        names = self.encoding.columns(search_space(candidates))
        if self.column not in names:
            raise PredictorError(
                f"Strata of {self.column!r} need an encoding with that column, but it has: {', '.join(names[:20])}. "
                "Name one of these."
            )
        cost = self.encoding.encode(candidates)[:, names.index(self.column)]
        if len(cost) > 1 and np.ptp(cost) == 0:
            raise PredictorError(f"All {len(cost)} candidates have the same {self.column}: take chooser=random.")
        shuffled = rng.permutation(len(cost))  # equal costs fall into strata by chance
        return _one_of_each(np.array_split(shuffled[np.argsort(cost[shuffled], kind="stable")], n), rng)


class KMeans(EncodedChooser):
    """One random candidate of each of `n` clusters of the vectors."""

    def _choose(self, candidates: ArchBatch, n: int, rng: np.random.Generator) -> Places:
        places = rng.permutation(len(candidates))[: max(_MOST, n)]
        clusters = Clusters(n, n_init=1, random_state=int(rng.integers(2**31)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # told below
            found = clusters.fit_predict(self._vectors(candidates)[places])
        sizes = np.bincount(found, minlength=n)
        if (sizes == 0).any():
            raise PredictorError(
                f"{len(candidates)} candidates have fewer than {n} different vectors, so they form {(sizes > 0).sum()} "
                "clusters only. Ask for fewer, or take an encoding that tells them apart."
            )
        return _one_of_each([places[found == cluster] for cluster in range(n)], rng)


class Cosine(EncodedChooser):
    """One random candidate of each of `n` strata of the mean cosine similarity to the others (arXiv 2403.02446)."""

    def _choose(self, candidates: ArchBatch, n: int, rng: np.random.Generator) -> Places:
        vectors = self._vectors(candidates)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not (lengths > 0).all():
            raise PredictorError(
                f"{int((lengths == 0).sum())} candidates have a vector of zeros, which has no direction. Take another "
                "encoding, or chooser=kmeans."
            )
        directions = vectors / lengths
        similarity = directions @ directions.mean(axis=0)
        return _one_of_each(np.array_split(np.argsort(similarity, kind="stable"), n), rng)


def _one_of_each(groups: list[Places], rng: np.random.Generator) -> Places:
    return np.array([group[rng.integers(len(group))] for group in groups], dtype=np.int64)
