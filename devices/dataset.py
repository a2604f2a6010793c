"""Latency datasets: tables with a column of latencies for each device."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from searchspaces.errors import TableError
from searchspaces.genes import GeneSpace
from searchspaces.table import Table

UNIT = "ms"
_SUFFIX = "_latency_ms"


def latency_column(device: str) -> str:
    """Return the name of the column that holds a device's latencies."""
    return f"{device}{_SUFFIX}"


def load_latencies(
    path: Path, space: GeneSpace, devices: Sequence[str] | None = None, complete: bool = False
) -> Table:
    """Read a latency dataset of `space` and check it, see `check_latencies`."""
    table = Table.load(path, space)
    columns = None if devices is None else [latency_column(device) for device in devices]
    check_latencies(table, columns, complete)
    return table


def check_latencies(table: Table, columns: Sequence[str] | None = None, complete: bool = False) -> None:
    """Make sure that a table's latencies can be learned from.

    Args:
        table: The table.
        columns: Its latencies, all in ms; those named `DEVICE_latency_ms` when absent.
        complete: Whether every figure must be known.

    Raises:
        TableError: If there are no such columns, one is in another unit, holds a figure that is not above 0 or none at
            all, or if two of them are of the same device.
    """
    names = [name for name in table.columns if name.endswith(_SUFFIX)] if columns is None else list(columns)
    if not names:
        raise TableError(
            f"A latency dataset has columns named DEVICE{_SUFFIX}, but this table has {sorted(table.columns)}. Collect "
            "one with nasflow collect, or name the columns that are latencies."
        )
    for name in names:
        _check_column(table, name, complete)
    _check_devices(table, names)


def _check_column(table: Table, name: str, complete: bool) -> None:
    figures, unit = table.column(name), table.columns[name].unit
    if unit != UNIT:
        raise TableError(
            f"Latencies are in {UNIT}, but column {name!r} is in {unit or 'no unit'}. Convert the figures and name the "
            "unit in the column's description."
        )
    unknown = np.isnan(figures)
    if unknown.all() or (complete and unknown.any()):
        text = "" if unknown.all() else f", the first of {table.archs[int(np.argmax(unknown))].format()[0]}"
        raise TableError(
            f"Column {name!r} lacks {unknown.sum()} of {len(figures)} latencies{text}. Give the command that collected "
            "it again: it measures what is missing."
        )
    wrong = ~unknown & ~((figures > 0) & np.isfinite(figures))
    if wrong.any():
        first = int(np.argmax(wrong))
        raise TableError(
            f"Latencies are finite and above 0, but {wrong.sum()} of column {name!r} are not: "
            f"{table.archs[first].format()[0]} has {figures[first]:g} {UNIT}. Remove these figures, or measure again."
        )


def _check_devices(table: Table, names: Sequence[str]) -> None:
    facts = table.provenance.get("devices")
    identities = {
        latency_column(device): fact.get("identity")
        for device, fact in (facts.items() if isinstance(facts, dict) else ())
        if isinstance(fact, dict)
    }
    for first, second in itertools.combinations(names, 2):
        a, b = table.column(first), table.column(second)
        same = identities.get(first) is not None and identities.get(first) == identities.get(second)
        if same or np.array_equal(a, b, equal_nan=True):
            why = "were measured with the same options on the same machine" if same else "hold the same figures"
            raise TableError(
                f"Columns {first!r} and {second!r} {why}: one device stands there under two names, and what is learned "
                "from one would be tested on itself. Leave one of them out."
            )
