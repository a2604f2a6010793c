"""How well predictors rank architectures that they have not seen, by the number of samples."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nasflow.evaluators import TableLookup
from nasflow.suites.base import Cell, Row, present
from nasflow.suites.few_shot import Fitted, KeptPredictors, content, held_out, methods_of
from predictors.base import SourceError, SourceSamples
from predictors.encodings import Encoding
from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError
from searchspaces.files import located
from searchspaces.space import SearchSpace

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Learnable:
    """A table whose figures are to be predicted.

    Attributes:
        space: The table's space.
        table: Path of the table.
        column: The column to predict; larger is better.
        samples: Numbers of samples to learn from.
        encodings: Encodings by the names that methods give.
        score_table: Path of a table that encodings look scores up in; told here so that its absence is noticed.
        published: Rows of publications: method, samples, kendall_tau, source.
        source: Another table, of another space or task, that methods may learn from, too.
        source_samples: How many random figures of it.
    """

    space: SearchSpace
    table: str
    column: str
    samples: Sequence[int]
    encodings: Mapping[str, Encoding]
    score_table: str | None = None
    published: Sequence[Mapping[str, Any]] = ()
    source: "Learnable | None" = None
    source_samples: int = 512

    @property
    def missing(self) -> list[str]:
        """The tables that are not there."""
        own = [path for path in (self.table, self.score_table) if path is not None and not located(path).is_file()]
        return own + (self.source.missing if self.source else [])

    @cached_property
    def lookup(self) -> TableLookup:
        """The table with its column."""
        return TableLookup(self.space, self.table, {self.column: self.column})

    @cached_property
    def known(self) -> tuple[ArchBatch, NDArray[np.float64]]:
        """The architectures whose figure is known, and the figures."""
        table = self.lookup.table
        figures = table.column(self.column)
        there = ~np.isnan(figures)
        return table.archs[there], figures[there]

    def content(self, name: str) -> str:
        """Return a digest of what an encoding gives for some of the architectures."""
        return content(self.encodings[name], self.known[0])

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """What decides the figures."""
        own = {"content": self.lookup.content, "column": self.column}
        return own | ({"source": [self.source.settings, self.source_samples]} if self.source else {})

    def drawn(self, seed: int) -> SourceSamples:
        """Return random figures to learn from beside those of another table.

        Raises:
            ConfigError: If there are fewer than are asked for.
        """
        assert self.source is not None
        archs, figures = self.source.known
        if len(archs) < self.source_samples:
            raise ConfigError(f"{self.source.table} has {len(archs)} figures, fewer than {self.source_samples}.")
        chosen = np.random.default_rng([seed, 12]).permutation(len(archs))[: self.source_samples]
        return SourceSamples(archs[chosen], figures[chosen], self.source.column)


class AccuracyFewShot:
    """Fits predictors to random samples of one half of a table and compares their ranks with the other half's.

    Reported are Kendall's tau-b and Spearman's coefficient on all of the other half; tau-b on that part of it whose
    canonical class has no sample either (`kendall_tau_unseen`: a cell with dead operations computes what another one
    does); the share of figures within the 90 % interval; and seconds to fit and to score a thousand architectures.

    Args:
        tasks: Tables by name. One whose table is missing is left out, with a line that says so.
        methods: Predictors by name. Tasks without a method's encoding are passed over.
        seeds: Seeds per cell.
        test: Test architectures at most.
        name: The suite's name.

    Raises:
        ConfigError: If no table is there.
    """

    version = 1

    def __init__(
        self,
        tasks: Mapping[str, Learnable],
        methods: Mapping[str, Mapping[str, Any]],
        seeds: int = 10,
        test: int = 10000,
        name: str = "accuracy_few_shot",
    ) -> None:
        self.name = name
        self._learnable = present(tasks)
        self._methods = methods_of(Fitted, methods)
        self.tasks, self.methods = tuple(self._learnable), tuple(self._methods)
        self.samples = tuple(sorted({n for task in self._learnable.values() for n in task.samples}))
        self.seeds = seeds
        self.test = test
        self._kept = KeptPredictors()

    @property
    def published(self) -> list[Row]:
        """The tasks' published rows."""
        return [
            Row(name, row["method"], row["samples"], metric, row[metric], None, [], None, row["source"])
            for name, task in self._learnable.items()
            for row in task.published
            for metric in ("kendall_tau", "spearman")
            if metric in row
        ]

    def settings(self) -> Mapping[str, Any]:
        """How many architectures are tested on."""
        return {"test": self.test}

    def cell_settings(self, cell: Cell) -> Mapping[str, Any]:
        """The table's figures, the predictor and its encoding."""
        task, method = self._learnable[cell.task], self._methods[cell.method]
        of_method = {"predictor": method.predictor, "transfer": method.transfer}
        return {**task.settings, **of_method, "encoding": self._content(task, method)}

    def _content(self, task: Learnable, method: Fitted) -> str | None:
        name = method.encoding
        return None if name is None or name not in task.encodings else task.content(name)

    def run(self, cell: Cell) -> Mapping[str, float]:
        """Fit and test once; nothing where the task has not the number of samples, the encoding or the source."""
        task, method = self._learnable[cell.task], self._methods[cell.method]
        if cell.samples not in task.samples or cell.seed >= (method.seeds or self.seeds):
            return {}
        if method.encoding is not None and method.encoding not in task.encodings:
            return {}
        if method.transfer and task.source is None:
            return {}
        archs, figures = task.known
        order = np.random.default_rng([cell.seed, 11]).permutation(len(archs))
        train, test = order[: len(order) // 2][: cell.samples], order[len(order) // 2 :][: self.test]
        if len(train) < cell.samples:
            raise ConfigError(f"Half of {cell.task} has {len(order) // 2} architectures, fewer than {cell.samples}.")
        predictor = self._kept.predictor(cell, method, task.encodings)
        sources = [task.drawn(cell.seed)] if method.transfer else []
        try:
            return held_out(predictor, archs[train], figures[train], archs[test], figures[test], sources)
        except SourceError as error:
            logger.info("%s %s is passed over: %s", cell.task, cell.method, error)
            return {}
