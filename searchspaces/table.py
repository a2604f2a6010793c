"""Tables of results: architectures × named columns, stored as Parquet.

One reader serves published benchmark tables, latency datasets and nasflow's own results.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from searchspaces.arch import ArchBatch
from searchspaces.errors import TableError, unknown
from searchspaces.files import replacing
from searchspaces.genes import GeneSpace, Rows
from searchspaces.pool import Pool, RowIndex
from searchspaces.space import SearchSpace

SCHEMA_VERSION = 1
_GENE = "gene."
_META = b"nasflow"


@dataclass(frozen=True)
class Column:
    """What a column means.

    Attributes:
        name: With its unit, such as `latency_ms`.
        unit: The unit in words or signs; empty for plain numbers.
        direction: Which way is better, if any.
        provenance: Where the figures come from: publication, device, command.
    """

    name: str
    unit: str = ""
    direction: Literal["maximize", "minimize"] | None = None
    provenance: str = ""


class Table:
    """Figures of distinct architectures of one space; NaN stands for a figure that is not known.

    Args:
        archs: The architectures, no row twice.
        values: Figures by column name, each of shape `(n,)`.
        columns: Descriptions of all columns in `values`.
        provenance: JSON-able facts on the whole table: source, licence, versions, command.
        by_class: Whether a figure holds for all rows of the architecture's canonical class. Published figures differ
            within a class; those of networks that were built from one row per class do not.

    Raises:
        TableError: If shapes do not fit, a column is not described, or a row (or class) stands twice.
    """

    def __init__(
        self,
        archs: ArchBatch,
        values: Mapping[str, Any],
        columns: Sequence[Column],
        provenance: Mapping[str, Any] | None = None,
        by_class: bool = False,
    ) -> None:
        self.archs = archs
        self.by_class = by_class
        self.columns = {column.name: column for column in columns}
        self.values = {name: np.asarray(array, dtype=np.float64) for name, array in values.items()}
        self.provenance = dict(provenance or {})
        if set(self.columns) != set(self.values):
            raise TableError(
                f"Every column needs figures and a description, but only one of them exists for "
                f"{sorted(set(self.columns) ^ set(self.values))}."
            )
        for name, array in self.values.items():
            if array.shape != (len(archs),):
                raise TableError(f"Column {name!r} must have shape ({len(archs)},) but has {array.shape}.")
        self._index = RowIndex(self._named(archs.rows))
        if self._index.repeated:
            what = "classes" if by_class else "rows"
            raise TableError(f"{self._index.repeated} {what} stand twice; average or drop the repetitions.")

    def __len__(self) -> int:
        return len(self.archs)

    def column(self, name: str) -> NDArray[np.float64]:
        """Return a column of shape `(n,)`, NaN where a figure is not known.

        Raises:
            TableError: If there is no such column.
        """
        if name not in self.values:
            raise TableError(unknown("column", name, self.values))
        return self.values[name]

    def positions(self, archs: ArchBatch) -> NDArray[np.int64]:
        """Return the table's row number of each architecture, by raw row or by class; -1 for those not in the table."""
        self.check_space(archs.space)
        return self._index.positions(self._named(archs.rows))

    def _named(self, rows: Rows) -> Rows:
        """Return the rows by which the table knows architectures."""
        return self.archs.space.canonical(rows) if self.by_class else rows

    def lookup(self, archs: ArchBatch, name: str) -> NDArray[np.float64]:
        """Return the figures of `archs` in column `name`, shape `(n,)`.

        Raises:
            TableError: If a figure is not known.
        """
        column = self.column(name)
        positions = self.positions(archs)
        known = (positions >= 0) & ~np.isnan(column[np.maximum(positions, 0)]) if len(column) else positions >= 0
        if not known.all():
            first = archs[int(np.argmin(known))].format()[0]
            raise TableError(
                f"The table has no {name!r} for {np.sum(~known)} of {len(archs)} architectures, the first is {first}. "
                "Ask only for architectures that it holds (a search does so with evaluator.table.pool=true), or import "
                "the complete table."
            )
        return column[positions]

    def check_space(self, space: GeneSpace) -> None:
        """Raise a `TableError` unless the table is of `space`, at the same scale."""
        if space.fingerprint != self.archs.space.fingerprint:
            raise TableError(
                f"The table is of {self.archs.space.fingerprint}, but it was asked about {space.fingerprint}: figures "
                "of another space or scale do not carry over. Choose the space and scale that the table was made with."
            )

    def save(self, path: Path, details: Mapping[str, Any] | None = None) -> None:
        """Write the table as Parquet; a former file is replaced in one step.

        Args:
            path: The file.
            details: Further columns of any type, one entry per architecture, for readers of Parquet: raw samples,
                say. `load` leaves them out.

        Raises:
            TableError: If one of `details` has the name of a column.
        """
        both = sorted(set(details or ()) & set(self.columns))
        if both:
            raise TableError(f"The details {both} have names of columns; give them others.")
        arrays: dict[str, Any] = {
            f"{_GENE}{gene.name}": self.archs.rows[:, i].astype(np.int16)
            for i, gene in enumerate(self.archs.space.genes)
        }
        arrays |= self.values | dict(details or {})
        meta = {
            "schema": SCHEMA_VERSION,
            "space": self.archs.space.fingerprint,
            "columns": [asdict(column) for column in self.columns.values()],
            "provenance": self.provenance,
            "by_class": self.by_class,
        }
        table = pa.table(arrays).replace_schema_metadata({_META: json.dumps(meta).encode()})
        with replacing(path) as partial:
            pq.write_table(table, partial, compression="zstd", write_page_checksum=True)

    @classmethod
    def load(cls, path: Path, space: GeneSpace) -> "Table":
        """Read a table of `space`; of a pool, the table of its base.

        Raises:
            TableError: If the file is missing, damaged, no nasflow table, or of another space or schema.
        """
        space = space.base if isinstance(space, Pool) else space
        meta, data = _read(path)
        if meta["space"] != space.fingerprint:
            raise TableError(
                f"{path} holds architectures of {meta['space']}, not of {space.fingerprint}. Choose the space and "
                "scale that the table was made with."
            )
        expected = [f"{_GENE}{gene.name}" for gene in space.genes] + [column["name"] for column in meta["columns"]]
        missing = sorted(set(expected) - set(data.column_names))
        if missing:
            raise TableError(f"{path} lacks the columns {missing} that its description names. Import it again.")
        rows = np.stack([data[f"{_GENE}{gene.name}"].to_numpy() for gene in space.genes], axis=1).astype(np.int64)
        columns = [Column(**column) for column in meta["columns"]]
        values = {column.name: data[column.name].to_numpy() for column in columns}
        return cls(ArchBatch(space, rows), values, columns, meta["provenance"], meta["by_class"])

    def joined(self, other: "Table") -> "Table":
        """Return this table with the columns of another one beside its own; NaN where that one has no figure.

        Raises:
            TableError: If the other one is of another space, or both have a column of one name.
        """
        both = sorted(set(self.columns) & set(other.columns))
        if both:
            raise TableError(f"Both tables have the columns {both}; leave them out of one of them.")
        positions = other.positions(self.archs)
        found = {name: np.where(positions >= 0, figures[positions], np.nan) for name, figures in other.values.items()}
        columns = [*self.columns.values(), *other.columns.values()]
        provenance = self.provenance | {"joined": other.provenance}
        return Table(self.archs, self.values | found, columns, provenance, self.by_class)

    def pool(self, columns: Sequence[str] | None = None) -> Pool:
        """Return the space limited to what the table holds, so that a search asks for nothing else.

        Args:
            columns: Architectures whose figure in any of them is not known are left out.

        Raises:
            TableError: If there is no such column, or the table is not of a search space.
            ArchitectureError: If fewer than two architectures that build different networks are left.
        """
        space = self.archs.space
        if not isinstance(space, SearchSpace):
            raise TableError(f"Only tables of search spaces make a pool, but {space.name!r} is none.")
        known = np.ones(len(self), dtype=np.bool_)
        for name in columns or ():
            known &= ~np.isnan(self.column(name))
        return Pool(space, self.archs.rows[known])


def _read(path: Path) -> tuple[dict[str, Any], Any]:
    if not path.is_file():
        raise TableError(f"There is no table {path}. Check the path, or import the table first.")
    try:
        data = pq.read_table(path, page_checksum_verification=True)
    except (pa.ArrowInvalid, OSError) as error:
        raise TableError(f"{path} is not a readable Parquet file ({error}). Import or download it again.") from error
    raw = (data.schema.metadata or {}).get(_META)
    if raw is None:
        raise TableError(f"{path} is a Parquet file but not a nasflow table: it lacks the description of its columns.")
    try:
        meta = json.loads(raw)
        by_class = bool(meta.get("by_class"))  # tables of the first version do not tell
        meta = {key: meta[key] for key in ("schema", "space", "columns", "provenance")} | {"by_class": by_class}
    except (ValueError, KeyError, TypeError) as error:
        raise TableError(f"{path} has a damaged description of its columns ({error}). Import it again.") from error
    if meta["schema"] != SCHEMA_VERSION:
        raise TableError(
            f"{path} has table schema {meta['schema']}, but this version of nasflow reads {SCHEMA_VERSION}. Import it "
            "again."
        )
    return meta, data
