"""`nasflow score`."""

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table as Shown

from nasflow.config import instantiate, plain
from nasflow.environment import environment
from nasflow.flow import whole
from nasflow.progress import counting
from nasflow.statistics import Correlation, kendall_tau, spearman
from nasflow.tabulation import Parts, Tabulation, distinct
from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError, unknown
from searchspaces.files import located, write_text
from searchspaces.space import SearchSpace
from searchspaces.table import Table

logger = logging.getLogger(__name__)

_LOG_WIDTH = 120
_DECIDING = ("space", "task", "evaluator")
_LEAST = 5


def run(config: DictConfig) -> None:
    """Evaluate architectures, write them as a table into Hydra's run folder, and correlate it with a known one."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    deciding = {key: plain(config)[key] for key in _DECIDING}
    seeds = list(range(whole("seeds", config.seeds, 1)))
    workers = whole("workers", config.workers, 1)
    tabulation = Tabulation(
        folder / "results.jsonl", partial(make_parts, deciding), deciding, float(config.max_failure_rate)
    )
    known = Table.load(located(str(config.table)), tabulation.space) if config.table else None
    if config.columns and known is None:
        raise ConfigError("columns names those of a table to correlate with, but there is none: give table=FILE, too.")
    for name in config.columns or ():  # told before hours of work, not after
        if known is not None and name not in known.columns:
            raise ConfigError(unknown("column of the table", name, known.columns))
    archs = _choose(config, tabulation.space, known)
    logger.info("Evaluating %d architectures of %s under %d seeds.", len(archs), archs.space.name, len(seeds))
    with counting("evaluated") as report:
        tabulation.run(archs, seeds, workers, report)
    failures = tabulation.failures(archs, seeds)
    for failure in failures[:10]:
        logger.warning("Failed: %s", failure)
    provenance = {"config": deciding, "seeds": seeds, "failures": len(failures), "environment": environment()}
    every_class = known is None and config.n == "all"
    table = tabulation.table(archs, seeds, provenance, by_class=every_class)
    table.save(folder / "table.parquet")
    for name, value in table.provenance.get("reliability", {}).items():
        print(f"reliability of the mean {name} of {len(seeds)} seeds: {value:.3f}")
    if known is not None:
        _correlate(table, known, config.columns, folder)
    print(f"{len(table)} architectures, {len(failures)} evaluations failed. Table: {folder / 'table.parquet'}")


def make_parts(config: Mapping[str, Any]) -> Parts:
    """Build the space and the evaluators."""
    task, space = instantiate(config["task"]), instantiate(config["space"])
    if not isinstance(space, SearchSpace):
        raise ConfigError(f"space._target_ must build a SearchSpace, but {config['space']['_target_']} does not.")
    return space, list(instantiate(config["evaluator"], space=space, task=task).values())


def _choose(config: DictConfig, space: SearchSpace, known: Table | None) -> ArchBatch:
    """Return the architectures to evaluate, in an order whose first part is a random sample."""
    rng = np.random.default_rng(whole("seed", config.seed, 0))
    if config.n == "all":
        rows = space.enumerate_classes() if known is None else known.archs.rows
        return ArchBatch(space, rows[rng.permutation(len(rows))])
    n = whole("n", config.n, 1)
    if known is None:
        return distinct(space, n, rng)
    if n > len(known):
        raise ConfigError(f"The table holds {len(known)} architectures, but n={n}: ask for at most these, or n=all.")
    return ArchBatch(space, known.archs.rows[rng.permutation(len(known))[:n]])


def _correlate(table: Table, known: Table, columns: Sequence[str] | None, folder: Path) -> None:
    """Print and store rank correlations between the figures found and the known ones."""
    found: list[dict[str, Any]] = []
    for target in columns or known.columns:
        truth = known.column(target)[known.positions(table.archs)]
        for name in (name for name in table.columns if ".seed" not in name):
            figures = table.column(name)
            both = ~np.isnan(truth) & ~np.isnan(figures)
            if both.sum() < _LEAST:
                logger.warning("%s and %s: only %d common architectures, no correlation.", name, target, both.sum())
                continue
            pair = {"figure": name, "column": target, "n": int(both.sum())}
            found.append(pair | {f.__name__: f(figures[both], truth[both]) for f in (spearman, kendall_tau)})
    _show(found)
    stored = [{key: vars(value) if isinstance(value, Correlation) else value for key, value in entry.items()}
              for entry in found]
    write_text(folder / "correlations.json", json.dumps(stored, indent=1))


def _show(found: Sequence[Mapping[str, Any]]) -> None:
    shown = Shown(title="rank correlations with 95 % confidence intervals")
    for heading in ("figure", "column", "networks", "Spearman", "Kendall tau-b"):
        shown.add_column(heading, no_wrap=True)
    for entry in sorted(found, key=lambda entry: (entry["column"], -abs(entry["spearman"].value))):
        pair = str(entry["spearman"]), str(entry["kendall_tau"])
        shown.add_row(entry["figure"], entry["column"], str(entry["n"]), *pair)
    Console(width=None if sys.stdout.isatty() else _LOG_WIDTH).print(shown)
