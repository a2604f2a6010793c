"""`kill -9` of workers at any moment: nothing that had finished is lost or repeated, and the budget is exact."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nasflow.study.runner import slot_seed
from nasflow.study.storage import database, journal, memory
from nasflow.study.study import Study
from tests.nasflow.studies import counted, evolving, exit_code, forked, killed, opened, told

SLEEP_S = 0.01
ENTRY = b'{"op_code":8,"worker_id":"w","trial_id":0,"user_attr":{"result":{"metrics":{}}}}\n'


@pytest.fixture
def reopen(tmp_path: Path) -> Callable[[], Study]:
    return lambda: opened(journal(str(tmp_path / "study.journal")))


def work(reopen: Callable[[], Study], budget: int) -> None:
    evolving(reopen(), SLEEP_S).run(budget)


def tear(path: Path, size: int) -> None:
    """Leave the first `size` bytes of an entry at the end, unless a worker did not come to cut off the last ones."""
    data = path.read_bytes() if path.exists() else b""
    if data.endswith(b"\n"):
        path.write_bytes(data + ENTRY[:size])


def test_one_worker_killed_again_and_again(reopen: Callable[[], Study], tmp_path: Path) -> None:
    budget, rng, rounds = 80, np.random.default_rng(0), 0
    expected = told(evolving(opened(memory())).run(budget))
    done: list[Any] = []
    path = tmp_path / "study.journal"
    while len(done) < budget:
        rounds += 1
        pid = forked(lambda: work(reopen, budget))
        if rounds % 2:  # at any moment, also before anything is done; but a slot may die with its worker twice only
            time.sleep(rng.uniform(0, 0.06))
        else:
            deadline = time.monotonic() + 20
            while len(reopen().records()) <= len(done) and time.monotonic() < deadline:
                time.sleep(0.002)
            time.sleep(rng.uniform(0, 2 * SLEEP_S))
        if killed(pid) and rng.random() < 0.5:  # it may also die inside a write
            tear(path, int(rng.integers(1, len(ENTRY))))
        former, done = done, told(reopen().records())
        assert done[: len(former)] == former, "what had finished stays as it was"
        assert done == expected[: len(done)], "and equals the uninterrupted run"
        assert rounds < 200
    assert rounds >= 20
    study = reopen()
    assert told(evolving(study).run(budget)) == expected
    assert counted(study) == dict.fromkeys(range(budget), 1)


@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_one_of_two_workers_killed(tmp_path: Path, kind: str) -> None:
    rounds, budget = (8, 16) if kind == "journal" else (2, 5)
    rng = np.random.default_rng(1)
    for i in range(rounds):

        def reopen(i: int = i) -> Study:
            if kind == "journal":
                return opened(journal(str(tmp_path / f"{i}.journal")))
            return opened(database(f"sqlite:///{tmp_path}/{i}.db"))

        reopen()
        victim = forked(lambda: work(reopen, budget))
        survivor = forked(lambda: work(reopen, budget))
        time.sleep(rng.uniform(0, 0.2))
        killed(victim)
        assert exit_code(survivor) == 0
        study = reopen()
        records = study.records()
        assert [record.slot for record in records] == list(range(budget))
        assert {record.state for record in records} == {"complete"}
        assert counted(study) == dict.fromkeys(range(budget), 1)
        assert study.running() == []
        assert told(evolving(study).run(budget)) == told(records), "nothing is left to do"


def test_workers_that_begin_a_study_at_once_share_its_slots(reopen: Callable[[], Study]) -> None:
    pids = [forked(lambda: work(reopen, 20)) for _ in range(3)]
    assert [exit_code(pid) for pid in pids] == [0, 0, 0]
    study = reopen()
    assert counted(study) == dict.fromkeys(range(20), 1)
    workers = {trial.user_attrs["worker"] for trial in study.optuna.trials}
    assert len(workers) == 3


SCRIPT = """
import os, signal, sys
from tests.nasflow.studies import Known, evolving, opened
from nasflow.study.runner import Runner
from nasflow.study.storage import journal

class Deadly(Known):
    def evaluate(self, archs, context):
        if context.seeds == [int(sys.argv[2])]:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().evaluate(archs, context)

runner = evolving(opened(journal(sys.argv[1])))
Runner(runner.study, runner.strategy, [Deadly()]).run(4)
"""


def test_architecture_that_kills_its_worker_three_times_is_failed_for_good(tmp_path: Path) -> None:
    path = str(tmp_path / "study.journal")
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    codes = []
    for _ in range(4):
        command = [sys.executable, "-c", SCRIPT, path, str(slot_seed(0, 1))]
        codes.append(subprocess.run(command, env=environment, cwd=root, capture_output=True, check=False).returncode)
    assert codes == [-9, -9, -9, 0]
    records = opened(journal(path)).records()
    assert [record.state for record in records] == ["complete", "failed", "complete", "complete"]
    assert records[1].error == "The worker died 3 times while evaluating this slot."
