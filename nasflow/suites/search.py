"""How good the networks are that search strategies find in tables of known results, and how soon."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any, Literal

import numpy as np
from scipy.stats import wilcoxon

from nasflow.config import composed, instantiate, plain
from nasflow.evaluators import TableLookup
from nasflow.objectives import Objectives
from nasflow.strategies import ColumnScore, Deduplicate, Score, Strategy
from nasflow.study.records import Record
from nasflow.study.runner import Runner
from nasflow.study.storage import memory
from nasflow.study.study import Study
from nasflow.suites.base import Cell, Row, present
from predictors.base import Predictor
from predictors.encodings import Encoding
from searchspaces.errors import ConfigError
from searchspaces.files import located
from searchspaces.space import SearchSpace
from searchspaces.table import Table

_QUARTILES = {"q25": 0.25, "median": 0.5, "q75": 0.75}
_REGRET, _HOURS = "regret", "hours"
_SOME = 200  # architectures that tell one encoding from another


@dataclass(frozen=True)
class Benchmark:
    """A table to search in.

    Attributes:
        space: The table's space.
        table: Path of the table.
        metric: Column that a search maximises.
        test: Column that is reported of what the search found best by `metric`; larger is better.
        pool: Whether the table lacks architectures, so that a search moves only among those it holds.
        seconds: Column of the seconds that an evaluation took; None where the table has none.
        hours: Simulated hours after which to report, too; all have to be spent within the largest number of trials.
        scores: By name of a score, its columns and whether to maximize or minimize each; several vote.
        score_table: Path of the table that has those columns, where it is another one.
        encodings: Encodings by the names that methods give.
        published: Rows of publications: method, samples, figure in the `test` column, source.
    """

    space: SearchSpace
    table: str
    metric: str
    test: str
    pool: bool = False
    seconds: str | None = None
    hours: Sequence[float] = ()
    scores: Mapping[str, Mapping[str, Literal["maximize", "minimize"]]] | None = None
    score_table: str | None = None
    encodings: Mapping[str, Encoding] | None = None
    published: Sequence[Mapping[str, Any]] = ()

    def __post_init__(self) -> None:
        if self.hours and self.seconds is None:
            raise ConfigError("Simulated hours need the column of the table that has the seconds of an evaluation.")

    @property
    def missing(self) -> list[str]:
        """The tables that are not there."""
        return [path for path in (self.table, self.score_table) if path is not None and not located(path).is_file()]

    @cached_property
    def evaluator(self) -> TableLookup:
        """The table, with the columns that are searched and reported."""
        columns = {self.metric: self.metric, self.test: self.test}
        return TableLookup(self.space, self.table, columns, self.pool, self.seconds)

    @property
    def searched(self) -> SearchSpace:
        """What a search moves in."""
        return self.evaluator.pool or self.space

    @cached_property
    def best(self) -> float:
        """The best figure that could be reported."""
        return float(np.nanmax(self.evaluator.table.column(self.test)))

    @cached_property
    def _scores(self) -> dict[str, Score]:
        path = self.score_table
        table = self.evaluator.table if path is None else Table.load(located(path), self.space)
        return {name: ColumnScore(table, columns) for name, columns in (self.scores or {}).items()}

    def score(self, name: str) -> Score | None:
        """Return the score of a name; None where there is none."""
        return self._scores.get(name)

    def encoding(self, name: str) -> Encoding | None:
        """Return the encoding of a name; None where there is none."""
        return (self.encodings or {}).get(name)

    def encoding_content(self, name: str) -> str | None:
        """Return a digest of what an encoding gives for some of the architectures; None where there is none."""
        encoding = self.encoding(name)
        if encoding is None:
            return None
        figures = encoding.encode(self.evaluator.table.archs[:_SOME])
        return sha256(np.round(figures, 6).tobytes()).hexdigest()[:16]

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """What decides results: the figures in use, and how they are used."""
        scored = {name: name for columns in (self.scores or {}).values() for name in columns}
        scores = TableLookup(self.space, self.score_table or self.table, scored).content if scored else ""
        return {
            "content": [self.evaluator.content, scores],
            "columns": [self.metric, self.test, self.seconds],
            "pool": self.pool,
            "hours": list(self.hours),
        }


@dataclass(frozen=True)
class Method:
    """A way to search.

    Attributes:
        overrides: What chooses the strategy on the command line of `nasflow search`; `~strategy.score` leaves the
            score of a warm-up to the benchmark.
        score: Name of the benchmark's score that it uses; tasks without such a score are passed over.
        encoding: Name of the benchmark's encoding that its predictor gets; tasks without it are passed over. None for
            the one that the overrides choose.
        against: Name of the method that it is to be compared with, seed by seed.
    """

    overrides: Sequence[str]
    score: str | None = None
    encoding: str | None = None
    against: str | None = None

    @cached_property
    def parts(self) -> Mapping[str, Any]:
        """The configurations of the strategy and, where it has them, of its predictor and encoding."""
        config = composed("search", [*self.overrides])
        keys = ["strategy", "predictor"] + (["encoding"] if self.encoding is None else [])
        return {key: plain(config[key]) for key in keys if config.get(key) is not None}


class SearchComparison:
    """Runs strategies on tables, many seeds each, and compares what they find.

    A search is a study in memory, as `nasflow search` runs it. After each number of trials the network that is best by
    the search's own metric is looked at: its figure in the `test` column, and by how much the best one of the
    table is better (`regret`). Where the table knows what an evaluation took, the same is told after simulated hours.

    Args:
        tasks: Benchmarks by name. One whose table is missing is left out, with a line that says so.
        methods: Methods by name.
        samples: Numbers of trials.
        seeds: Seeds per cell.

    Raises:
        ConfigError: If no table is there, or a method is compared with one that does not exist.
    """

    name = "search"
    version = 1

    def __init__(
        self,
        tasks: Mapping[str, Benchmark],
        methods: Mapping[str, Mapping[str, Any]],
        samples: Sequence[int] = (50, 100, 300, 1000),
        seeds: int = 30,
    ) -> None:
        self._benchmarks = present(tasks)
        target = f"{Method.__module__}.{Method.__name__}"
        self._methods: dict[str, Method] = {
            name: instantiate({"_target_": target, **entries}) for name, entries in methods.items()
        }
        for name, method in self._methods.items():
            if method.against is not None and method.against not in self._methods:
                raise ConfigError(f"Method {name!r} is to be compared with {method.against!r}, which is no method.")
        self.tasks, self.methods = tuple(self._benchmarks), tuple(self._methods)
        self.samples = tuple(samples)
        self.seeds = seeds
        self._running: tuple[tuple[str, int], dict[str, Runner]] = (("", -1), {})

    @property
    def published(self) -> list[Row]:
        """The tasks' published rows."""
        return [
            Row(name, row["method"], row["samples"], task.test, row["figure"], None, [], None, row["source"])
            for name, task in self._benchmarks.items()
            for row in task.published
        ]

    def settings(self) -> Mapping[str, Any]:
        """Nothing that all cells share."""
        return {}

    def cell_settings(self, cell: Cell) -> Mapping[str, Any]:
        """The benchmark, the strategy with its arguments, its score, and its predictor where it has one."""
        task, method = self._benchmarks[cell.task], self._methods[cell.method]
        score = (task.scores or {}).get(method.score or "")
        named = {} if method.encoding is None else {"encoding": task.encoding_content(method.encoding)}
        return {**task.settings, **method.parts, **named, "score": score, "largest": max(self.samples)}

    def run(self, cell: Cell) -> Mapping[str, float]:
        """Search, and return what was found; nothing where the task has not the score or encoding that it takes."""
        task, method = self._benchmarks[cell.task], self._methods[cell.method]
        if method.score is not None and task.score(method.score) is None:
            return {}
        if method.encoding is not None and task.encoding(method.encoding) is None:
            return {}
        records = self._runner(cell).run(cell.samples)[: cell.samples]
        return figures(task, records, task.hours if cell.samples == max(self.samples) else ())

    def _runner(self, cell: Cell) -> Runner:
        """The search of a cell: that of a smaller budget, to be continued, or a new one."""
        if self._running[0] != (cell.task, cell.seed):
            self._running = (cell.task, cell.seed), {}
        runners = self._running[1]
        if cell.method not in runners:
            task, method = self._benchmarks[cell.task], self._methods[cell.method]
            score = None if method.score is None else task.score(method.score)
            predictor = _predictor(task, method, cell.seed)
            runners[cell.method] = searching(task, method.parts["strategy"], cell.seed, score, predictor)
        return runners[cell.method]

    def summary(self, results: Mapping[Cell, Mapping[str, float]]) -> list[Row]:
        """Return quartiles over seeds, and the p-value of each method's difference from what it is compared with.

        The test is Wilcoxon's signed-rank test, two-sided, on the regret of both methods under the same seeds.
        """
        groups: dict[tuple[str, str, int], dict[int, Mapping[str, float]]] = defaultdict(dict)
        for cell, metrics in results.items():
            if metrics:
                groups[cell.task, cell.method, cell.samples][cell.seed] = metrics
        rows = []
        for (task, name, samples), by_seed in groups.items():
            against = self._methods[name].against
            other = groups.get((task, against or "", samples), {})
            seeds = sorted(by_seed)
            common = [seed for seed in seeds if seed in other]
            for metric in (metric for metric in by_seed[seeds[0]] if metric != _HOURS):
                values = [by_seed[seed][metric] for seed in seeds]
                told = {f"{metric} {label}": (float(np.quantile(values, q)), seeds) for label, q in _QUARTILES.items()}
                if common and metric.startswith(_REGRET):
                    pairs = [(by_seed[seed][metric], other[seed][metric]) for seed in common]
                    told[f"{metric} p-value against {against}"] = signed_rank(pairs), common
                rows += [Row(task, name, samples, k, v, None, of, None, "measured") for k, (v, of) in told.items()]
        return rows


