import json
from multiprocessing import get_context
from pathlib import Path

import pytest

from searchspaces.errors import StudyError
from searchspaces.jsonlines import JsonLines


def test_entries_come_back_in_order(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "sub" / "log.jsonl")
    assert log.read() == []
    log.append([{"a": 1}, {"b": [1.5, "x"]}])
    log.append([{"c": None}])
    assert log.read() == [{"a": 1}, {"b": [1.5, "x"]}, {"c": None}]


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_torn_last_line_is_left_out_and_then_cut_off(tmp_path: Path, cut: int) -> None:
    log = JsonLines(tmp_path / "log.jsonl")
    log.append([{"a": 1}, {"b": 12345}])
    data = log.path.read_bytes()
    log.path.write_bytes(data[:-cut])
    assert log.read() == [{"a": 1}]
    log.append([{"c": 3}])
    assert log.read() == [{"a": 1}, {"c": 3}]


def test_long_lines_are_cut_off_whole(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "log.jsonl")
    long = "x" * 200_000
    log.append([{"a": long}, {"b": long}])
    log.path.write_bytes(log.path.read_bytes()[:-1])
    log.append([{"c": 3}])
    assert log.read() == [{"a": long}, {"c": 3}]
    log.path.write_bytes(b'{"torn": "' + long.encode())
    log.append([{"d": 4}])
    assert log.read() == [{"d": 4}]


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "log.jsonl")
    log.append([{"a": 1}, {"b": 2}])
    log.path.write_bytes(log.path.read_bytes().replace(b'{"b"', b'["b"'))
    with pytest.raises(StudyError, match=r"log\.jsonl is damaged at line 2"):
        log.read()
    log.path.write_text("[1]\n")
    with pytest.raises(StudyError, match="line 1: it is no JSON object"):
        log.read()


def test_an_entry_that_json_cannot_hold_leaves_the_log_as_it_was(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "log.jsonl")
    log.append([{"a": 1}])
    with pytest.raises(ValueError, match="JSON"):
        log.append([{"b": 2}, {"c": float("nan")}])
    assert log.read() == [{"a": 1}]


def test_an_unwritable_place_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match="cannot be written"):
        JsonLines(tmp_path / "file" / "log.jsonl").append([{"a": 1}])


def _write(path: Path, writer: int) -> None:
    for i in range(50):
        JsonLines(path).append([{"writer": writer, "i": i}, {"writer": writer, "i": i, "again": True}])


def test_writers_take_turns(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    context = get_context("fork")
    writers = [context.Process(target=_write, args=(path, k)) for k in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    entries = JsonLines(path).read()
    assert len(entries) == 300
    assert all(entries[k] | {"again": True} == entries[k + 1] for k in range(0, 300, 2))
    assert len({json.dumps(entry) for entry in entries}) == 300
