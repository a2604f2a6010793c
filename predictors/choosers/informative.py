"""The design that tells most, under a Gaussian process' prior."""

import numpy as np

from predictors.choosers.base import Places
from predictors.choosers.encoded import EncodedChooser
from predictors.encodings import Encoding
from predictors.similarity import similarity
from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError

CRITERIA = ("mutual_information", "variance")


class MostInformative(EncodedChooser):
    """The candidates whose measurements tell most, picked one after the other.

    The prior is a Gaussian process with a linear and a squared-exponential kernel on the encoding.

    Args:
        encoding: What architectures are described by.
        criterion: `mutual_information` picks what gains most of it between what is measured and what is not (Krause,
            Singh and Guestrin, JMLR 9, 2008); `variance` what is least certain, which maximises the determinant of
            the measurements' covariance and goes for the margins of the space.
        noise: Variance of a measurement's noise; that of the prior is about 2.
        pool: So many random candidates are compared.

    Raises:
        ConfigError: If there is no such criterion, or the noise is not positive.
    """

    def __init__(
        self, encoding: Encoding, criterion: str = "mutual_information", noise: float = 0.1, pool: int = 1000
    ) -> None:
        super().__init__(encoding)
        if criterion not in CRITERIA or noise <= 0:
            raise ConfigError(
                f"A design by information has a criterion of {', '.join(CRITERIA)} and a positive noise, but got "
                f"{criterion!r} and {noise}."
            )
        self.criterion = criterion
        self.noise = noise
        self.pool = pool

    def _choose(self, candidates: ArchBatch, n: int, rng: np.random.Generator) -> Places:
        places = rng.permutation(len(candidates))[: max(self.pool, n)]
        vectors = self._vectors(candidates[places])
        covariance = similarity(vectors, vectors) + self.noise * np.eye(len(places))
        left = np.diag(covariance).copy()  # variances, given what was picked
        precision = np.linalg.inv(covariance) if self.criterion == "mutual_information" else None  # of the others
        rows = np.zeros((n, len(places)))  # of the Cholesky factor
        open_ = np.ones(len(places), dtype=np.bool_)
        picked = []
        for step in range(n):
            gain = left if precision is None else left * np.diag(precision)
            best = int(np.argmax(np.where(open_, gain, -np.inf)))
            picked.append(best)
            open_[best] = False
            rows[step] = (covariance[best] - rows[:step, best] @ rows[:step]) / np.sqrt(left[best])
            left = np.maximum(left - rows[step] ** 2, 1e-12)
            if precision is not None:
                precision = precision - np.outer(precision[best], precision[best]) / max(precision[best, best], 1e-12)
        return places[picked]
