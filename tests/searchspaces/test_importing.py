import bz2
import gzip
import io
import json
import os
import pickle
import struct
from collections import OrderedDict
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch

from searchspaces.arch import ArchBatch
from searchspaces.errors import ArchitectureError, TableError
from searchspaces.importing import Source, content_digest
from searchspaces.importing.help_latencies import read_latencies
from searchspaces.importing.pickles import read_pickle
from searchspaces.importing.reading import expecting, numbers, read_csv, read_json, read_torch
from searchspaces.importing.tfrecord import masked_crc32c, read_fields, read_records
from searchspaces.nb201 import NB201
from searchspaces.table import Column, Table
from tests.searchspaces.imports import Hostile
from tests.searchspaces.tfrecords import crc32c, framed, masked

# -- CSV ---------------------------------------------------------------------------------------------------------


def write_csv(path: Path, text: str) -> Path:
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
def test_csv_columns_are_read(tmp_path: Path, name: str) -> None:
    path = write_csv(tmp_path / name, "a,b\n1,x\n,y\n")
    records = read_csv(path, ["a", "b"], 2)
    assert records == {"a": ["1", ""], "b": ["x", "y"]}
    np.testing.assert_array_equal(numbers(path, "a", records["a"]), [1, np.nan])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,c\n1,x\n2,y\n", "must be a CSV file of 2 records with the columns a, b, but its first line is 'a,c'"),
        ("a,b\n1,x\n2\n", "line 3 has 1 entries"),
        ("a,b\n1,x\n", "but has 1: it is truncated"),
        ("", "its first line is ''"),
    ],
)
def test_another_csv_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = write_csv(tmp_path / "t.csv", text)
    with pytest.raises(TableError, match=message) as caught:
        read_csv(path, ["a", "b"], 2)
    assert str(path) in str(caught.value)


def test_a_truncated_gzip_is_told(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv.gz", "a,b\n" + "".join(f"{i},{i * i}\n" for i in range(500)))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(TableError, match="t.csv.gz is not a CSV file of 500 records.*truncated.*end-of-stream"):
        read_csv(path, ["a", "b"], 500)


@pytest.mark.parametrize("entry", ["x", "nan", "inf"])
def test_entries_that_are_no_numbers_are_named_by_line(tmp_path: Path, entry: str) -> None:
    with pytest.raises(TableError, match=f"Column 'a' of .* line 3 has '{entry}'"):
        numbers(tmp_path / "t.csv", "a", ["1", entry])


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="There is no file .*t.csv. Expected is a CSV file"):
        read_csv(tmp_path / "t.csv", ["a"], 1)


# -- JSON and torch ----------------------------------------------------------------------------------------------


def test_truncated_json_is_told(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text(json.dumps({"a": list(range(100))})[:-20])
    with pytest.raises(TableError, match="t.json is not scores: it is truncated"):
        read_json(path, "scores")


def test_torch_files_are_read_and_truncated_ones_told(tmp_path: Path) -> None:
    path = tmp_path / "t.pt"
    torch.save([1.5, 2.5], path)
    assert read_torch(path, "numbers") == [1.5, 2.5]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(TableError, match="t.pt is not numbers: it is truncated"):
        read_torch(path, "numbers")


def test_hostile_torch_files_are_refused_without_bad_advice(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    torch.save([Hostile(mark)], tmp_path / "t.pt")
    with pytest.raises(TableError, match="refused because such a file can run any code") as caught:
        read_torch(tmp_path / "t.pt", "numbers")
    assert "weights_only" not in str(caught.value)
    assert not mark.exists()


def test_latencies_of_a_folder(tmp_path: Path) -> None:
    torch.save([1.0, 2.0, 3.0], tmp_path / "pixel3.pt")
    torch.save([4.0, 5.0, 6.0], tmp_path / "fpga.pt")
    values, columns, paths = read_latencies(tmp_path, 3)
    assert [(column.name, column.unit, column.direction) for column in columns] == [
        ("fpga_latency_ms", "ms", "minimize"),
        ("pixel3_latency_ms", "ms", "minimize"),
    ]
    assert values["pixel3_latency_ms"].tolist() == [1, 2, 3]
    assert [path.name for path in paths] == ["fpga.pt", "pixel3.pt"]


@pytest.mark.parametrize("content", [[1.0, 2.0], [1.0, 0.0, 3.0], [1.0, float("nan"), 3.0], {"a": 1}, ["x"] * 3])
def test_latencies_of_another_number_or_kind_are_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "fpga.pt")
    with pytest.raises(TableError, match="fpga.pt .*a list of 3 latencies in ms"):
        read_latencies(tmp_path, 3)


def test_a_folder_without_latencies_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="has no files DEVICE.pt"):
        read_latencies(tmp_path, 3)


