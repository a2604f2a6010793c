"""How well zero-cost proxies rank the networks of tables of known results."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nasflow.evaluators import Proxies, TableLookup
from nasflow.statistics import kendall_tau, spearman
from nasflow.suites.base import Cell, Row, present
from nasflow.tabulation import Tabulation
from proxies import VOTERS, vote
from proxies.engine import SHIPPED
from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError
from searchspaces.files import located
from searchspaces.space import SearchSpace
from searchspaces.table import Table
from searchspaces.task import Task

_VOTE = "vote"


@dataclass(frozen=True)
class Ranked:
    """A table of known results whose networks are scored.

    Attributes:
        space: The table's space.
        task: Gives the images of the minibatch, and shapes the networks.
        table: Path of the table.
        column: Its column that networks are ranked by; larger is better.
        published: Spearman correlations by proxy, and their `source`.
    """

    space: SearchSpace
    task: Task
    table: str
    column: str
    published: Mapping[str, Any] | None = None

    @property
    def missing(self) -> list[str]:
        """The tables that are not there."""
        return [] if located(self.table).is_file() else [self.table]

    @cached_property
    def lookup(self) -> TableLookup:
        """The table with its column."""
        return TableLookup(self.space, self.table, {self.column: self.column})

    @property
    def known(self) -> Table:
        """The table."""
        return self.lookup.table


class ProxyCorrelation:
    """Scores random networks of each table by all proxies, and correlates the scores with what is known.

    Each seed draws other networks, initial weights and images. Scores stand in a log, so that a stopped suite goes on
    with the next network. Correlations count scores as larger is better, so that a proxy that ranks backwards is
    below 0.

    Args:
        tasks: Tables by name. One that is missing is left out, with a line that says so.
        folder: Where the logs go.
        samples: Numbers of networks.
        seeds: Seeds per cell.
        batch_size: Images in the minibatch.

    Raises:
        ConfigError: If no table is there.
    """

    name = "proxy_correlation"
    version = 1

    def __init__(
        self,
        tasks: Mapping[str, Ranked],
        folder: str,
        samples: Sequence[int] = (100,),
        seeds: int = 3,
        batch_size: int = 64,
    ) -> None:
        self._ranked = present(tasks)
        self.folder = Path(folder)
        self.tasks = tuple(self._ranked)
        self.methods = (*SHIPPED, _VOTE)
        self.samples = tuple(samples)
        self.seeds = seeds
        self.batch_size = batch_size
        self._tables: dict[tuple[str, int, int], Table] = {}
        self.published = tuple(
            Row(name, proxy, 0, "spearman", float(value), None, (), None, task.published["source"])
            for name, task in self._ranked.items()
            if task.published
            for proxy, value in task.published["spearman"].items()
        )

    def settings(self) -> Mapping[str, Any]:
        """What decides the scores, but for seed and number of networks."""
        return {
            "batch_size": self.batch_size,
            "torch": torch.__version__,
            "tasks": {
                name: [task.space.fingerprint, repr(task.task), task.lookup.content, task.column]
                for name, task in self._ranked.items()
            },
        }

    def run(self, cell: Cell) -> Mapping[str, float]:
        """Return Spearman's and Kendall's correlation with the ends of their 95 % intervals."""
        key = cell.task, cell.samples, cell.seed
        if key not in self._tables:
            self._tables = {key: self._score(*key)}
        table = self._tables[key]
        scores = np.stack([_better(table, name) for name in (VOTERS if cell.method == _VOTE else (cell.method,))], 1)
        task = self._ranked[cell.task]
        truth = task.known.lookup(table.archs, task.column)
        known = ~np.isnan(scores).any(axis=1)
        ranked = vote(scores[known])
        found: dict[str, float] = {"networks": float(known.sum())}
        for measure in (spearman, kendall_tau):
            value = measure(ranked, truth[known])
            name = measure.__name__
            found |= {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}
        return found

    def _score(self, name: str, n: int, seed: int) -> Table:
        task = self._ranked[name]
        known = np.flatnonzero(~np.isnan(task.known.column(task.column)))
        if n > len(known):
            raise ConfigError(f"The table of task {name} knows {len(known)} networks, but samples has {n}.")
        chosen = np.random.default_rng(seed).permutation(known)[:n]
        archs = ArchBatch(task.space, task.known.archs.rows[chosen])

        def parts() -> tuple[SearchSpace, list[Any]]:
            return task.space, [Proxies(task.space, task.task, list(SHIPPED), self.batch_size, seed)]

        log = self.folder / f"{name}_seed{seed}.jsonl"
        tabulation = Tabulation(log, parts, {"task": name, "seed": seed, **self.settings()})
        tabulation.run(archs, [seed], workers=1)
        return tabulation.table(archs, [seed], {})


def _better(table: Table, proxy: str) -> NDArray[np.float64]:
    """Return scores of which the larger is better."""
    sign = 1.0 if SHIPPED[proxy].direction == "maximize" else -1.0
    return sign * table.column(proxy)
