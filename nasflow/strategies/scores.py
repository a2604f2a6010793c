"""Scores of untrained architectures that strategies rank candidates by."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nasflow.evaluators import Context, Proxies
from proxies import Proxy, vote
from proxies.engine import SHIPPED
from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError, NetworkError, TableError, unknown
from searchspaces.space import SearchSpace
from searchspaces.table import Table
from searchspaces.task import Task

logger = logging.getLogger(__name__)

# Scores `(n,)` of n architectures, larger for better ones, NaN for what cannot be scored. They depend on canonical
# classes alone, and compare within one call.
Score = Callable[[ArchBatch], NDArray[np.float64]]

_MANY = 500  # architectures to score from which on the log tells how far it is


class ProxyScore:
    """Scores architectures by zero-cost proxies: one proxy's value, or the vote of several.

    Each canonical class is scored once, as the class's representative.

    Args:
        space: The search space.
        task: The task; its training images make the minibatch.
        proxies: Proxies, or names of shipped ones.
        batch_size: Images in the minibatch.
        seed: Seed of the minibatch and of the networks' weights.

    Raises:
        ConfigError: If no proxy is named, one is unknown, or the minibatch is too small.
    """

    def __init__(
        self, space: SearchSpace, task: Task, proxies: Sequence[str | Proxy], batch_size: int = 64, seed: int = 0
    ) -> None:
        if not proxies:
            raise ConfigError("A score by proxies needs at least one of them, for instance proxies=[synflow].")
        for proxy in proxies:
            if isinstance(proxy, str) and proxy not in SHIPPED:
                raise ConfigError(unknown("proxy", proxy, SHIPPED))
        chosen = [SHIPPED[proxy]() if isinstance(proxy, str) else proxy for proxy in proxies]
        self._signs = np.array([1.0 if proxy.direction == "maximize" else -1.0 for proxy in chosen])
        self._evaluator = Proxies(space, task, chosen, batch_size, seed)
        self._known: dict[bytes, NDArray[np.float64]] = {}

    def __call__(self, archs: ArchBatch) -> NDArray[np.float64]:
        """Return scores `(n,)`; NaN where the proxies are not defined."""
        keys = archs.keys()
        todo = {key: i for i, key in enumerate(keys) if key not in self._known}
        for done, (key, i) in enumerate(todo.items()):
            if len(todo) >= _MANY and done % (len(todo) // 5) == 0:
                names = ", ".join(self._evaluator.provides)
                logger.info("Scoring architectures by %s: %d of %d done.", names, done, len(todo))
            self._known[key] = self._score(archs[i].canonical())
        return vote(np.array([self._known[key] for key in keys]).reshape(len(keys), len(self._signs)))

    def _score(self, arch: ArchBatch) -> NDArray[np.float64]:
        try:
            columns = self._evaluator.evaluate(arch, Context(seeds=[0])).columns
        except NetworkError as error:
            logger.debug("%s", error)
            return np.full(len(self._signs), np.nan)
        values = np.concatenate([columns[name] for name in self._evaluator.provides])
        return np.asarray(self._signs * values, dtype=np.float64)


class ColumnScore:
    """Scores architectures by columns of a table: one column's figures, or the vote of several.

    An architecture that the table lacks has the figure of the first one of its canonical class.

    Args:
        table: The table.
        columns: For each column whether larger or smaller figures are better.

    Raises:
        ConfigError: If no column is named, or a direction is unknown.
        TableError: If the table lacks a column.
    """

    def __init__(self, table: Table, columns: Mapping[str, Literal["maximize", "minimize"]]) -> None:
        for name, direction in columns.items():
            if direction not in ("maximize", "minimize"):
                raise ConfigError(f"Column {name!r} of a score is to maximize or to minimize, not {direction!r}.")
        if not columns:
            raise ConfigError("A score by columns of a table needs at least one of them, such as params: maximize.")
        signed = [table.column(name) * (1 if way == "maximize" else -1) for name, way in columns.items()]
        self._figures = np.stack(signed, axis=1)
        self._table = table
        self._place: dict[bytes, int] = {}
        for i, key in enumerate(table.archs.keys()):
            self._place.setdefault(key, i)

    def __call__(self, archs: ArchBatch) -> NDArray[np.float64]:
        """Return scores `(n,)`; NaN where the table has no figure.

        Raises:
            TableError: If the table knows nothing of an architecture's class, or is of another space.
        """
        self._table.check_space(archs.space)
        places = [self._place.get(key, -1) for key in archs.space.keys(archs.rows)]
        if -1 in places:
            raise TableError(
                f"The table of scores holds no architecture of the class of {archs[places.index(-1)].format()[0]}, nor "
                f"of {places.count(-1) - 1} others of {len(archs)}: search in the table's pool, or take a complete "
                "table."
            )
        return vote(self._figures[np.array(places, dtype=np.int64)])
