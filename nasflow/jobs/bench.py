"""`nasflow bench`."""

import json
import logging
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from nasflow.config import instantiate
from nasflow.environment import environment
from nasflow.flow import whole
from nasflow.suites import Cell, Comparison, Row, Suite, UnavailableError, cells
from searchspaces.errors import ConfigError, unknown
from searchspaces.files import write_text

logger = logging.getLogger(__name__)

_LOG_WIDTH = 240  # wide enough for published sources; a log wraps no line


def run(config: DictConfig) -> None:
    """Run a suite, or a part of it, and write `results.json` into Hydra's run folder.

    A method that lacks an optional package is told and left out.

    Raises:
        ConfigError: If the suite, a task or a method is unknown, or no method can run here.
    """
    suite = instantiate(config.suite)
    if not isinstance(suite, Suite):
        raise ConfigError(f"suite._target_ must build a Suite, but {config.suite._target_} does not.")
    folder = Path(HydraConfig.get().runtime.output_dir)
    tasks = _part("task", config.tasks, suite.tasks)
    methods = _part("method", config.methods, suite.methods)
    seeds = suite.seeds if config.seeds is None else whole("seeds", config.seeds, 1)
    todo = list(cells(suite, tasks, methods, seeds))
    results = {}
    missing: dict[str, str] = {}
    for i, cell in enumerate(todo, 1):
        if cell.method in missing:
            continue
        try:
            results[cell] = run_cell(suite, cell, folder / "cache")
        except UnavailableError as error:
            missing[cell.method] = str(error)
            logger.warning("Left out: %s", error)
            continue
        logger.info("%d/%d %s %s seed %d", i, len(todo), cell.task, cell.method, cell.seed)
    if missing and not results:
        raise ConfigError(" ".join(missing.values()))
    rows = summarise(results)
    if isinstance(suite, Comparison):
        rows += suite.summary({cell: result["metrics"] for cell, result in results.items()})
    rows += [row for row in suite.published if row.task in tasks]
    document = {"suite": suite.name, "environment": environment(), "rows": [asdict(row) for row in rows]}
    write_text(folder / "results.json", json.dumps(document, indent=1))
    show(suite.name, rows)
    print(f"Results: {folder / 'results.json'}")


def _part(kind: str, asked: Sequence[str] | None, known: Sequence[str]) -> Sequence[str]:
    for name in asked or ():
        if name not in known:
            raise ConfigError(unknown(kind, name, known))
    return [name for name in known if name in asked] if asked else known


def run_cell(suite: Suite, cell: Cell, cache: Path) -> Mapping[str, Any]:
    """Return a cell's `metrics` and `seconds`, from the cache where it has run before.

    A cell's file is named by a digest of all that decides its result, and written in one step; a damaged one is run
    again.
    """
    settings = dict(suite.settings()) | (dict(suite.cell_settings(cell)) if isinstance(suite, Comparison) else {})
    identity = {"suite": suite.name, "version": suite.version, "settings": settings, **asdict(cell)}
    path = cache / f"{sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:24]}.json"
    if path.exists():
        try:
            stored: Mapping[str, Any] = json.loads(path.read_text())["result"]
            if stored["metrics"]:
                return stored
        except (ValueError, KeyError):
            logger.warning("%s is damaged: this cell runs again.", path)
    start = time.perf_counter()
    metrics = dict(suite.run(cell))
    result = {"metrics": metrics, "seconds": time.perf_counter() - start}
    if not metrics:  # which cells a suite passes over is no part of their settings
        return result
    cache.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({"cell": identity, "result": result}))
    return result


def summarise(results: Mapping[Cell, Mapping[str, Any]]) -> list[Row]:
    """Average the cells' metrics over seeds."""
    groups: dict[tuple[str, str, int], dict[int, Mapping[str, Any]]] = defaultdict(dict)
    for cell, result in results.items():
        if result["metrics"]:  # a suite passes over cells that make no sense
            groups[cell.task, cell.method, cell.samples][cell.seed] = result
    rows = []
    for (task, method, samples), by_seed in groups.items():
        seconds = float(np.mean([result["seconds"] for result in by_seed.values()]))
        for metric in next(iter(by_seed.values()))["metrics"]:
            values = [result["metrics"][metric] for result in by_seed.values()]
            std = float(np.std(values, ddof=1)) if len(values) > 1 else None
            seeds = sorted(by_seed)
            rows.append(Row(task, method, samples, metric, float(np.mean(values)), std, seeds, seconds, "measured"))
    return rows


def show(name: str, rows: Sequence[Row]) -> None:
    """Print the results as a table."""
    table = Table(title=name)
    for heading in ("task", "method", "samples", "metric", "mean", "std", "seeds", "source"):
        numeric = heading in ("mean", "std", "samples", "seeds")
        table.add_column(heading, justify="right" if numeric else "left", no_wrap=heading != "source")
    for row in rows:
        std = "" if row.std is None else f"{row.std:.3g}"
        figures = f"{row.mean:.4g}", std, str(len(row.seeds) or "")
        table.add_row(row.task, row.method, str(row.samples or ""), row.metric, *figures, row.source)
    Console(width=None if sys.stdout.isatty() else _LOG_WIDTH).print(table)
