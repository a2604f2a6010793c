from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from searchspaces.arch import ArchBatch
from searchspaces.errors import TableError
from searchspaces.nb201 import NB201
from searchspaces.table import Column, Table

COLUMNS = [
    Column("accuracy", "share", "maximize", "training"),
    Column("latency_ms", "ms", "minimize", "device local"),
]


@pytest.fixture
def space() -> NB201:
    return NB201(scale="small")


@pytest.fixture
def table(space: NB201) -> Table:
    archs = ArchBatch(space, space.from_index(np.arange(50)))
    latency = np.linspace(1, 2, 50)
    latency[7] = np.nan
    return Table(archs, {"accuracy": np.linspace(0, 1, 50), "latency_ms": latency}, COLUMNS, {"source": "a test"})


def test_round_trip_keeps_rows_figures_and_descriptions(table: Table, space: NB201, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "table.parquet"
    table.save(path)
    read = Table.load(path, space)
    assert (read.archs.rows == table.archs.rows).all()
    assert read.columns == table.columns
    assert read.provenance == {"source": "a test"}
    np.testing.assert_array_equal(read.column("latency_ms"), table.column("latency_ms"))
    assert [entry.name for entry in path.parent.iterdir()] == ["table.parquet"]


def test_lookup_takes_the_raw_row_and_keeps_the_order(table: Table, space: NB201) -> None:
    order = np.array([31, 2, 2, 40])
    archs = ArchBatch(space, space.from_index(order))
    np.testing.assert_allclose(table.lookup(archs, "accuracy"), table.column("accuracy")[order])
    assert table.positions(archs).tolist() == order.tolist()


@pytest.mark.parametrize("index", [7, 60])
def test_missing_figures_raise_and_are_never_made_up(table: Table, space: NB201, index: int) -> None:
    archs = ArchBatch(space, space.from_index([1, index]))
    with pytest.raises(TableError, match=r"no 'latency_ms' for 1 of 2 architectures, the first is \|"):
        table.lookup(archs, "latency_ms")


def test_unknown_column_is_named(table: Table) -> None:
    with pytest.raises(TableError, match="Did you mean 'latency_ms'"):
        table.column("latency")


def test_another_scale_is_refused(table: Table, tmp_path: Path) -> None:
    full = NB201(scale="full")
    with pytest.raises(TableError, match="another space or scale"):
        table.lookup(ArchBatch(full, full.from_index([1])), "accuracy")
    table.save(tmp_path / "t.parquet")
    with pytest.raises(TableError, match="Choose the space and scale"):
        Table.load(tmp_path / "t.parquet", full)


def test_repeated_rows_and_missing_descriptions_are_refused(space: NB201) -> None:
    archs = ArchBatch(space, space.from_index([1, 1]))
    with pytest.raises(TableError, match="1 rows stand twice"):
        Table(archs, {"accuracy": [1, 2]}, COLUMNS[:1])
    with pytest.raises(TableError, match="latency_ms"):
        Table(archs[:1], {"accuracy": [1]}, COLUMNS)
    with pytest.raises(TableError, match="shape"):
        Table(archs[:1], {"accuracy": [1, 2]}, COLUMNS[:1])


def test_missing_truncated_and_foreign_files_are_told_apart(table: Table, space: NB201, tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    with pytest.raises(TableError, match="There is no table"):
        Table.load(path, space)
    table.save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(TableError, match="not a readable Parquet file"):
        Table.load(path, space)
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(TableError, match="not a nasflow table"):
        Table.load(path, space)


def test_pool_is_what_the_table_holds(table: Table) -> None:
    assert table.pool().shape == (50, 6)
