import base64
import csv
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from searchspaces.arch import ArchBatch
from searchspaces.errors import ArchitectureError, TableError
from searchspaces.genes import Rows
from searchspaces.nb101 import NB101
from searchspaces.nb101.dialects import from_hashes, from_matrices, from_naslib, to_naslib
from searchspaces.nb101.tables import read_metrics
from tests.searchspaces.imports import only, source
from tests.searchspaces.tfrecords import double, framed, nested, varint

SPACE = NB101(scale="full")
CELLS = [
    "input|conv3x3-bn-relu~0|conv1x1-bn-relu~0|maxpool3x3~1~2|output~0~3",
    "input|output~0",
    "input|conv3x3-bn-relu~0|maxpool3x3~1|conv3x3-bn-relu~0~2|conv1x1-bn-relu~3|conv3x3-bn-relu~4|output~0~5",
]


@pytest.fixture(scope="module")
def rows() -> Rows:
    return SPACE.canonical(SPACE.parse(CELLS))


# -- notations ---------------------------------------------------------------------------------------------------


def test_sampled_cells_survive_naslib() -> None:
    rows = SPACE.sample(500, np.random.default_rng(0))
    back = from_naslib(to_naslib(rows))
    assert SPACE.keys(back) == SPACE.keys(rows)
    assert SPACE.hashes(back) == SPACE.hashes(rows)


def test_naslib_tuples_are_matrix_and_operations() -> None:
    """NASLib's all_ops is input, output, maxpool3x3, conv1x1-bn-relu, conv3x3-bn-relu."""
    cell = SPACE.parse(["input|conv3x3-bn-relu~0|maxpool3x3~0|output~1~2"])
    expected = (0, 1, 1, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 4, 2, 1)
    assert to_naslib(cell) == [expected]
    assert SPACE.keys(from_naslib([expected])) == SPACE.keys(cell)


@pytest.mark.parametrize("numbers", [(0, 1, 0), (0, 1, 0, 0, 0, 9), (0, 0, 1, 0, 0, 1)])
def test_other_tuples_are_refused(numbers: tuple[int, ...]) -> None:
    with pytest.raises(ArchitectureError, match="NASLib writes|adjacency matrix"):
        from_naslib([numbers])


@pytest.mark.parametrize(
    ("matrix", "operations"),
    [("0101", "input,output"), ("01", "input,output"), ("0x00", "input,output"), ("0100", "output,output")],
)
def test_other_matrices_are_refused(matrix: str, operations: str) -> None:
    with pytest.raises(ArchitectureError, match="adjacency matrix|Operations go from input"):
        from_matrices([matrix], [operations])


def test_rows_are_found_by_hash(rows: Rows) -> None:
    hashes = SPACE.hashes(rows)
    np.testing.assert_array_equal(from_hashes([hashes[2], hashes[0]], rows), rows[[2, 0]])
    with pytest.raises(ArchitectureError, match="1 of 2 hashes are of none of the 1 rows, the first is"):
        from_hashes(hashes[:2], rows[:1])


# -- CSV ---------------------------------------------------------------------------------------------------------


def write_csv(path: Path, rows: Rows, **changed: str) -> Path:
    header = ["hash", "V", "edge_bits", "ops", "val4", "val12", "val36", "val108", "train_time", "params"]
    with gzip.open(path, "wt", newline="") as file:
        writer = csv.DictWriter(file, header)
        writer.writeheader()
        for digest, row in zip(SPACE.hashes(rows), rows, strict=True):
            bits = sum(int(bit) << i for i, bit in enumerate(row[:21]))
            ops = "".join(map(str, row[21:]))
            figures = {"val4": "0.1", "val12": "0.2", "val36": "0.3", "val108": "0.4", "train_time": "99.5"}
            cell = {"hash": digest, "V": 7, "edge_bits": bits, "ops": ops, "params": 2e6}
            writer.writerow({**cell, **figures, **changed})
    return path


