"""Metrics looked up in a table of known results."""

from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nasflow.evaluators.base import Context, Evaluation
from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError, TableError
from searchspaces.files import located
from searchspaces.pool import Pool
from searchspaces.space import SearchSpace
from searchspaces.table import Table

# A column, or columns by fidelity, such as {4: val4, 108: val108}; the largest is the full one.
Source = str | Mapping[float, str]
_OF_SEED = ".seed"  # in the names of columns that a tabulation has per seed
_ANY = np.inf  # the fidelity of a column that serves all


class TableLookup:
    """Metrics from a table, by the architecture's raw row.

    Args:
        space: The search space; the table must be of the same.
        path: The table, a Parquet file; `pkg://PACKAGE/FILE` is one that a package brings along.
        columns: Metric name → the table's column, or its columns by fidelity; when absent, all columns under their own
            names but those of single seeds.
        pool: Whether a search moves only among the architectures whose figures the table holds.
        seconds: Column of the seconds that an evaluation took when the table was made, or such columns by fidelity;
            noted with each trial, as the simulated cost of it.
        content: What the table must hold, as `content` of an earlier instance told; None for anything.

    Attributes:
        pool: The space limited to the table; None where the search is not.
        content: A digest of the rows and of the figures in use.

    Raises:
        TableError: If the table is missing, damaged or of another space, lacks a column, or holds something else than
            `content`.
        ConfigError: If `columns` or `seconds` are malformed, or the column of times is not in seconds.
        ArchitectureError: If a search cannot move among what the table holds.
    """

    cost: Literal["cheap", "expensive"] = "cheap"
    deterministic = True

    def __init__(
        self,
        space: SearchSpace,
        path: str,
        columns: Mapping[str, Source] | None = None,
        pool: bool = False,
        seconds: Source | None = None,
        content: str | None = None,
    ) -> None:
        self.table = Table.load(located(path), space)
        if columns is not None and not isinstance(columns, Mapping):
            raise ConfigError(f"columns of a table map metrics to columns, as in {{accuracy: valid}}, not {columns!r}.")
        wanted = columns or {name: name for name in self.table.columns if _OF_SEED not in name}
        self.columns = {metric: _by_fidelity(metric, source) for metric, source in wanted.items()}
        self.seconds = None if seconds is None else _by_fidelity("seconds", seconds)
        self.provides = tuple(self.columns)
        used = self._used()
        self.content = _digest(self.table, used)
        if content not in (None, self.content):
            raise TableError(
                f"{path} holds other figures than when the study began: it was {content}, and is now {self.content}. "
                "Put the former table back, or start a new study in another folder (hydra.run.dir=FOLDER)."
            )
        self.pool: Pool | None = self.table.pool(used) if pool else None

    def _used(self) -> list[str]:
        """Return the names of the columns in use, once they have been found in the table."""
        times = set((self.seconds or {}).values())
        used = times.union(*(columns.values() for columns in self.columns.values()))
        for name in sorted(used):
            self.table.column(name)
            unit = self.table.columns[name].unit
            if name in times and unit not in ("", "s", "seconds"):
                raise ConfigError(f"seconds takes a column in seconds, but {name!r} is in {unit}: convert it first.")
        return sorted(used)

    def evaluate(self, archs: ArchBatch, context: Context) -> Evaluation:
        """Look the architectures up.

        Raises:
            TableError: If a figure is not known.
            ConfigError: If the table has no columns for the fidelity.
        """
        found = {metric: self._lookup(archs, source, context.fidelity) for metric, source in self.columns.items()}
        if self.seconds is None:
            return Evaluation(found)
        times = self._lookup(archs, self.seconds, context.fidelity)
        return Evaluation(found, [{"seconds": float(time)} for time in times])

    def _lookup(self, archs: ArchBatch, columns: dict[float, str], fidelity: float | None) -> NDArray[np.float64]:
        wanted = max(columns) if fidelity is None or _ANY in columns else fidelity
        if wanted not in columns:
            known = ", ".join(f"{known:g}" for known in sorted(columns))
            raise ConfigError(
                f"Fidelity {fidelity:g} was asked for, but the table's columns are of the fidelities {known}. Let the "
                "strategy use these."
            )
        return self.table.lookup(archs, columns[wanted])


def _by_fidelity(metric: str, source: Any) -> dict[float, str]:
    """Return the columns by fidelity; one column serves every fidelity."""
    columns = {_ANY: source} if isinstance(source, str) else source
    try:
        found = {float(fidelity): name for fidelity, name in columns.items()}
    except (AttributeError, TypeError, ValueError):
        found = {}
    if not found or not all(isinstance(name, str) for name in found.values()):
        raise ConfigError(
            f"{metric} is looked up in a column, such as valid, or in columns by fidelity, such as "
            f"{{4: val4, 108: val108}}, but {source!r} is neither."
        )
    return found


def _digest(table: Table, columns: list[str]) -> str:
    """Describe rows and figures, so that the same table is known again however its file is written."""
    digest = sha256(table.archs.rows.astype("<i8").tobytes())
    for name in columns:
        digest.update(name.encode() + table.column(name).astype("<f8").tobytes())
    return f"{len(table)} rows, sha256 {digest.hexdigest()[:16]}"
