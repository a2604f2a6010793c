"""Metrics looked up in a table of known results."""

from pathlib import Path
from typing import Literal

from nasflow.evaluators.base import Context, Evaluation
from searchspaces.arch import ArchBatch
from searchspaces.space import SearchSpace
from searchspaces.table import Table


class TableLookup:
    """Metrics from a table, by the architecture's raw row.

    Args:
        space: The search space; the table must be of the same.
        path: The table, a Parquet file.
        columns: Metric name → the table's column; all columns under their own names when absent.

    Raises:
        TableError: If the table is missing, damaged or of another space, or lacks a column.
    """

    cost: Literal["cheap", "expensive"] = "cheap"
    deterministic = True

    def __init__(self, space: SearchSpace, path: str, columns: dict[str, str] | None = None) -> None:
        self.table = Table.load(Path(path), space)
        self.columns = dict(columns) if columns else {name: name for name in self.table.columns}
        for name in self.columns.values():
            self.table.column(name)
        self.provides = tuple(self.columns)

    def evaluate(self, archs: ArchBatch, context: Context) -> Evaluation:
        """Look the architectures up.

        Raises:
            TableError: If a figure is not known.
        """
        return Evaluation({metric: self.table.lookup(archs, name) for metric, name in self.columns.items()})