def test_csv_sample(tmp_path: Path, rows: Rows) -> None:
    name, table = only(source("nb101_sample", rows=3).tables(write_csv(tmp_path / "t.csv.gz", rows)))
    assert name == "cifar10_accuracy_20k"
    archs = ArchBatch(SPACE, rows)
    assert table.lookup(archs, "valid_acc_36ep").tolist() == [0.3] * 3
    assert table.lookup(archs, "train_time_108ep_s").tolist() == [99.5] * 3
    assert table.lookup(archs, "params_m").tolist() == [2.0] * 3
    units = [table.columns[name].unit for name in ("valid_acc_4ep", "train_time_108ep_s", "params_m")]
    assert units == ["fraction", "s", "1e6"]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"hash": "0" * 32}, "lists cell 1 under the hash 000000.*but its edges and operations have"),
        ({"ops": "00093"}, "is not a table of NAS-Bench-101 cells.*operations '00093'"),
        ({"edge_bits": "many"}, "is not a table of NAS-Bench-101 cells.*'many'"),
        ({"val36": "good"}, "Column 'val36' of .* line 2 has 'good'"),
    ],
)
def test_damaged_records_are_told(tmp_path: Path, rows: Rows, changed: dict[str, str], reason: str) -> None:
    with pytest.raises(TableError, match=reason):
        only(source("nb101_sample", rows=3).tables(write_csv(tmp_path / "t.csv.gz", rows, **changed)))


def test_a_sample_of_another_length_is_refused(tmp_path: Path, rows: Rows) -> None:
    with pytest.raises(TableError, match="a CSV file of 20,000 records .* but has 3"):
        only(source("nb101_sample").tables(write_csv(tmp_path / "t.csv.gz", rows)))


# -- TFRecord ----------------------------------------------------------------------------------------------------


def message(params: int, final: tuple[float, float, float, float]) -> bytes:
    """ModelMetrics: evaluations before, halfway through and after training, parameters, total time."""
    time, train, valid, test = final
    evaluations = [(0.0, 0.1, 0.1, 0.1), (time / 2, train / 2, valid / 2, test / 2), final]
    fields = b""
    for epoch, values in zip((0.0, 54.0, 108.0), evaluations, strict=True):
        figures = b"".join(double(number, value) for number, value in enumerate((epoch, *values), 1))
        fields += nested(1, figures + nested(6, b"model.ckpt"))
    return fields + varint(2 << 3) + varint(params) + double(3, 1234.5)


def record(row: Any, epochs: int, repeat: int, **other: Any) -> bytes:
    (numbers,) = to_naslib(row[None])
    size = round((len(numbers) + 0.25) ** 0.5 - 0.5)
    names = ("input", "output", "maxpool3x3", "conv1x1-bn-relu", "conv3x3-bn-relu")
    params = 1_000_000 * size
    parts = {
        "hash": SPACE.hashes(row[None])[0],
        "epochs": epochs,
        "matrix": "".join(map(str, numbers[:-size])),
        "operations": ",".join(names[number] for number in numbers[-size:]),
        "message": base64.b64encode(message(params, (epochs * 10.0, 0.9, 0.5 + repeat / 10, 0.4))).decode(),
    }
    return json.dumps(list((parts | other).values())).encode()


def records(rows: Rows) -> list[bytes]:
    return [record(row, epochs, repeat) for epochs in (4, 108) for repeat in range(3) for row in rows]


def write(path: Path, contents: list[bytes]) -> Path:
    path.write_bytes(b"".join(map(framed, contents)))
    return path


def test_runs_become_means_and_repeats(tmp_path: Path, rows: Rows) -> None:
    name, table = only(source("nb101_tfrecord", partial=True).tables(write(tmp_path / "n.tfrecord", records(rows))))
    assert name == "nasbench"
    assert SPACE.keys(table.archs.rows) == SPACE.keys(rows)
    np.testing.assert_allclose(table.column("valid_acc_108ep"), 0.6)
    np.testing.assert_allclose(table.column("valid_acc_4ep_repeat2"), 0.7)
    np.testing.assert_allclose(table.column("test_acc_108ep"), 0.4)
    np.testing.assert_allclose(table.column("train_acc_108ep"), 0.9)
    np.testing.assert_allclose(table.column("train_time_4ep_s"), 40)
    np.testing.assert_allclose(table.column("params_m"), [5, 2, 7])
    assert len(table.columns) == 1 + 2 * 4 * 4
    assert (table.columns["train_time_108ep_repeat0_s"].unit, table.columns["test_acc_4ep"].unit) == ("s", "fraction")


