"""A search, put together from its configuration, and what it hands back."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nasflow.config import composed, instantiate, plain
from nasflow.environment import environment, read_environment
from nasflow.evaluators import PredictedLatency, TableLookup
from nasflow.evaluators.base import Context, Evaluator
from nasflow.models import Model, weights_path, write_models
from nasflow.objectives import Objectives
from nasflow.pareto import non_dominated
from nasflow.portable import (
    absolute_path,
    opened,
    portable,
    refuse_passwords,
    with_absolute_paths,
    without_passwords,
)
from nasflow.progress import Progress
from nasflow.strategies import Deduplicate, Filter, Strategy
from nasflow.study.log import Log
from nasflow.study.predictions import eligible, unmeasured
from nasflow.study.runner import Runner, select
from nasflow.study.study import Record, Study
from nasflow.study.workers import Liveness
from nasflow.verification import verify
from predictors.base import Predictor
from predictors.encodings import Encoding
from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError, NasflowError, StudyError, unknown
from searchspaces.files import locked, remove_abandoned, write_text
from searchspaces.genes import Rows
from searchspaces.pool import Pool
from searchspaces.space import SearchSpace
from searchspaces.task import Task

logger = logging.getLogger(__name__)

CONFIG, ENVIRONMENT, OVERRIDES = "config.yaml", "environment.json", ".hydra/overrides.yaml"
_MAY_CHANGE = ("budget", "max_failure_rate", "lease_s", "reference")


class InfeasibleError(StudyError):
    """No trial of a finished search met the bounds."""


@dataclass
class Search:
    """One search: its parts, and the folder that receives its results.

    Attributes:
        config: The composed configuration.
        folder: Log, report and models go here.
        existing: Whether the study must be there already.
    """

    config: DictConfig
    folder: Path
    existing: bool = False

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
    def pool(self) -> Pool | None:
        """What tables among the evaluators limit the search to, which all of them hold; None for the whole space."""
        pools = [e.pool for e in self.evaluators if isinstance(e, TableLookup) and e.pool is not None]
        if not pools:
            return None
        rows = pools[0].rows
        for pool in pools[1:]:
            rows = rows[pool.is_valid(rows)]
        return Pool(self.space, rows)

    @cached_property
    def predictor(self) -> Predictor | None:
        """The predictor of a strategy that needs one, with its encoding; None for other strategies."""
        if self.config.get("predictor") is None:
            return None
        parts = {"space": self.space, "task": self.task, "seed": whole("seed", self.config.seed, 0)}
        if self.config.get("encoding") is not None:
            parts["encoding"] = instantiate(self.config.encoding, **parts)
            if isinstance(parts["encoding"], Encoding):
                parts["encoding"].columns(self.space)  # says now, and not after hours, that it is not defined
        predictor = instantiate(self.config.predictor, **parts)
        if not isinstance(predictor, Predictor):
            name = self.config.predictor._target_
            raise ConfigError(f"predictor._target_ must build a Predictor, but {name} does not.")
        return predictor

    @cached_property
    def strategy(self) -> Strategy:
        """The strategy, kept from repeating itself and, where cheap bounds exist, from proposing what they rule out."""
        bounded = {entry.metric for entry in self.objectives.bounded}
        needed = select(self.evaluators, self.objectives.metrics)
        cheap = [e for e in needed if e.cost == "cheap" and bounded & set(e.provides)]
        keep = partial(self._cheap_violation, cheap=cheap) if cheap else None
        parts = {"space": self.pool or self.space, "task": self.task, "objectives": self.objectives, "keep": keep}
        if self.predictor is not None:
            parts["predictor"] = self.predictor
        strategy: Strategy = instantiate(self.config.strategy, seed=whole("seed", self.config.seed, 0), **parts)
        fresh = Deduplicate(strategy)
        bound = Filter(fresh, keep) if keep else fresh
        return _Within(bound, self.pool) if self.pool else bound

    def _cheap_violation(self, rows: Rows, cheap: Sequence[Evaluator]) -> Any:
        archs = ArchBatch(self.space, rows)
        columns: dict[str, Any] = {}
        try:
            for evaluator in cheap:
                columns = evaluator.evaluate(archs, Context(seeds=[0] * len(archs))).columns | columns
        except NasflowError:
            if len(rows) == 1:  # what cannot be known does not rule out: the trial will say what is wrong
                return np.zeros(1)
            return np.concatenate([self._cheap_violation(row[None], cheap) for row in rows])
        return sum(self.objectives.violations(columns).values(), np.zeros(len(archs)))

    @cached_property
    def study(self) -> Study:
        """The study, opened in the configured storage."""
        storage = dict(plain(self.config.storage))
        name = str(storage.pop("study", "nasflow"))
        if self.existing and "path" in storage and not Path(storage["path"]).exists():
            raise StudyError(
                f"The log {storage['path']} of the search in {self.folder} is missing. Put it back; without it, "
                "nothing is known of what was evaluated."
            )
        config = portable(self.config, self.folder)
        identity = {key: value for key, value in config.items() if key not in (*_MAY_CHANGE, "storage")}
        seed = whole("seed", self.config.seed, 0)
        return Study(
            instantiate(storage), self.space, self.objectives, seed, identity, name, create=not self.existing
        )

    def start(self, overrides: Sequence[str] | None = None) -> None:
        """Open the study, new or to be continued, and store the configuration for workers and reports.

        All parts are built first, so that a mistake in the configuration leaves no trace. Relative paths become
        absolute, for workers may be started elsewhere.

        Args:
            overrides: What differs from the default configuration, for the report to repeat.

        Raises:
            NasflowError: If a part cannot be built, or the folder holds a search with another configuration.
        """
        refuse_passwords(plain(self.config, resolve=False))
        self.config = with_absolute_paths(self.config)
        whole("budget", self.config.budget, 1)
        _ = self.strategy, self._runner_settings()
        self._check_reference()
        for name, evaluator in zip(self.config.evaluator, self.evaluators, strict=True):
            if isinstance(evaluator, (TableLookup, PredictedLatency)):  # what is read is part of the study's identity
                OmegaConf.update(self.config, f"evaluator.{name}.content", evaluator.content, force_add=True)
        with suppress(StudyError):  # no search yet, or a damaged configuration, which is about to be replaced
            former = without_passwords(plain(Search.load(self.folder).config.storage))
            if former != without_passwords(plain(self.config.storage)):
                raise ConfigError(
                    f"The search in {self.folder} keeps its log in another storage ({former}). Give the former storage "
                    "to continue it, or start a new one in another folder (hydra.run.dir=FOLDER)."
                )
        _ = self.study
        self.save_config(overrides)

    def run(self, progress: bool = True) -> list[Record]:
        """Evaluate until the budget is spent, alone or with other workers, and return all records.

        Raises:
            NasflowError: If the run cannot begin or go on; what had finished is kept.
        """
        remove_abandoned(self.folder, self.folder / "weights", self.folder / "models")
        budget = whole("budget", self.config.budget, 1)
        shown = Progress(self.objectives, budget) if progress else None
        runner = Runner(
            self.study,
            self.strategy,
            self.evaluators,
            self.folder,
            progress=shown,
            **self._runner_settings(),
        )
        try:
            return runner.run(budget)
        finally:
            if shown:
                shown.close()

    def _runner_settings(self) -> dict[str, Any]:
        rate, lease = self.config.max_failure_rate, self.config.lease_s
        if not isinstance(rate, (int, float)) or not 0 <= rate <= 1:
            raise ConfigError(f"max_failure_rate is a share between 0 and 1, but is {rate!r}.")
        if not isinstance(lease, (int, float)) or lease <= 0:
            raise ConfigError(f"lease_s is a positive number of seconds, but is {lease!r}.")
        return {"max_failure_rate": rate, "liveness": Liveness(lease)}

    def _check_reference(self) -> None:
        """See that the hypervolume's reference point has one number per objective."""
        reference = plain(self.config).get("reference")
        if reference is None:
            return
        wanted = [entry.metric for entry in self.objectives.optimised]
        example = ",".join(f"{metric}:1" for metric in wanted)
        rule = f"reference gives each optimised metric a number, as in 'reference={{{example}}}'"
        if not isinstance(reference, dict):
            raise ConfigError(f"{rule}, but is {reference!r}.")
        for metric, value in reference.items():
            if metric not in wanted:
                raise ConfigError(f"{rule}. {unknown('optimised metric', str(metric), wanted)}")
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not np.isfinite(value):
                raise ConfigError(f"{rule}, but that of {metric} is {value!r}.")
        missing = [metric for metric in wanted if metric not in reference]
        if missing:
            raise ConfigError(f"{rule}, but {reference} has none for {missing[0]}.")

    def save_config(self, overrides: Sequence[str] | None = None) -> None:
        """Write the resolved configuration and the environment into the folder, for workers and reports."""
        config = OmegaConf.create(portable(self.config, self.folder))
        write_text(self.folder / CONFIG, OmegaConf.to_yaml(config))
        write_text(self.folder / ENVIRONMENT, json.dumps(environment(), indent=1))
        if overrides is not None:
            write_text(self.folder / OVERRIDES, OmegaConf.to_yaml(OmegaConf.create(list(overrides))))

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
        try:
            config = opened(OmegaConf.load(path), folder)
            if not OmegaConf.is_dict(config.storage):
                raise TypeError("it has no storage")
        except (yaml.YAMLError, OmegaConfBaseException, KeyError, TypeError, ValueError, AttributeError) as error:
            raise StudyError(
                f"{path} is damaged ({' '.join(str(error).split())}). Give the command of nasflow search again, which "
                "writes it anew."
            ) from error
        return cls(config, folder, existing=True)

    def front(self, records: Sequence[Record]) -> list[Record]:
        """Return the feasible non-dominated records; of measured figures, as soon as predicted ones are measured."""
        done = [record for record, good in zip(records, eligible(records), strict=True) if good]
        if not done:
            return []
        mask = non_dominated(self.objectives.losses(_columns(done, self.objectives)))
        return [record for record, keep in zip(done, mask, strict=True) if keep]

    def verify(self) -> list[Record]:
        """Measure the best candidates where latencies were predicted (`nasflow.verification`), and return all records.

        Raises:
            DeviceError: If the device cannot measure; what was measured is kept.
        """
        predicted = [e for e in select(self.evaluators, self.objectives.metrics) if isinstance(e, PredictedLatency)]
        if not predicted:
            return self.study.records()
        with locked(self.folder / ".verify.lock"):
            return verify(self.study, predicted, self.folder)

    def finish(self) -> list[Model]:
        """Verify predictions, write models and report, and return the models of the front.

        Raises:
            InfeasibleError: If no record meets the bounds; the report is written all the same.
            DeviceError: If candidates have to be measured, and the device cannot; what was measured is kept.
        """
        records = self.verify()
        models = self.write()
        if not models:
            raise InfeasibleError(self._why_empty(records))
        return models

    def write(self) -> list[Model]:
        """Write models and report for what the log holds, and return the models of the front.

        One process at a time does so, from what the log then holds: an earlier state never replaces a later one.
        """
        from nasflow.report import write_report

        with locked(self.folder / ".write.lock"):
            return self._write(write_report)

    def _write(self, write_report: Callable[..., Path]) -> list[Model]:
        records = self.study.verified()
        front = self.front(records)
        models = write_models(self.folder, records, front, self.space, self.task)
        open_ = [record for record in records if record.state == "complete" and unmeasured(record)]
        _drop_weights(self.folder, records, [*(front or self.nearest(records)), *open_])
        write_report(
            self.folder,
            self.study,
            self.space,
            self.task,
            config=without_passwords(plain(self.config)),
            environment=read_environment(self.folder / ENVIRONMENT),
            models=models,
            title=f"{self.space.name} on {self.task.name}",
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


@dataclass(frozen=True)
class _Within:
    """Lets a strategy see a pool in place of the space. The study keeps the space: to read it takes no table."""

    strategy: Strategy
    pool: Pool

    def propose(self, log: Log, k: int, rng: np.random.Generator) -> tuple[Rows, float | None]:
        return self.strategy.propose(replace(log, space=self.pool), k, rng)


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
    Path(folder).mkdir(parents=True, exist_ok=True)
    config = composed("search", overrides)
    storage = OmegaConf.to_container(config.storage)
    assert isinstance(storage, dict)
    here = str(absolute_path(folder))
    texts = {k: v.replace("${hydra:runtime.output_dir}", here) if isinstance(v, str) else v for k, v in storage.items()}
    OmegaConf.update(config, "storage", texts, merge=False)
    run = Search(config, Path(folder))
    run.start(overrides)
    run.run(progress)
    return run, run.finish()


def whole(name: str, value: Any, least: int) -> int:
    """Return a configured whole number.

    Raises:
        ConfigError: If it is not one, or less than `least`.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{name} is a whole number, at least {least}, but is {value!r}.")
    return value


def _columns(records: Sequence[Record], objectives: Objectives) -> Mapping[str, Any]:
    return {metric: np.array([record.metrics[metric] for record in records]) for metric in objectives.metrics}


def _drop_weights(folder: Path, records: Sequence[Record], keep: Sequence[Record]) -> None:
    """Delete the trained weights of dominated networks, which no later front can hold.

    Of those that are dominated by a predicted figure alone a later measurement may say otherwise: `keep` holds them.
    Slots that are not among the records may be under way elsewhere: their weights stay.
    """
    kept = {record.slot for record in keep}
    for record in records:
        if record.slot not in kept:
            weights_path(folder, record.slot, record.row).unlink(missing_ok=True)
