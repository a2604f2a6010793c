"""`nasflow collect`."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from hydra.core.hydra_config import HydraConfig
from numpy.typing import NDArray
from omegaconf import DictConfig

from devices import Device, latency_column
from nasflow.collection import LEAST_REPEATED, Collection, alone
from nasflow.config import composed, instantiate, plain
from nasflow.environment import environment
from nasflow.figures import task_facts
from nasflow.flow import whole
from nasflow.processes import in_fresh_process
from nasflow.progress import counting
from nasflow.tabulation import distinct
from predictors.choosers import Chooser, Random
from searchspaces.arch import ArchBatch
from searchspaces.errors import ArchitectureError, ConfigError, StudyError
from searchspaces.files import located
from searchspaces.space import SearchSpace
from searchspaces.table import Table
from searchspaces.task import Task

logger = logging.getLogger(__name__)

DATASET = "latencies.parquet"
_DRAWN = 500


def run(config: DictConfig) -> None:
    """Measure architectures on devices, and write the dataset into Hydra's run folder."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    residents = whole("residents", config.residents, 1)
    parts: dict[str, Any] = {
        "settings": {key: plain(config)[key] for key in ("space", "task")},
        "devices": _device_configs(config),
        "max_failure_rate": float(config.max_failure_rate),
        "residents": residents,
    }
    repeated, repeats = whole("noise", config.noise, 0), whole("repeats", config.repeats, 1)
    if 0 < repeated < LEAST_REPEATED:
        raise ConfigError(f"The noise is told from at least {LEAST_REPEATED} models, but noise={repeated}.")
    with alone(folder):
        collection = open_collection(folder, parts)
        archs = choose(config, collection.space, collection.task)
        devices = ", ".join(collection.devices)
        logger.info("Measuring %d architectures of %s on %s.", len(archs), archs.space.name, devices)
        todo = sum(len(collection.missing(archs, name)) for name in collection.devices)
        start = perf_counter()
        with counting("measured") as report:
            collection.run(archs, residents=residents, report=report)
        minutes = (perf_counter() - start) / 60
        failures = collection.failures()
        for failure in failures[:10]:
            logger.warning("Failed: %s", failure)
        facts = {"config": parts["settings"], "failures": len(failures), "environment": environment()}
        facts |= task_facts(collection.task) | {"chooser": plain(config)["chooser"]}
        table, details = collection.table(facts)
        table.save(folder / DATASET, details)
        if repeated:
            _repeat(collection, _to_repeat(table, list(collection.devices), repeated), repeats, parts)
            table, details = open_collection(folder, parts).table(facts)
            table.save(folder / DATASET, details)
    _tell(table, todo / minutes if todo else None)
    print(f"{len(table)} architectures, {len(failures)} measurements failed. Dataset: {folder / DATASET}")


def open_collection(folder: Path, parts: Mapping[str, Any]) -> Collection:
    """Build space, task and devices from plain configurations, and open the collection of a folder.

    Raises:
        ConfigError: If a configuration builds something else.
    """
    space = _built("space", parts["settings"]["space"], SearchSpace)
    task = _built("task", parts["settings"]["task"], Task)
    devices = [_built("device", config, Device) for config in parts["devices"]]
    return Collection(folder, space, task, devices, parts["settings"], parts["max_failure_rate"])


def _built(group: str, config: Mapping[str, Any], kind: type) -> Any:
    part = instantiate(config)
    if not isinstance(part, kind):
        raise ConfigError(f"{group}._target_ must build a {kind.__name__}, but {config['_target_']} does not.")
    return part


def _device_configs(config: DictConfig) -> list[Any]:
    if not config.devices:
        return [plain(config.device)]
    given = [text for text in HydraConfig.get().overrides.task if text.partition("=")[0] != "devices"]
    if any(text.startswith("device=") for text in given):
        raise ConfigError("Give either device=NAME or 'devices=[NAME,NAME]', not both.")
    return [plain(composed("collect", [*given, f"device={name}"]).device) for name in config.devices]


def choose(config: DictConfig, space: SearchSpace, task: Task | None = None) -> ArchBatch:
    """Return architectures of different classes in random order.

    With the random chooser, the first of them are those of a smaller n. Others pick them among candidates, and are
    mixed, for neighbours are measured side by side.

    Raises:
        ConfigError: If a file of architectures is missing or holds fewer than asked for, or a chooser has no choice.
        PredictorError: If the chooser cannot tell the candidates apart, or is asked for more than there are.
    """
    rng = np.random.default_rng(whole("seed", config.seed, 0))
    chooser = instantiate(config.chooser, space=space, task=task)
    if not isinstance(chooser, Chooser):
        raise ConfigError(f"chooser._target_ must build a Chooser, but {config.chooser._target_} does not.")
    if not isinstance(chooser, Random):
        return _chosen(config, space, chooser, rng)
    if config.archs is None:
        if config.n == "all":
            rows = space.enumerate_classes()
            return ArchBatch(space, rows[rng.permutation(len(rows))])
        return distinct(space, _DRAWN if config.n is None else whole("n", config.n, 1), rng)
    chosen = _listed(config, space, rng)
    if config.n in (None, "all"):
        return chosen
    n = whole("n", config.n, 1)
    if n > len(chosen):
        raise ConfigError(
            f"{config.archs} holds {len(chosen)} different architectures, but n={n}: ask for at most these, or leave n "
            "out for all of them."
        )
    return chosen[:n]


