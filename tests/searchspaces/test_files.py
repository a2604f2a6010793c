import fcntl
import os
import signal
import time
from pathlib import Path

import pytest

from searchspaces.files import remove_abandoned, replacing, write_bytes, write_text


def start_writing(path: Path) -> int:
    """Fork a process that stays in the middle of writing `path`, and return its number."""
    pid = os.fork()
    if pid:
        deadline = time.monotonic() + 20
        begun = path.with_name(f"{path.name}.{pid}.partial")
        while not (begun.exists() and begun.read_text() == "half") and time.monotonic() < deadline:
            time.sleep(0.005)
        return pid
    try:
        with replacing(path) as partial:
            partial.write_text("half")
            time.sleep(60)
    finally:
        os._exit(1)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_files_are_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    write_text(path, "first")
    with pytest.raises(ValueError, match="stop"), replacing(path) as partial:
        partial.write_text("half")
        assert path.read_text() == "first"
        raise ValueError("stop")
    assert list(path.parent.iterdir()) == [path]
    assert path.read_text() == "first"
    write_bytes(path, b"second")
    assert list(path.parent.iterdir()) == [path]
    assert path.read_text() == "second"


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    pid = start_writing(tmp_path / "weights.safetensors")
    kill(pid)
    left = tmp_path / f"weights.safetensors.{pid}.partial"
    assert left.read_text() == "half"
    kept = [tmp_path / "download.partial", tmp_path / "a.1.partial.txt", tmp_path / "1.partial"]
    for path in kept:
        path.touch()
    remove_abandoned(tmp_path / "nowhere", tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(kept), "what has another kind of name is not ours"


def test_what_is_being_written_stays(tmp_path: Path) -> None:
    left = tmp_path / "b.txt.999999999.partial"
    left.touch()
    pid = start_writing(tmp_path / "a.txt")
    remove_abandoned(tmp_path)
    assert (tmp_path / f"a.txt.{pid}.partial").exists()
    kill(pid)
    with replacing(tmp_path / "a.txt") as partial:
        partial.write_text("whole")
        remove_abandoned(tmp_path)
    assert (tmp_path / "a.txt").read_text() == "whole"
    remove_abandoned(tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / "a.txt"]


def test_files_can_be_written_where_the_folder_is_locked_by_others(tmp_path: Path) -> None:
    handle = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    write_text(tmp_path / "a.txt", "text")
    (tmp_path / "b.txt.999999999.partial").touch()
    remove_abandoned(tmp_path)
    assert (tmp_path / "b.txt.999999999.partial").exists()
    os.close(handle)
    assert (tmp_path / "a.txt").read_text() == "text"
