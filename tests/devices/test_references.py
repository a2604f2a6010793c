import errno
import json
import os

import pytest

from devices import References
from searchspaces.errors import DeviceError

HERE = {"processor": "P", "onnxruntime": "1"}


def test_times_are_kept_across_objects_and_added_to(tmp_path):
    path = tmp_path / "new" / "anchors.json"
    first = References(HERE, path)
    assert first.get("a") is None
    first.add({"a": 1.25})
    References(HERE, path).add({"b": 0.1 + 0.2})
    again = References(HERE, path)
    assert (again.get("a"), again.get("b")) == (1.25, 0.1 + 0.2)
    assert [file.name for file in path.parent.iterdir()] == ["anchors.json"]


def test_without_a_path_they_are_kept_in_memory():
    references = References(HERE)
    references.add({"a": 1.0})
    assert references.get("a") == 1.0
    assert References(HERE).get("a") is None


def test_another_machines_times_are_refused(tmp_path):
    path = tmp_path / "anchors.json"
    References(HERE, path).add({"a": 1.0})
    with pytest.raises(DeviceError, match=r"do not compare.*'onnxruntime': '2'"):
        References(HERE | {"onnxruntime": "2"}, path)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"machine": [], "references_ms": {}}',
        json.dumps({"machine": HERE, "references_ms": {"a": "fast"}}),
        json.dumps({"machine": HERE, "references_ms": {"a": -1.0}}),
        json.dumps({"machine": HERE, "references_ms": {"a": float("nan")}}),
    ],
)
def test_a_corrupt_file_is_refused_and_left_alone(tmp_path, content):
    path = tmp_path / "anchors.json"
    path.write_text(content)
    with pytest.raises(DeviceError, match=r"Restore the file"):
        References(HERE, path)
    assert path.read_text() == content


def test_a_full_disk_leaves_the_old_times_and_no_other_file(tmp_path, monkeypatch):
    path = tmp_path / "anchors.json"
    References(HERE, path).add({"a": 1.0})

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DeviceError, match=r"No space left.*Make room"):
        References(HERE, path).add({"b": 2.0})
    assert [file.name for file in tmp_path.iterdir()] == ["anchors.json"]
    assert References(HERE, path).get("a") == 1.0


def test_a_folder_that_cannot_be_made_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DeviceError, match="cannot be written"):
        References(HERE, tmp_path / "file" / "anchors.json").add({"a": 1.0})
