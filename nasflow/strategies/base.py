"""The interface of search strategies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from searchspaces.errors import ConfigError
from searchspaces.genes import Rows

if TYPE_CHECKING:  # the runner of studies imports this module
    from nasflow.study.log import Log


@runtime_checkable
class Strategy(Protocol):
    """A function of the log: proposes what to evaluate next.

    Any state is a cache that can be rebuilt from the log, so that any worker can ask at any time and a resumed
    run proposes what an uninterrupted one would have.
    """

    def propose(self, log: Log, k: int, rng: np.random.Generator) -> tuple[Rows, float | None]:
        """Return up to `k` architectures `(k, genes)` and the fidelity to evaluate them at (None: the full one).

        An empty array says that there is nothing left to propose.
        """
        ...


def judged(log: Log) -> NDArray[np.int64]:
    """Return the positions of the trials that selection can compare, shape `(m,)`, in slot order.

    Failed trials are left out. Trials that missed a bound before their objectives were known count: by how much they
    missed it guides a search that has nothing feasible yet.
    """
    ruled_out = (log.violation > 0) & (log.violation < np.inf)
    return np.flatnonzero(ruled_out | (log.succeeded & (log.violation <= 0)))


def at_least(name: str, value: int, smallest: int) -> int:
    """Return `value` as an integer.

    Raises:
        ConfigError: If it is no integer or below `smallest`.
    """
    if int(value) != value or value < smallest:
        raise ConfigError(f"strategy.{name} is an integer of at least {smallest}, but is {value!r}.")
    return int(value)


def probability(name: str, value: float) -> float:
    """Return `value`.

    Raises:
        ConfigError: If it is not within 0 and 1.
    """
    if not 0 <= value <= 1:
        raise ConfigError(f"strategy.{name} is a probability between 0 and 1, but is {value!r}.")
    return float(value)
