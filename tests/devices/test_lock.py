import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from devices import exclusive, heavy_work, lock, lock_path
from searchspaces.errors import DeviceError

# Loads the module alone: importing the whole package would take each process a second.
PRELUDE = """
import importlib.util, os, sys, time
from pathlib import Path
spec = importlib.util.spec_from_file_location("lock", sys.argv[1])
lock = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lock)
def say(text):
    print(text, flush=True)
"""
ENDLESS = "time.sleep(1000)"


class Process:
    """A Python process that runs `code` after `PRELUDE`."""

    def __init__(self, code: str) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-c", PRELUDE + code, lock.__file__], stdout=subprocess.PIPE, text=True
        )

    def line(self) -> str:
        assert self.popen.stdout is not None
        return self.popen.stdout.readline().strip()

    def kill(self) -> None:
        self.popen.send_signal(signal.SIGKILL)
        self.popen.wait()


@pytest.fixture
def start() -> Iterator[type[Process]]:
    started: list[Process] = []

    class Started(Process):
        def __init__(self, code: str) -> None:
            super().__init__(code)
            started.append(self)

    yield Started
    for process in started:
        process.kill()


def hold(kind: str) -> str:
    return f"with lock.{kind}():\n    say('held')\n    {ENDLESS}"


def _refused(kind: str) -> bool:
    try:
        with getattr(lock, kind)(timeout_s=0.1):
            return False
    except DeviceError:
        return True


def test_heavy_work_goes_on_beside_heavy_work_but_not_beside_a_measurement(start):
    worker = start(hold("heavy_work"))
    assert worker.line() == "held"
    assert not _refused("heavy_work")
    assert _refused("exclusive")


def test_a_measurement_excludes_everything(start):
    measuring = start(hold("exclusive"))
    assert measuring.line() == "held"
    assert _refused("heavy_work")
    assert _refused("exclusive")


@pytest.mark.parametrize("kind", ["heavy_work", "exclusive"])
def test_a_killed_holder_leaves_no_lock(start, kind):
    process = start(hold(kind))
    assert process.line() == "held"
    assert _refused("exclusive")
    process.kill()
    assert not _refused("exclusive")


def test_a_holder_killed_while_it_waits_leaves_the_gate_open(start):
    worker = start(hold("heavy_work"))
    assert worker.line() == "held"
    measuring = start("say('waiting')\n" + hold("exclusive"))
    assert measuring.line() == "waiting"
    _until(lambda: _refused("heavy_work"))
    measuring.kill()
    assert not _refused("heavy_work")


def test_a_forked_child_does_not_keep_the_lock_of_its_killed_parent(start):
    parent = start(
        "with lock.heavy_work():\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        f"        {ENDLESS}\n"
        "    say(child)\n"
        f"    {ENDLESS}"
    )
    child = int(parent.line())
    try:
        assert _refused("exclusive")
        parent.kill()
        assert not _refused("exclusive")
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_child_that_leaves_the_block_it_was_forked_in_does_not_release_it(start):
    parent = start(
        "with lock.heavy_work():\n"
        "    child = os.fork()\n"
        "    if child:\n"
        "        os.waitpid(child, 0)\n"
        "        say('child is through')\n"
        f"        {ENDLESS}"
    )
    assert parent.line() == "child is through"
    assert _refused("exclusive")


def test_workers_that_train_without_a_pause_do_not_starve_a_measurement(start):
    # At any moment, one of the two holds the lock: each takes it again while the other has it.
    loop = "say('begin')\nwhile True:\n    with lock.heavy_work():\n        time.sleep({})"
    workers = [start(loop.format(seconds)) for seconds in (0.11, 0.17)]
    assert [worker.line() for worker in workers] == ["begin", "begin"]
    for _ in range(5):
        with exclusive(timeout_s=30):
            assert _refused_elsewhere()


def test_measurements_one_after_the_other_do_not_starve_heavy_work(start):
    measuring = start("say('begin')\nwhile True:\n    with lock.exclusive():\n        time.sleep(0.05)")
    assert measuring.line() == "begin"
    for _ in range(5):
        with heavy_work(timeout_s=30):
            pass


def test_waiting_is_bounded_and_the_message_says_how_to_find_the_holder(start, lock_file):
    worker = start(hold("heavy_work"))
    worker.line()
    with pytest.raises(DeviceError, match=rf"Waited 0.1 s for heavy work.*fuser -v {lock_file}.*between epochs"):
        exclusive(timeout_s=0.1).__enter__()


def test_waiting_is_logged(start, monkeypatch, caplog):
    start(hold("exclusive")).line()
    monkeypatch.setattr(lock, "_FIRST_NOTICE_S", 0.02)
    with caplog.at_level(logging.INFO, "devices.lock"), pytest.raises(DeviceError):
        heavy_work(timeout_s=0.2).__enter__()
    assert len(caplog.records) == 1
    assert "Waiting for a measurement" in caplog.text


def test_an_unused_lock_is_not_waited_for(caplog):
    with caplog.at_level(logging.INFO, "devices.lock"), heavy_work(timeout_s=0.0), heavy_work(timeout_s=0.0):
        pass
    with exclusive(timeout_s=0.0), exclusive(timeout_s=0.0), heavy_work(timeout_s=0.0):
        pass
    assert not caplog.records


def test_nested_blocks_release_only_at_the_outermost():
    with exclusive():
        with exclusive(), heavy_work():
            pass
        assert _refused_elsewhere()
    assert not _refused_elsewhere()


def test_measuring_inside_heavy_work_is_refused_at_once():
    with heavy_work():
        with pytest.raises(DeviceError, match=r"inside heavy_work\(\)"):
            exclusive().__enter__()
        with heavy_work():
            pass
    assert not _refused("exclusive")


def test_an_error_inside_releases():
    for kind in (heavy_work, exclusive):
        with pytest.raises(KeyError), kind():
            raise KeyError
        assert not _refused_elsewhere()


def test_threads_of_one_process_exclude_each_other():
    with heavy_work():
        assert _refused_elsewhere()


def test_a_lock_that_cannot_be_opened_says_so(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NASFLOW_LOCK", str(tmp_path / "file" / "lock"))
    with pytest.raises(DeviceError, match="Set NASFLOW_LOCK"):
        heavy_work().__enter__()


def test_without_a_choice_all_processes_of_a_user_agree_on_the_file(monkeypatch, tmp_path):
    monkeypatch.delenv("NASFLOW_LOCK")
    before = lock_path()
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert lock_path() == before
    assert str(os.getuid()) in str(before)


def _refused_elsewhere() -> bool:
    """Tell whether another thread, which is another holder, is refused a measurement."""
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(_refused("exclusive")))
    thread.start()
    thread.join()
    return answers[0]


def _until(condition, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
