"""Random search."""

import numpy as np

from nasflow.study.log import Log
from searchspaces.genes import Rows


class Random:
    """Draws architectures as the space samples them, whatever the log says: the baseline of every comparison."""

    def propose(self, log: Log, k: int, rng: np.random.Generator) -> tuple[Rows, float | None]:
        """Return `k` samples of the space."""
        return log.space.sample(k, rng), None
