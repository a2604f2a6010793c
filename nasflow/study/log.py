"""What strategies see of a study: finished trials as arrays, in slot order."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from searchspaces.genes import GeneSpace, Rows


@dataclass(frozen=True)
class Log:
    """The finished trials of a study, ordered by slot, and what is under way.

    The arrays that a study gives are read-only.

    Attributes:
        space: The space that `rows` belong to.
        slots: Slot numbers, shape `(n,)`, increasing.
        rows: Architectures, shape `(n, genes)`.
        losses: Objectives as values to minimise, shape `(n, objectives)`; `inf` for failed or ruled-out trials.
        violation: Sum of the relative violations of all bounds, shape `(n,)`; 0 is feasible, failed trials have `inf`.
        fidelity: Fidelity of each trial (epochs, for instance), shape `(n,)`; `nan` stands for the full one.
        pending: Architectures that workers are evaluating, shape `(m, genes)`.
    """

    space: GeneSpace
    slots: NDArray[np.int64]
    rows: Rows
    losses: NDArray[np.float64]
    violation: NDArray[np.float64]
    fidelity: NDArray[np.float64]
    pending: Rows

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def succeeded(self) -> NDArray[np.bool_]:
        """Trials with finite objectives, shape `(n,)`."""
        return np.asarray(np.isfinite(self.losses).all(axis=1))
