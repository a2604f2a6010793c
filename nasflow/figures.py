"""Figures of a table that a predictor learns from, checked where they are latencies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig

from devices import Device, check_latencies, latency_column
from nasflow.config import instantiate
from predictors.base import SourceSamples
from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError, unknown
from searchspaces.files import located
from searchspaces.space import SearchSpace
from searchspaces.table import Table
from searchspaces.task import Task

_LATENCIES = latency_column("")  # what their columns' names end with
_ALL = "all"


@dataclass(frozen=True)
class Figures:
    """What a predictor may learn from.

    Attributes:
        column: Name of the column.
        archs: Architectures whose figure is known, `(n,)`.
        y: Their figures, `(n,)`.
        sources: Figures of other columns.
        target: JSON-able facts on what is learned: `column`, `unit`, `sources`, the task's `input_shape` and `classes`,
            and `device`, with all that the table says of it; None where it says nothing.
    """

    column: str
    archs: ArchBatch
    y: NDArray[np.float64]
    sources: list[SourceSamples]
    target: dict[str, Any]


def read_figures(config: DictConfig, space: SearchSpace, task: Task) -> Figures:
    """Read the column that a configuration of `nasflow fit` names, and the sources.

    Args:
        config: Its `table`; `column`, or the `device` whose latencies are meant; and `sources`.
        space: The space of the table.
        task: What encodings see networks of.

    Raises:
        ConfigError: If no table or column is named, or the latencies are of another task or another device.
        TableError: If the table is of another space or scale, lacks a column, or holds latencies that nothing can be
            learned from.
    """
    given = [key for key in ("column", "device") if config.get(key) is not None]
    if config.table is None or len(given) != 1:
        raise ConfigError(
            "A predictor learns from a table: give table=FILE and column=NAME, or device=NAME for the latencies of a "
            f"device in a dataset of nasflow collect{', but not both' if len(given) == 2 else ''}."
        )
    table = Table.load(located(str(config.table)), space)
    device = None if config.get("device") is None else _device(config.device)
    column = str(config.column) if device is None else latency_column(device.name)
    y = table.column(column)
    sources = _sources(table, column, config.get("sources"))
    latencies = [name for name in (column, *sources) if _is_latency(table, name)]
    if latencies:
        check_latencies(table, latencies)
        check_task(table.provenance, task, str(config.table))
    facts = _device_facts(table, column)
    if device is not None and facts is not None:
        refuse_other_options(facts, device, f"The latencies of {device.name!r} in {config.table}")
    known = ~np.isnan(y)
    target = {"column": column, "unit": table.columns[column].unit, "sources": sources, "device": facts}
    samples = [_samples(table, name) for name in sources]
    return Figures(column, table.archs[np.flatnonzero(known)], y[known], samples, target | task_facts(task))


def _device(config: DictConfig) -> Device:
    device = instantiate(config)
    if not isinstance(device, Device):
        raise ConfigError(f"device._target_ must build a Device, but {config._target_} does not.")
    return device


def _sources(table: Table, column: str, asked: Any) -> list[str]:
    """Return the columns to learn from beside the target's own: all latencies, or those of the devices named."""
    if asked is None:
        return []
    if asked == _ALL:
        found = [name for name in table.columns if name.endswith(_LATENCIES) and name != column]
        if not found:
            raise ConfigError(
                f"sources={_ALL} takes the latencies of the table's other devices, but beside {column!r} it has none. "
                "Collect some with nasflow collect 'devices=[…]', or leave sources out."
            )
        return found
    if isinstance(asked, str):
        raise ConfigError(f"sources is {_ALL}, or a list of devices as in 'sources=[local_int8]', but is {asked!r}.")
    names = [str(name) if str(name) in table.columns else latency_column(str(name)) for name in asked]
    for name, text in zip(names, asked, strict=True):
        if name not in table.columns:
            devices = [column.removesuffix(_LATENCIES) for column in table.columns]
            raise ConfigError(unknown("source", str(text), devices))
    if column in names or len(set(names)) < len(names):
        raise ConfigError(f"Sources are other columns than the target's {column!r}, each named once, but are {names}.")
    return names


def _is_latency(table: Table, name: str) -> bool:
    return "latency" in name or table.columns[name].unit == "ms"


def _samples(table: Table, name: str) -> SourceSamples:
    figures = table.column(name)
    known = np.flatnonzero(~np.isnan(figures))
    return SourceSamples(table.archs[known], figures[known], name)


def _device_facts(table: Table, column: str) -> dict[str, Any] | None:
    devices = table.provenance.get("devices")
    name = column.removesuffix(_LATENCIES)
    facts = devices.get(name) if isinstance(devices, Mapping) else None
    if not isinstance(facts, Mapping):
        return None
    kept = ("options", "identity", "environment", "references_ms")
    return {"name": name, **{key: facts[key] for key in kept if key in facts}}


# -- what latencies are of ---------------------------------------------------------------------------------------------


def task_facts(task: Task) -> dict[str, Any]:
    """Return what of a task decides a network's latency, JSON-able."""
    return {"input_shape": list(task.input_shape), "classes": task.classes}


def check_task(facts: Mapping[str, Any], task: Task, what: str) -> None:
    """See that latencies are of networks for `task`, as far as `facts` tell.

    Raises:
        ConfigError: If they are of networks with another input or another number of classes.
    """
    now = task_facts(task)
    before = {key: facts[key] for key in now if key in facts}
    if any(before[key] != now[key] for key in before):
        told = (", ".join(f"{key} {value}" for key, value in known.items()) for known in (before, now))
        raise ConfigError(
            f"{what} is of networks with {next(told)}, but task {task.name!r} has {next(told)}: these have other "
            "latencies. Give the task that the latencies were collected with, or collect some for this one."
        )


def refuse_other_options(facts: Mapping[str, Any], device: Device, what: str) -> None:
    """See that latencies were measured with the options of `device`, as far as `facts` of the former device tell.

    Raises:
        ConfigError: If an option differs, but for the name.
    """
    before, now = facts.get("options"), device.options
    if not isinstance(before, Mapping):
        return
    changed = [
        f"{key} {before[key]} and not {now[key]}"
        for key in sorted(before.keys() & now.keys() - {"device"})
        if _plain(before[key]) != _plain(now[key])
    ]
    if changed:
        raise ConfigError(
            f"{what} were measured with {', '.join(changed)}: that is another device. Name the device that they are "
            "of, or collect latencies of this one."
        )


def _plain(value: Any) -> Any:
    """JSON knows lists only."""
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