def _listed(config: DictConfig, space: SearchSpace, rng: np.random.Generator) -> ArchBatch:
    """Return the architectures of a file, one of each class, in random order."""
    listed = _read_archs(located(str(config.archs)), space)
    first = {key: i for i, key in reversed(list(enumerate(listed.keys())))}
    return listed[rng.permutation(np.sort(np.fromiter(first.values(), dtype=np.int64, count=len(first))))]


def _chosen(config: DictConfig, space: SearchSpace, chooser: Chooser, rng: np.random.Generator) -> ArchBatch:
    if config.n in (None, "all"):
        raise ConfigError(
            f"{type(chooser).__name__} picks n of more architectures, but n is {config.n}: give n=NUMBER, or "
            "chooser=random."
        )
    n = whole("n", config.n, 1)
    if config.archs is not None:
        candidates = _listed(config, space, rng)
    else:
        candidates = _drawn(space, max(whole("candidates", config.candidates, 1), n), rng)
    places = chooser.choose(candidates, n, rng)
    return candidates[np.random.default_rng(0).permutation(places)]


def _drawn(space: SearchSpace, count: int, rng: np.random.Generator) -> ArchBatch:
    """Draw architectures of different classes; all there are where a space has fewer."""
    try:
        return distinct(space, count, rng)
    except StudyError:
        rows = space.enumerate_classes()
        return ArchBatch(space, rows[rng.permutation(len(rows))[:count]])


def _read_archs(path: Path, space: SearchSpace) -> ArchBatch:
    """Read a table's architectures, or a text file with one a line; empty lines and those that begin with # pass."""
    if path.suffix == ".parquet":
        return Table.load(path, space).archs
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"archs={path} cannot be read: {error}. Name a Parquet table, or a text file with one architecture a line."
        ) from error
    rows = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if text and not text.startswith("#"):
            try:
                rows.append(space.parse([text])[0])
            except ArchitectureError as error:
                raise ConfigError(f"Line {number} of {path}: {error}") from error
    if not rows:
        raise ConfigError(f"{path} holds no architectures: give one a line, in the notation of space {space.name!r}.")
    return ArchBatch(space, np.array(rows))


# -- noise -------------------------------------------------------------------------------------------------------------


def _repeat(collection: Collection, archs: ArchBatch, repeats: int, parts: Mapping[str, Any]) -> None:
    """Have architectures measured again, each repetition by a fresh process, as far as that is missing."""
    if len(archs) < LEAST_REPEATED:
        logger.warning("Only %d models were measured on all devices: too few for a report on the noise.", len(archs))
        return
    for repeat in range(1, repeats + 1):
        if any(len(collection.missing(archs, name, repeat)) for name in collection.devices):
            logger.info("Measuring %d models again in a fresh process, %d of %d.", len(archs), repeat, repeats)
            in_fresh_process(measure_again, collection.folder, parts, archs.rows, repeat)


def _to_repeat(table: Table, devices: Sequence[str], count: int) -> ArchBatch:
    """Draw architectures that were measured on all of `devices`, at most `count`."""
    known = ~np.isnan([table.column(latency_column(name)) for name in devices]).any(axis=0)
    return table.archs[np.random.default_rng(0).permutation(np.flatnonzero(known))[:count]]


def measure_again(folder: Path, parts: Mapping[str, Any], rows: NDArray[np.int64], repeat: int) -> None:
    """Measure rows of the space once more, as repetition `repeat`."""
    collection = open_collection(folder, parts)
    collection.run(ArchBatch(collection.space, rows), repeat, parts["residents"])


def _tell(table: Table, pace: float | None) -> None:
    for name, facts in table.provenance["devices"].items():
        figures = table.column(latency_column(name))
        known = figures[~np.isnan(figures)]
        if not len(known):
            print(f"{name}: nothing measured")
            continue
        print(
            f"{name}: {len(known)} models, {known.min():.4g} to {known.max():.4g} ms, median {np.median(known):.4g}; "
            f"spread {facts['spread_percent']:.1f} %, rounds with drift {facts['drifted_rounds']:.1%}"
        )
        for number, report in enumerate(facts["noise"], 1):
            print(f"{name}, measured again ({number}):")
            for line in report["in_words"]:
                print(f"  {line}")
    print("Nothing was left to measure." if pace is None else f"{pace:.0f} models a minute.")
