"""Collecting over ssh from a real sshd, with links, runners and collectors that die on the way."""

import json
import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from devices import Device, Job, SshDevice, load_latencies
from devices.remote import link, openssh
from nasflow.config import composed, instantiate
from nasflow.jobs.collect import DATASET
from nasflow.testing import DeviceContract
from nasflow.testing.devices import chain
from tests.nasflow.test_cli import in_this_process
from tests.nasflow.test_collect import SPACE, collect, entries_in, logged, started, times_measured, wait_for
from tests.system.sshd import Sshd
from tests.system.test_full_disk import disk as disk
from tests.system.test_full_disk import enlarge

pytestmark = pytest.mark.system

SLOW = ("device.rounds=20", "device.restarts=2", "residents=2")  # a batch takes a moment


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


def test_several_precisions_of_a_board_in_one_search(board: Sshd, tmp_path: Path) -> None:
    given = ["trainer.epochs=1", "budget=2", "device.rounds=2", "device.runs_per_round=2", "device.restarts=1"]
    done = in_this_process(
        "search", *given, "device.precision=int8", f"hydra.run.dir={tmp_path / 'out'}", *board.overrides()
    )
    assert done.returncode == 0, done.stdout + done.stderr
    models = json.loads((tmp_path / "out" / "models" / "models.json").read_text())
    assert models[0]["precision"] == "int8"
    (state,) = (tmp_path / "out" / "anchors").glob("*-ssh.json")
    assert len(json.loads(json.loads(state.read_text())["references"])["references_ms"]) >= 3


class TestSshDevice(DeviceContract):
    @pytest.fixture
    def device(self, board: Sshd) -> Device:
        device = instantiate(composed("search", board.overrides()).device)
        assert isinstance(device, SshDevice)
        return device


# -- hosts that cannot be used -----------------------------------------------------------------------------------------


def refused(board: Sshd, tmp_path: Path, **options: object) -> str:
    return collect(tmp_path / "out", "n=2", *board.overrides(**options), code=1).stderr


def test_a_host_whose_key_is_unknown_or_has_changed(board: Sshd, tmp_path: Path) -> None:
    board.know()
    told = refused(board, tmp_path)
    assert "the host's key is not known here. Log in once by hand with ssh board, compare the fingerprint" in told
    board.know("other_key")
    told = refused(board, tmp_path)
    assert "the host's key is not the one it had" in told
    assert "ssh-keygen -R board" in told
    assert (tmp_path / "known_hosts").read_text().count("\n") == 1, "nothing was accepted"
    board.config.write_text(board.config.read_text() + "  StrictHostKeyChecking no\n")
    assert "the host's key is not the one it had" in refused(board, tmp_path), "whatever the configuration says"
    board.know()
    assert "the host's key is not known here" in refused(board, tmp_path)
    assert not (tmp_path / "known_hosts").read_text()


def test_a_host_that_lets_nobody_in(board: Sshd, tmp_path: Path) -> None:
    (tmp_path / "authorized_keys").write_text("")
    told = refused(board, tmp_path)
    assert "the login was refused. No password is asked for: put your public key there with ssh-copy-id board" in told


def test_a_host_that_refuses_hangs_or_is_unknown(board: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openssh, "CONNECT_S", 2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        closed = silent.getsockname()[1]
        assert "nothing listens there" in refused(board, tmp_path, port=closed)
        silent.listen()
        begun = time.monotonic()
        assert "it does not answer" in refused(board, tmp_path, port=closed)
        assert time.monotonic() - begun >= 2
    told = refused(board, tmp_path, host="board.invalid", ssh_config="/dev/null")
    assert "its name is not known. Check device.host and ~/.ssh/config" in told
    assert "but device.host is '-oProxyCommand=true'" in refused(board, tmp_path, host="-oProxyCommand=true")


def test_a_host_without_what_the_runner_needs(board: Sshd, tmp_path: Path) -> None:
    assert "board has no Python at 'no/python'" in refused(board, tmp_path, python="no/python")
    (tmp_path / "fakes").mkdir()
    (tmp_path / "fakes" / "onnxruntime.py").write_text("raise ImportError(\"No module named 'onnxruntime'\")\n")
    python = tmp_path / "a python"
    python.write_text(f'#!/bin/sh\nexport PYTHONPATH="{tmp_path / "fakes"}"\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    told = refused(board, tmp_path, python=python)
    assert "board: The runner needs numpy and onnxruntime, which" in told
    assert "Install them there, or name the right Python with device.python=PATH." in told
    assert "Traceback" not in told


def test_a_server_that_hangs_in_the_middle(board: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped, it keeps the connection open and says nothing, as a link does that was unplugged."""
    monkeypatch.setattr(link, "STALLED_S", 8.0)
    device = instantiate(composed("collect", board.overrides()).device)
    assert device.machine
    stopped = board.suspend()
    assert stopped
    jobs = [Job((width,), lambda width=width: device.prepare(chain(width))) for width in (1, 2)]
    found = [one for batch in device.run_jobs(jobs, np.random.default_rng(0), tmp_path / "state.json") for one in batch]
    assert sorted(one.key for one in found if one.measurement) == [(1,), (2,)]


def test_a_disk_that_is_full_there(board: Sshd, disk: Path, tmp_path: Path) -> None:
    told = refused(board, tmp_path, folder=disk / "there")
    assert "board: " in told
    assert "No space left on device. Make room" in told
    enlarge(disk)
    collect(tmp_path / "out", "n=2", *board.overrides(folder=disk / "there"))
    assert len(times_measured(tmp_path / "out")) == 2
