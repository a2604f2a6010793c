"""Published tables of NAS-Bench-201 (arXiv 2001.00326)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from searchspaces.errors import TableError
from searchspaces.genes import Rows
from searchspaces.importing.help_latencies import read_latencies
from searchspaces.importing.reading import expecting, numbers, read_csv, read_torch
from searchspaces.importing.source import Source, existing_folder
from searchspaces.importing.zero_cost import NOTES, NaslibScores
from searchspaces.nb201.dialects import from_naslib, without_dead
from searchspaces.nb201.space import CELLS, NB201
from searchspaces.table import Column, Table

SPACE = NB201(scale="full")
EXPANDED = "Cells with dead operations have the scores of the cell without them, which is the same network."


@dataclass(frozen=True, kw_only=True)
class CsvFigures(Source):
    """Figures in a CSV file with the columns `index` and `arch`: official indices and arch strings.

    Attributes:
        table_name: Name of the table.
        rows: Number of records.
        columns: Unit and direction by column, `[unit, direction]`.
        note: What a user of the figures must know.
    """

    space = SPACE
    table_name: str
    rows: int
    columns: Mapping[str, tuple[str, Literal["maximize", "minimize"] | None]]
    note: str = ""

    def tables(self, path: Path) -> Iterator[tuple[str, Table]]:
        """Yield the one table.

        Raises:
            TableError: If the file is damaged or another one, or index and arch string contradict each other.
        """
        rows, values = self._read(path)
        yield self.table_name, self.table(rows, values, self._described(), [path], self.note)

    def _described(self) -> list[Column]:
        columns = self.columns.items()
        return [Column(name, unit, direction, self.title) for name, (unit, direction) in columns]

    def _read(self, path: Path) -> tuple[Rows, dict[str, NDArray[np.float64]]]:
        records = read_csv(path, ["index", "arch", *self.columns], self.rows)
        with expecting(path, "a table of NAS-Bench-201 cells"):
            rows = SPACE.parse(records["arch"])
        wrong = np.flatnonzero(SPACE.index(rows) != numbers(path, "index", records["index"]))
        if len(wrong):
            at = int(wrong[0])
            index, arch, official = records["index"][at], records["arch"][at], SPACE.index(rows[at : at + 1])[0]
            raise TableError(
                f"{path} gives in line {at + 2} the index {index} to {arch}, whose official index is {official}: the "
                "file is damaged or in another order."
            )
        return rows, {name: numbers(path, name, records[name]) for name in self.columns}


def expand(rows: Rows, values: NDArray[np.float64]) -> tuple[Rows, NDArray[np.float64]]:
    """Spread figures to all cells that are the same network once dead operations are dropped.

    A cell that is in the table keeps its own figures, the others take those of the cell without dead operations; cells
    for which neither is there are left out. This is finer than the canonical class, whose cells can differ in
    parameters.

    Args:
        rows: Cells with known figures, `(n, 6)`.
        values: Their figures, `(n, k)`.

    Returns:
        Rows `(m, 6)` in official order, and their figures `(m, k)`.
    """
    everything = SPACE.from_index(np.arange(CELLS))
    position = np.full(CELLS, -1)
    position[SPACE.index(rows)] = np.arange(len(rows))
    pruned = position[SPACE.index(without_dead(everything))]
    position = np.where(position >= 0, position, pruned)
    known = position >= 0
    return everything[known], values[position[known]]


class CsvScores(CsvFigures):
    """Zero-cost scores in a CSV file, spread to all cells by `expand`."""

    def tables(self, path: Path) -> Iterator[tuple[str, Table]]:
        """Yield the one table, with a row for each of the 15,625 cells."""
        rows, values = self._read(path)
        rows, expanded = expand(rows, np.stack(list(values.values()), axis=1))
        figures = dict(zip(values, expanded.T, strict=True))
        yield self.table_name, self.table(rows, figures, self._described(), [path], f"{NOTES} {EXPANDED}")


class JsonScores(NaslibScores):
    """NASLib's `zc_nasbench201.json`."""

    space = SPACE

    def rows(self, keys: Sequence[tuple[int, ...]]) -> Rows:
        """Read NASLib's operation numbers."""
        return from_naslib(keys)

    def expand(self, rows: Rows, values: NDArray[np.float64]) -> tuple[Rows, NDArray[np.float64], str]:
        """Spread the scores to all cells that are the same network."""
        rows, values = expand(rows, values)
        return rows, values, f"{NOTES} {EXPANDED}"


class HelpLatencies(Source):
    """HELP's `data/nasbench201`: `latency/DEVICE.pt`, and `str_arch2idx.pt` with the order of the cells."""

    space = SPACE

    def tables(self, path: Path) -> Iterator[tuple[str, Table]]:
        """Yield `help_latency`, with a column for each device.

        Raises:
            TableError: If a file is missing or damaged, or the order is not over all cells.
        """
        existing_folder(path, self.files)
        order = path / "str_arch2idx.pt"
        expected = f"a mapping of all {CELLS:,} arch strings to their numbers, saved by torch"
        with expecting(order, expected):
            number = read_torch(order, expected)
            rows = SPACE.parse(sorted(number, key=number.__getitem__))
        if sorted(number.values()) != list(range(CELLS)) or len(np.unique(SPACE.index(rows))) != CELLS:
            raise TableError(f"{order} must be {expected}, but has {len(number):,} entries, or some of them twice.")
        values, columns, paths = read_latencies(path / "latency", CELLS)
        yield "help_latency", self.table(rows, values, columns, [order, *paths], "Phones are measured in whole ms.")
