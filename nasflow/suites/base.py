"""Evaluation suites: grids of task × method × samples × seed whose cells run, and are cached, one by one."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

from searchspaces.errors import ConfigError

logger = logging.getLogger(__name__)


class UnavailableError(ConfigError):
    """A method cannot run in this installation; the suite goes on without it."""


@dataclass(frozen=True)
class Cell:
    """One run of a suite.

    Attributes:
        task: What is measured on: a space, a device set, a benchmark.
        method: What is measured.
        samples: Size of the training set, where the suite varies one; 0 otherwise.
        seed: Seed of the run.
    """

    task: str
    method: str
    samples: int
    seed: int


@dataclass(frozen=True)
class Row:
    """One line of a suite's result.

    Attributes:
        task: As in `Cell`.
        method: As in `Cell`.
        samples: As in `Cell`.
        metric: What the figure is, with its unit.
        mean: Mean over seeds.
        std: Standard deviation over seeds (divisor n - 1); None for one seed or where a publication gives none.
        seeds: The seeds, empty for published rows.
        seconds: Mean wall time of a cell; None for published rows.
        source: `measured`, or the publication.
    """

    task: str
    method: str
    samples: int
    metric: str
    mean: float
    std: float | None
    seeds: Sequence[int]
    seconds: float | None
    source: str


@runtime_checkable
class Suite(Protocol):
    """A grid of cells and how to run one.

    Attributes:
        name: The suite's name.
        tasks: Tasks, in the order of the table.
        methods: Methods, in the order of the table.
        samples: Sizes of the training set; `(0,)` where there is none.
        seeds: Number of seeds per cell unless the command line says otherwise.
        version: Raised whenever results are no longer comparable, which empties the cache.
        published: Rows of publications to stand beside the measured ones.
    """

    name: str
    tasks: Sequence[str]
    methods: Sequence[str]
    samples: Sequence[int]
    seeds: int
    version: int
    published: Sequence[Row]

    def run(self, cell: Cell) -> Mapping[str, float]:
        """Run one cell and return its metrics.

        Raises:
            UnavailableError: If the cell's method lacks an optional package.
        """
        ...

    def settings(self) -> Mapping[str, Any]:
        """Return what else decides the results; part of the cache's key."""
        ...


@runtime_checkable
class Comparison(Suite, Protocol):
    """A suite that also tells what follows from several cells, and which settings decide a single one."""

    def cell_settings(self, cell: Cell) -> Mapping[str, Any]:
        """Return what decides a cell's result besides `settings`; so a new method leaves those of others cached."""
        ...

    def summary(self, results: Mapping[Cell, Mapping[str, float]]) -> Sequence[Row]:
        """Return rows that follow from the metrics of several cells, such as quartiles and tests over seeds."""
        ...


def cells(suite: Suite, tasks: Sequence[str], methods: Sequence[str], seeds: int) -> Iterator[Cell]:
    """Yield the cells of a part of a suite, seeds outermost, so that an interrupted run covers all methods."""
    for seed in range(seeds):
        for task in tasks:
            for samples in suite.samples:
                for method in methods:
                    yield Cell(task, method, samples, seed)


class OnTables(Protocol):
    """A task of a suite that reads tables.

    Attributes:
        missing: Paths of the tables that are not there.
    """

    @property
    def missing(self) -> list[str]: ...  # noqa: D102


Task = TypeVar("Task", bound=OnTables)


def present(tasks: Mapping[str, Task]) -> dict[str, Task]:
    """Return the tasks whose tables are there; a line tells of each other one.

    Raises:
        ConfigError: If there are none.
    """
    for name, task in tasks.items():
        for path in task.missing:
            logger.warning("Task %s is left out: there is no table %s (see nasflow data list).", name, path)
    found = {name: task for name, task in tasks.items() if not task.missing}
    if not found:
        raise ConfigError("None of the suite's tables is there: import one (nasflow data list tells which).")
    return found
