"""A search, put together from its configuration, and what it hands back."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from nasflow.config import composed, instantiate, plain
from nasflow.environment import environment
from nasflow.evaluators.base import Context, Evaluator
from nasflow.models import Model, weights_path, write_models
from nasflow.objectives import Objectives
from nasflow.pareto import non_dominated
from nasflow.progress import Progress
from nasflow.strategies import Deduplicate, Filter, Strategy
from nasflow.study.runner import Runner
from nasflow.study.study import Record, Study
from nasflow.study.workers import Liveness
from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError, StudyError
from searchspaces.files import write_text
from searchspaces.genes import Rows
from searchspaces.space import SearchSpace
from searchspaces.task import Task

logger = logging.getLogger(__name__)

CONFIG = "config.yaml"
_MAY_CHANGE = ("budget", "storage", "max_failure_rate", "lease_s", "reference")


class InfeasibleError(StudyError):
    """No trial of a finished search met the bounds."""


@dataclass
class Search:
    """One search: its parts, and the folder that receives its results.

    Attributes:
        config: The composed configuration.
        folder: Log, report and models go here.
    """

    config: DictConfig
    folder: Path

    @cached_property
    def task(self) -> Task:
        """The task."""
        task = instantiate(self.config.task)
        if not isinstance(task, Task):
            raise ConfigError(f"task._target_ must build a Task, but {self.config.task._target_} does not.")
        return task

    @cached_property
    def space(self) -> SearchSpace:
        """The search space."""
        space = instantiate(self.config.space)
        if not isinstance(space, SearchSpace):
            raise ConfigError(f"space._target_ must build a SearchSpace, but {self.config.space._target_} does not.")
        return space

    @cached_property
    def objectives(self) -> Objectives:
        """The objectives."""
        objectives: Objectives = instantiate(self.config.objective)
        return objectives

    @cached_property
    def evaluators(self) -> list[Evaluator]:
        """The evaluators, in the configured order."""
        named = instantiate(self.config.evaluator, space=self.space, task=self.task, folder=self.folder)
        return list(named.values())

    @cached_property
    def strategy(self) -> Strategy:
        """The strategy, kept from repeating itself and, where cheap bounds exist, from proposing what they rule out."""
        strategy: Strategy = instantiate(self.config.strategy, space=self.space, objectives=self.objectives)
        bounded = {entry.metric for entry in self.objectives.bounded}
        cheap = [e for e in self.evaluators if e.cost == "cheap" and bounded & set(e.provides)]
        fresh = Deduplicate(strategy)
        return Filter(fresh, lambda rows: self._cheap_violation(rows, cheap)) if cheap else fresh

    def _cheap_violation(self, rows: Rows, cheap: Sequence[Evaluator]) -> Any:
        archs = ArchBatch(self.space, rows)
        columns: dict[str, Any] = {}
        for evaluator in cheap:
            columns |= evaluator.evaluate(archs, Context(seeds=[0] * len(archs))).columns
        return sum(self.objectives.violations(columns).values(), np.zeros(len(archs)))

    @cached_property
    def study(self) -> Study:
        """The study, opened in the configured storage."""
        identity = {key: value for key, value in plain(self.config).items() if key not in _MAY_CHANGE}
        name = str(plain(self.config.storage).get("study", "nasflow"))
        storage = {key: value for key, value in plain(self.config.storage).items() if key != "study"}
        return Study(instantiate(storage), self.space, self.objectives, self.config.seed, identity, name)

    def run(self, progress: bool = True) -> list[Record]:
        """Evaluate until the budget is spent, alone or with other workers, and return all records.

        Raises:
            NasflowError: If the run cannot begin or go on; what had finished is kept.
        """
        budget = int(self.config.budget)
        if budget < 1:
            raise ConfigError(f"budget is the number of evaluations, at least 1, but is {budget}.")
        shown = Progress(self.objectives, budget) if progress else None
        runner = Runner(
            self.study,
            self.strategy,
            self.evaluators,
            self.folder,
            max_failure_rate=self.config.max_failure_rate,
            liveness=Liveness(self.config.lease_s),
            progress=shown,
        )
        try:
            return runner.run(budget)
        finally:
            if shown:
                shown.close()

    def save_config(self) -> None:
        """Write the resolved configuration and the environment into the folder, for workers and reports."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.folder / CONFIG, OmegaConf.to_yaml(OmegaConf.create(plain(self.config))))
        write_text(self.folder / "environment.json", json.dumps(environment(), indent=1))

    @classmethod
    def load(cls, folder: Path) -> "Search":
        """Open the search whose results are in `folder`.

        Raises:
            StudyError: If the folder is not that of a search.
        """
        path = folder / CONFIG
        if not path.is_file():
            raise StudyError(
                f"{folder} is not the folder of a search: it holds no {CONFIG}. Give the folder that nasflow search "
                "named."
            )
        config = OmegaConf.load(path)
        assert isinstance(config, DictConfig)
        return cls(config, folder)

    def front(self, records: Sequence[Record]) -> list[Record]:
        """Return the feasible non-dominated records."""
        done = [record for record in records if record.state == "complete" and record.violation <= 0]
        if not done:
            return []
        mask = non_dominated(self.objectives.losses(_columns(done, self.objectives)))
        return [record for record, keep in zip(done, mask, strict=True) if keep]

    def finish(self, records: Sequence[Record]) -> list[Model]:
        """Write models and report, and return the models of the front.

        Raises:
            InfeasibleError: If no record meets the bounds; the report is written all the same.
        """
        models = self.write(records)
        if not models:
            raise InfeasibleError(self._why_empty(records))
        return models

    def write(self, records: Sequence[Record]) -> list[Model]:
        """Write models and report for what is there, and return the models of the front."""
        from nasflow.report import write_report

        front = self.front(records)
        models = write_models(self.folder, front, self.space, self.task)
        _drop_weights(self.folder, records, front or self.nearest(records))
        write_report(
            self.folder,
            self.study,
            self.space,
            self.task,
            config=plain(self.config),
            environment=json.loads((self.folder / "environment.json").read_text()),
            models={model.slot: model.path for model in models},
            title=f"{self.space.name} on {self.task.name}",
            test_accuracy={model.slot: model.test_accuracy for model in models if model.test_accuracy is not None},
        )
        return models

    def nearest(self, records: Sequence[Record]) -> list[Record]:
        """Return the record that misses the bounds by least, if there is one."""
        known = [record for record in records if record.state != "failed"]
        return [min(known, key=lambda record: record.violation)] if known else []

    def _why_empty(self, records: Sequence[Record]) -> str:
        nearest = self.nearest(records)
        if not nearest:
            reason = records[-1].error if records else "nothing was evaluated"
            return f"None of the {len(records)} evaluations succeeded; the last one said: {reason}"
        bounds = " and ".join(
            f"{entry.metric} {word} {bound:g}"
            for entry in self.objectives.bounded
            for word, bound in (("at least", entry.at_least), ("at most", entry.at_most))
            if bound is not None
        )
        metrics = ", ".join(f"{name} {value:.4g}" for name, value in nearest[0].metrics.items())
        arch = self.space.format(nearest[0].row[None])[0]
        return (
            f"None of the {len(records)} evaluations meets {bounds}. The nearest is slot {nearest[0].slot}, {arch}, "
            f"with {metrics}. Loosen the bound, raise the budget (the same command with a larger one continues), or "
            f"choose a smaller scale of the space. Report: {self.folder / 'report.html'}"
        )


def search(*overrides: str, folder: str | Path, progress: bool = False) -> tuple[Search, list[Model]]:
    """Run or resume a search from Python, as `nasflow search` does from the command line.

    Args:
        *overrides: What differs from the default configuration, such as `"task=digits"` and `"budget=20"`.
        folder: Log, report and models go here.
        progress: Whether to show progress.

    Returns:
        The search, whose `study` has all records, and the non-dominated models.

    Raises:
        NasflowError: If the search cannot run, or no model meets the bounds.
    """
    run = Search(composed("search", [*overrides, f"storage.path={Path(folder) / 'study.journal'}"]), Path(folder))
    run.save_config()
    return run, run.finish(run.run(progress))


def _columns(records: Sequence[Record], objectives: Objectives) -> Mapping[str, Any]:
    return {metric: np.array([record.metrics[metric] for record in records]) for metric in objectives.metrics}


def _drop_weights(folder: Path, records: Sequence[Record], keep: Sequence[Record]) -> None:
    """Delete the trained weights of dominated networks, which no later front can hold.

    Slots that are not among the records may be under way elsewhere: their weights stay.
    """
    for slot in {record.slot for record in records} - {record.slot for record in keep}:
        weights_path(folder, slot).unlink(missing_ok=True)