def _predictor(task: Benchmark, method: Method, seed: int) -> Predictor | None:
    """Return the predictor that a method's strategy needs, unfitted; None where it needs none."""
    if "predictor" not in method.parts:
        return None
    available: dict[str, Any] = {"space": task.space, "seed": seed}
    if method.encoding is not None:
        available["encoding"] = task.encoding(method.encoding)
    elif "encoding" in method.parts:
        available["encoding"] = instantiate(method.parts["encoding"], **available)
    predictor: Predictor = instantiate(method.parts["predictor"], **available)
    return predictor


def searching(
    task: Benchmark, strategy: Any, seed: int, score: Score | None, predictor: Predictor | None = None
) -> Runner:
    """Return a search in memory, not begun, by the strategy that a configuration describes."""
    objectives = Objectives(**{task.metric: {"direction": "maximize"}})
    given = {"space": task.searched, "objectives": objectives, "seed": seed, "keep": None}
    given |= {name: part for name, part in (("score", score), ("predictor", predictor)) if part is not None}
    built: Strategy = instantiate(strategy, **given)
    study = Study(memory(), task.searched, objectives, seed)
    return Runner(study, Deduplicate(built), [task.evaluator])


def figures(task: Benchmark, records: Sequence[Record], hours: Sequence[float]) -> dict[str, float]:
    """Return what is told of a search: at its end, and after simulated hours.

    Raises:
        ConfigError: If the search has not spent that many hours, or found nothing within them.
    """
    valid = np.array([record.metrics[task.metric] for record in records])
    test = np.array([record.metrics[task.test] for record in records])

    def found(n: int) -> dict[str, float]:
        figure = float(test[np.argmax(valid[:n])])
        return {task.test: figure, _REGRET: task.best - figure}

    result = found(len(records))
    if task.seconds is not None:
        spent = np.cumsum([record.provenance["tablelookup"]["seconds"] for record in records]) / 3600
        result[_HOURS] = float(spent[-1])
        for limit in hours:
            n = int(np.searchsorted(spent, limit, side="right"))
            if n in (0, len(records)):
                raise ConfigError(
                    f"{limit:g} hours are to be reported, but the {len(records)} trials of a search took from "
                    f"{spent[0]:.3g} to {spent[-1]:.3g}: choose hours in between, or a larger number of trials."
                )
            result |= {f"{name} after {limit:g} h": value for name, value in found(n).items()}
    return result


def signed_rank(pairs: Sequence[tuple[float, float]]) -> float:
    """Return the p-value of Wilcoxon's signed-rank test, two-sided; 1 where no pair differs."""
    first, second = np.array(pairs).T
    return 1.0 if (first == second).all() else float(wilcoxon(first, second).pvalue)