# -- pickles -----------------------------------------------------------------------------------------------------

PLAIN = {
    "containers": OrderedDict(a=[1, 2.5, None, True], b=("x", b"y", {3})),
    "scalars": [np.float64(0.25), np.float32(0.5), np.int64(-7), np.bool_(True)],
}
ARRAYS = {
    "c": np.arange(6, dtype=np.float32).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "big": np.arange(3, dtype=">i4"),
    "text": np.array(["ab", "c"]),
    "objects": np.array([{"k": 1}, None], dtype=object),
}


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("packed", [False, True])
def test_plain_pickles_are_read(tmp_path: Path, protocol: int, packed: bool) -> None:
    content = pickle.dumps(PLAIN | ARRAYS, protocol)
    path = tmp_path / ("t.pickle.pbz2" if packed else "t.pickle")
    path.write_bytes(bz2.compress(content) if packed else content)
    read = read_pickle(path, "a table")
    assert read["containers"] == PLAIN["containers"]
    assert read["scalars"] == [0.25, 0.5, -7, True]
    assert [type(value) for value in read["scalars"]] == [float, float, int, bool]
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(np.asarray(read[name]), array)
        assert len(read[name]) == len(array)


def test_pickles_of_numpy_1_are_read(tmp_path: Path) -> None:
    """Published ones name modules that numpy 2 has moved."""
    content = pickle.dumps([np.float64(2.5), np.arange(3)], 2)
    assert b"numpy._core.multiarray" in content
    (tmp_path / "t.pickle").write_bytes(content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    scalar, array = read_pickle(tmp_path / "t.pickle", "a table")
    assert scalar == 2.5
    assert np.asarray(array).tolist() == [0, 1, 2]


def test_hostile_pickles_are_refused_by_name(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    (tmp_path / "t.pickle").write_bytes(pickle.dumps({"a": Hostile(mark)}))
    with pytest.raises(TableError, match=f"t.pickle is a pickle that calls for {os.system.__module__}.system"):
        read_pickle(tmp_path / "t.pickle", "a table")
    assert not mark.exists()


@pytest.mark.parametrize("value", [eval, io.BytesIO(b"x"), Path("x"), np.random.default_rng, np.dtype([("a", int)])])
def test_anything_but_plain_data_is_refused(tmp_path: Path, value: object) -> None:
    (tmp_path / "t.pickle").write_bytes(pickle.dumps(value))
    with pytest.raises(TableError, match="t.pickle is"):
        read_pickle(tmp_path / "t.pickle", "a table")


def test_truncated_pickles_are_told(tmp_path: Path) -> None:
    content = pickle.dumps(PLAIN)
    for name, data in {"a.pickle": content[:-10], "b.pbz2": bz2.compress(content)[:-10], "c.pbz2": content}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(TableError, match=f"{name} is not a table: it is truncated"):
            read_pickle(tmp_path / name, "a table")


# -- TFRecord ----------------------------------------------------------------------------------------------------


def test_checksums_are_crc32c() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # the check value of the polynomial's catalogue entry
    contents = [b"123456789", b"", b"a" * 300, bytes(range(256))]
    assert masked_crc32c(contents).tolist() == [masked(crc32c(content)) for content in contents]


def test_records_are_read_in_order_across_batches(tmp_path: Path) -> None:
    contents = [str(i).encode() * (i % 5) for i in range(9000)]
    (tmp_path / "t.tfrecord").write_bytes(b"".join(map(framed, contents)))
    assert list(read_records(tmp_path / "t.tfrecord")) == contents


@pytest.mark.parametrize(
    ("place", "reason"), [(-1, "content does not fit"), (40, "content does not fit"), (25, "length does not fit")]
)
def test_damaged_records_are_told(tmp_path: Path, place: int, reason: str) -> None:
    content = bytearray(framed(b"first") + framed(b"a record of some length"))
    content[place] ^= 1
    (tmp_path / "t.tfrecord").write_bytes(content)
    with pytest.raises(TableError, match=f"t.tfrecord is not a whole TFRecord file: record 1 .*{reason}"):
        list(read_records(tmp_path / "t.tfrecord"))


@pytest.mark.parametrize("cut", [1, 5, 10, 30])
def test_truncated_record_files_are_told(tmp_path: Path, cut: int) -> None:
    content = framed(b"first") + framed(b"a record of some length")
    (tmp_path / "t.tfrecord").write_bytes(content[:-cut])
    with pytest.raises(TableError, match="record 1 is damaged, the file ends within it"):
        list(read_records(tmp_path / "t.tfrecord"))


def test_messages_are_decoded() -> None:
    message = b"\x08\x96\x01" + b"\x11" + struct.pack("<d", 0.5) + b"\x1a\x03abc" + b"\x25" + b"1234"
    assert list(read_fields(message)) == [(1, 150), (2, 0.5), (3, b"abc"), (4, b"1234")]


@pytest.mark.parametrize("message", [b"\x08", b"\x11\x00", b"\x1a\x05ab", b"\x0b", b"\x08" + b"\xff" * 11])
def test_broken_messages_are_refused(message: bytes) -> None:
    with pytest.raises(ValueError, match="a message"):
        list(read_fields(message))


# -- sources -----------------------------------------------------------------------------------------------------


class Numbers(Source):
    space = NB201(scale="full")

    def tables(self, path: Path) -> Iterator[tuple[str, Table]]:
        with expecting(path, "numbers"):
            values = [float(text) for text in path.read_text().split()]
        rows = self.space.from_index(np.arange(len(values)))
        yield "numbers", self.table(rows, {"a": values}, [Column("a", "ms")], [path], "a note")


def numbers_source(**checksums: str) -> Numbers:
    return Numbers(title="T", files="numbers.txt", url="https://example.org", licence="MIT", checksums=checksums)


def test_tables_know_where_they_come_from(tmp_path: Path) -> None:
    path = tmp_path / "numbers.txt"
    path.write_text("1 2 3")
    ((name, table),) = numbers_source().tables(path)
    assert name == "numbers"
    facts = table.provenance
    assert (facts["source"], facts["licence"], facts["notes"]) == ("T", "MIT", "a note")
    assert facts["files"] == {"numbers.txt": {"sha256": sha256(b"1 2 3").hexdigest(), "bytes": 5}}
    table.save(tmp_path / "t.parquet")
    assert content_digest(Table.load(tmp_path / "t.parquet", Numbers.space)) == facts["content_sha256"]


def test_known_checksums_are_compared(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "numbers.txt"
    path.write_text("1 2 3")
    source = numbers_source(**{"numbers.txt": sha256(b"1 2 3").hexdigest()})
    assert next(source.tables(path))[1].provenance["files"]["numbers.txt"]["as_published"]
    assert not caplog.records
    path.write_text("1 2 4")
    assert not next(source.tables(path))[1].provenance["files"]["numbers.txt"]["as_published"]
    assert "1 of 1 files differ" in caplog.text


def test_a_digest_sees_every_part_of_a_table() -> None:
    space = NB201(scale="full")
    rows = space.from_index(np.arange(3))

    def digest(rows: object, values: list[float], unit: str = "ms") -> str:
        return content_digest(Table(ArchBatch(space, rows), {"a": values}, [Column("a", unit)]))

    first = digest(rows, [1, 2, 3])
    assert first == digest(rows, [1, 2, 3])
    assert len({first, digest(rows[::-1], [1, 2, 3]), digest(rows, [1, 2, 4]), digest(rows, [1, 2, 3], "s")}) == 4


def test_errors_of_the_space_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="x.csv is not cells: .*no such cell"), expecting(tmp_path / "x.csv", "cells"):
        raise ArchitectureError("no such cell")
