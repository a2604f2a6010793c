"""Zero-cost scores as NASLib computed them (NAS-Bench-Suite-Zero, arXiv 2210.03230)."""

import ast
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from searchspaces.errors import TableError
from searchspaces.genes import Rows
from searchspaces.importing.reading import expecting, read_json
from searchspaces.importing.source import Source
from searchspaces.table import Column, Table

NOTES = "Scores of one seed; -1e8 stands for a score that could not be computed."
_DIRECTIONS: Mapping[str, Literal["maximize", "minimize"]] = {
    "params": "minimize", "flops": "minimize", "val_accuracy": "maximize"
}  # fmt: skip
_EXPECTED = "NASLib's JSON of zero-cost scores: data set, then architecture, then score by name"


def zero_cost_columns(names: Sequence[str]) -> list[Column]:
    """Describe scores; the names and units are NASLib's, and only costs have a direction that is agreed on."""
    return [Column(name, "", _DIRECTIONS.get(name), "NASLib (arXiv 2210.03230)") for name in names]


class NaslibScores(Source):
    """NASLib's `zc_SPACE.json`, with one table for each data set in it.

    A subclass sets `space` and implements `rows`.
    """

    @abstractmethod
    def rows(self, keys: Sequence[tuple[int, ...]]) -> Rows:
        """Return the rows `(n, genes)` of architectures in NASLib's notation.

        Raises:
            ArchitectureError: If a key is no architecture of the space.
        """

    def expand(self, rows: Rows, values: NDArray[np.float64]) -> tuple[Rows, NDArray[np.float64], str]:
        """Return rows `(m, genes)`, their scores `(m, k)`, and notes; here as they are in the file."""
        return rows, values, NOTES

    def tables(self, path: Path) -> Iterator[tuple[str, Table]]:
        """Yield `naslib_DATASET` for each data set; figures that a file has beside the scores are kept too.

        Raises:
            TableError: If the file is damaged, or its keys are not architectures of the space.
        """
        content = read_json(path, _EXPECTED)
        with expecting(path, _EXPECTED):
            for dataset, entries in content.items():
                rows = self.rows([_key(text) for text in entries])
                records = [_record(entry) for entry in entries.values()]
                names = sorted(set().union(*records))
                values = np.array([[record.get(name, np.nan) for name in names] for record in records])
                if not names:
                    raise TableError(f"{path} is not {_EXPECTED}: {dataset!r} has no scores.")
                rows, values, notes = self.expand(rows, values)
                figures = dict(zip(names, values.T, strict=True))
                columns = zero_cost_columns(names)
                yield f"naslib_{dataset.lower().replace('-', '_')}", self.table(rows, figures, columns, [path], notes)


def _key(text: str) -> tuple[int, ...]:
    key = ast.literal_eval(text)
    if not isinstance(key, tuple) or not all(type(number) is int for number in key):
        raise ValueError(f"{text[:60]!r} is not an architecture, written as a tuple of numbers")
    return key


def _record(entry: dict[str, Any]) -> dict[str, float]:
    """Scores by name; they come with the time that they took, or bare."""
    bare = {name: value["score"] if isinstance(value, dict) else value for name, value in entry.items() if name != "id"}
    return {name: float(value) for name, value in bare.items()}
