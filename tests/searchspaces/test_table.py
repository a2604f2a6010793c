from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from searchspaces.arch import ArchBatch
from searchspaces.errors import ArchitectureError, TableError
from searchspaces.genes import JointSpace
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
    pool = table.pool()
    np.testing.assert_array_equal(pool.rows, table.archs.rows)
    known = table.pool(["accuracy", "latency_ms"])
    assert len(known) == 49
    assert not known.is_valid(table.archs.rows[7:8]).any()
    assert np.isfinite(table.lookup(ArchBatch(known, known.rows), "latency_ms")).all()
    with pytest.raises(TableError, match="Did you mean 'latency_ms'"):
        table.pool(["latency"])


def test_a_table_is_read_for_a_pool_as_for_its_base(table: Table, space: NB201, tmp_path: Path) -> None:
    table.save(tmp_path / "t.parquet")
    pool = table.pool(["latency_ms"])
    read = Table.load(tmp_path / "t.parquet", pool)
    assert len(read) == 50
    assert read.positions(ArchBatch(pool, pool.rows[7:9])).tolist() == [8, 9]


def test_pools_are_of_search_spaces(space: NB201) -> None:
    joint = JointSpace(architecture=space)
    table = Table(ArchBatch(joint, space.from_index([1, 2])), {"accuracy": [1, 2]}, COLUMNS[:1])
    with pytest.raises(TableError, match="Only tables of search spaces"):
        table.pool()


def test_a_table_may_be_empty(space: NB201) -> None:
    table = Table(ArchBatch(space, space.from_index([1])[:0]), {"accuracy": []}, COLUMNS[:1])
    assert table.positions(ArchBatch(space, space.from_index([1]))).tolist() == [-1]
    with pytest.raises(ArchitectureError, match="at least two"):
        table.pool()


def test_a_table_by_class_serves_all_rows_of_its_classes(tmp_path: Path) -> None:
    space = NB201(scale="small")
    classes = ArchBatch(space, space.enumerate_classes()[::7])
    figures = np.arange(len(classes), dtype=float)
    Table(classes, {"x": figures}, [Column("x")], by_class=True).save(tmp_path / "t.parquet")
    table = Table.load(tmp_path / "t.parquet", space)
    assert table.by_class
    rows = space.from_index(np.arange(15625))
    known = table.positions(ArchBatch(space, rows)) >= 0
    assert known.sum() > len(classes)
    assert np.array_equal(table.lookup(ArchBatch(space, space.canonical(rows[known])), "x"),
                          table.lookup(ArchBatch(space, rows[known]), "x"))
    assert np.array_equal(table.lookup(classes, "x"), figures)
    with pytest.raises(TableError, match="has no 'x'"):
        table.lookup(ArchBatch(space, rows), "x")


def test_a_table_by_class_has_one_row_per_class() -> None:
    space = NB201(scale="small")
    rows = space.from_index(np.arange(200))
    with pytest.raises(TableError, match="classes stand twice"):
        Table(ArchBatch(space, rows), {"x": np.zeros(200)}, [Column("x")], by_class=True)
    assert not Table(ArchBatch(space, rows), {"x": np.zeros(200)}, [Column("x")]).by_class


def test_a_flipped_bit_is_noticed(tmp_path: Path, table: Table, space: NB201) -> None:
    path = tmp_path / "t.parquet"
    table.save(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 8] ^= 1  # within the figures, which stand first
    path.write_bytes(data)
    with pytest.raises(TableError, match="not a readable Parquet file"):
        Table.load(path, space)


def test_columns_of_two_tables_come_together(table: Table, space: NB201) -> None:
    archs = ArchBatch(space, space.from_index(np.array([60, 3, 2])))
    depths = Table(archs, {"depth": [6.0, 3.0, 2.0]}, [Column("depth")], {"source": "another"}, by_class=False)
    joined = table.joined(depths)
    assert list(joined.columns) == ["accuracy", "latency_ms", "depth"]
    assert joined.column("depth")[[2, 3]].tolist() == [2, 3]
    assert np.isnan(np.delete(joined.column("depth"), [2, 3])).all()
    assert joined.provenance == {"source": "a test", "joined": {"source": "another"}}
    with pytest.raises(TableError, match="Both tables have the columns"):
        joined.joined(depths)
    with pytest.raises(TableError, match="figures of another space"):
        table.joined(Table(ArchBatch(NB201(), archs.rows), {"depth": [1.0, 2.0, 3.0]}, [Column("depth")]))


def test_details_are_kept_for_readers_of_parquet(table: Table, space: NB201, tmp_path: Path) -> None:
    path, samples = tmp_path / "t.parquet", [None, *([float(i)] * i for i in range(1, 50))]
    table.save(path, {"samples": samples, "operators": ["{}"] * 50})
    assert list(Table.load(path, space).columns) == ["accuracy", "latency_ms"]
    assert pq.read_table(path)["samples"].to_pylist() == samples
    with pytest.raises(TableError, match=r"\['accuracy'\] have names of columns"):
        table.save(path, {"accuracy": samples})