def test_a_file_that_lacks_cells_is_refused(tmp_path: Path, rows: Rows) -> None:
    path = write(tmp_path / "n.tfrecord", records(rows))
    with pytest.raises(TableError, match=r"must have 423,624 cells but has 3.*partial=true"):
        only(source("nb101_tfrecord").tables(path))


def test_a_cell_that_lacks_a_run_is_named(tmp_path: Path, rows: Rows) -> None:
    path = write(tmp_path / "n.tfrecord", records(rows)[:-1])
    with pytest.raises(TableError, match=f"3 runs of 108 epochs for each cell, but has 2 for {SPACE.hashes(rows)[2]}"):
        only(source("nb101_tfrecord", partial=True).tables(path))


def test_a_truncated_file_is_told(tmp_path: Path, rows: Rows) -> None:
    path = write(tmp_path / "n.tfrecord", records(rows))
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(TableError, match="n.tfrecord is not a whole TFRecord file: record 17 is damaged"):
        only(source("nb101_tfrecord", partial=True).tables(path))
    with pytest.raises(TableError, match="cannot be read as a TFRecord file: No such file"):
        only(source("nb101_tfrecord", partial=True).tables(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"message": "AA=="}, r"record 0\): it is truncated"),
        ({"message": base64.b64encode(double(1, 0.5)).decode()}, r"record 0\).*lacks its parameters"),
        ({"matrix": "010"}, "adjacency matrix"),
        ({"hash": "f" * 32}, "lists cell 1 under the hash ffff"),
    ],
)
def test_foreign_records_are_told(tmp_path: Path, rows: Rows, other: dict[str, str], reason: str) -> None:
    path = write(tmp_path / "n.tfrecord", [record(rows[0], 108, repeat, **other) for repeat in range(3)])
    with pytest.raises(TableError, match=f"n.tfrecord .*{reason}"):
        only(source("nb101_tfrecord", partial=True).tables(path))


def test_records_that_are_no_runs_are_told(tmp_path: Path) -> None:
    for content in (b"\x00\x01", b"[1, 2]", b"{}"):
        with pytest.raises(TableError, match=r"n.tfrecord is not NAS-Bench-101's TFRecord file \(record 0\)"):
            only(source("nb101_tfrecord", partial=True).tables(write(tmp_path / "n.tfrecord", [content])))


def test_the_last_evaluation_counts() -> None:
    assert read_metrics(message(123_456_789, (1.0, 0.5, 0.25, 0.125))) == (123_456_789, [1.0, 0.5, 0.25, 0.125])


# -- NASLib ------------------------------------------------------------------------------------------------------


def test_naslib_scores(tmp_path: Path, rows: Rows) -> None:
    entries = {str(key): {"synflow": {"score": float(i), "time": 0.1}} for i, key in enumerate(to_naslib(rows))}
    (tmp_path / "zc.json").write_text(json.dumps({"cifar10": entries}))
    name, table = only(source("nb101_naslib").tables(tmp_path / "zc.json"))
    assert name == "naslib_cifar10"
    assert SPACE.keys(table.archs.rows) == SPACE.keys(rows)
    assert table.column("synflow").tolist() == [0, 1, 2]


# -- published files ---------------------------------------------------------------------------------------------


@pytest.mark.data
def test_published_sample(data_dir: Path) -> None:
    name, table = only(source("nb101_sample").tables(data_dir / "nb101" / "cifar10_accuracy_20k.csv.gz"))
    assert (name, len(table)) == ("cifar10_accuracy_20k", 20_000)
    assert len(set(SPACE.keys(table.archs.rows))) == 20_000
    found = from_hashes(["00005c142e6f48ac74fdcf73e3439874"], table.archs.rows[:10])
    assert table.lookup(ArchBatch(SPACE, found), "valid_acc_108ep").tolist() == [0.930489]
