"""Collecting over ssh from a real sshd, with links, runners and collectors that die on the way."""

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from devices import load_latencies
from nasflow.jobs.collect import DATASET
from tests.nasflow.test_collect import SPACE, collect, entries_in, logged, started, times_measured, wait_for
from tests.system.sshd import Sshd

pytestmark = pytest.mark.system

SLOW = ("device.rounds=10", "device.restarts=2", "residents=2")  # a batch takes a moment


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sshd]:
    monkeypatch.setenv("NASFLOW_LOCK", str(tmp_path / "machine.lock"))
    folder = tmp_path / "it's a board"
    folder.mkdir()
    server = Sshd(tmp_path)
    server.there = folder / "$(touch there)"
    yield server
    server.close()


def measured_there(board: Sshd) -> Counter:
    """How often each row was measured on the other side."""
    lines = [line for path in board.there.glob("*/results.jsonl") for line in path.read_text().split("\n")[:-1]]
    return Counter(tuple(entry["key"]) for entry in map(json.loads, lines) if "measurement" in entry)


def check_whole(board: Sshd, folder: Path, n: int) -> None:
    """Each of `n` models was measured once there, and stands once in the log here."""
    for counts in (times_measured(folder), measured_there(board)):
        assert len(counts) == n
        assert set(counts.values()) == {1}
    assert len(load_latencies(folder / DATASET, SPACE, ["ssh"], complete=True)) == n


def test_a_dataset_of_another_machine(board: Sshd, tmp_path: Path) -> None:
    done = collect(tmp_path / "out", "n=6", "noise=5", *board.overrides())
    assert "6 architectures, 0 measurements failed" in done.stdout
    assert "Kendall tau" in done.stdout
    table = load_latencies(tmp_path / "out" / DATASET, SPACE, complete=True)
    facts = table.provenance["devices"]["ssh"]
    assert facts["machine"].keys() == {"processor", "onnxruntime"}
    assert {"governor", "cores", "threads"} <= facts["environment"].keys()
    assert len(facts["load_average"]) == 2
    assert set(measured_there(board).values()) == {1}
    assert len(measured_there(board)) == 6 + 5
    assert not list(board.there.glob("*/models/*")), "models that were measured are removed"
    before = (tmp_path / "out" / "measurements.jsonl").read_bytes()
    assert "Nothing was left to measure" in collect(tmp_path / "out", "n=6", *board.overrides()).stdout
    assert (tmp_path / "out" / "measurements.jsonl").read_bytes() == before
    collect(tmp_path / "out", "n=8", *board.overrides())
    assert len(times_measured(tmp_path / "out")) == 8 + 5
    told = collect(tmp_path / "out", "n=8", "device=local", code=2).stderr
    assert "'ssh' and 'local' have the same options on machines of one kind" in told
    assert not list(Path.cwd().glob("there")), "no shell has read a path"


def test_a_link_that_is_cut_and_a_server_that_is_gone_for_a_while(board: Sshd, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = started(out, "n=24", *SLOW, *board.overrides())
    try:
        wait_for(lambda: entries_in(out) > 3)
        runners = board.runners()
        assert board.cut() >= 1
        there = sum(measured_there(board).values())
        wait_for(lambda: sum(measured_there(board).values()) > there)
        known = entries_in(out)
        wait_for(lambda: entries_in(out) > known)
        board.stop()
        time.sleep(2)
        board.start()
        assert runners == board.runners() or not board.runners()
        told, _ = process.communicate(timeout=240)
    finally:
        process.kill()
    assert process.returncode == 0, told
    assert "Trying again" in told
    check_whole(board, out, 24)


def test_a_runner_that_is_killed(board: Sshd, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = started(out, "n=16", *SLOW, *board.overrides())
    try:
        for _ in range(2):
            known = entries_in(out)
            wait_for(lambda known=known: entries_in(out) > known + 2 and board.runners())
            for pid in board.runners():
                os.kill(pid, signal.SIGKILL)
        told, _ = process.communicate(timeout=240)
    finally:
        process.kill()
    assert process.returncode == 0, told
    check_whole(board, out, 16)


def test_a_collector_that_is_killed(board: Sshd, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ("n=16", *SLOW, *board.overrides())
    process = started(out, *command)
    wait_for(lambda: entries_in(out) > 3)
    process.kill()
    process.communicate()
    kept = logged(out)
    assert len(kept) < 16
    wait_for(lambda: not board.runners())
    there = measured_there(board)
    assert sum(there.values()) > len(kept), "it went on without anybody"
    collect(out, *command)
    assert logged(out)[: len(kept)] == kept
    check_whole(board, out, 16)
