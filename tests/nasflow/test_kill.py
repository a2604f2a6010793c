"""Searches that are killed at random moments, with their log cut short, and started again."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from nasflow.flow import Search
from searchspaces.arch import ArchBatch
from searchspaces.nb201 import NB201
from searchspaces.table import Column, Table

BUDGET = 150


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two made-up metrics of every architecture: what is tested is the log, not the search."""
    path = tmp_path_factory.mktemp("table") / "table.parquet"
    space, rng = NB201(scale="small"), np.random.default_rng(0)
    archs = ArchBatch(space, space.from_index(np.arange(15625)))
    values = {name: rng.random(len(archs)) for name in ("accuracy", "latency_ms")}
    Table(archs, values, [Column(name) for name in values]).save(path)
    return path


def command(table: Path, folder: Path) -> list[str]:
    arguments = ["search", "evaluator=table", f"evaluator.table.path={table}", f"hydra.run.dir={folder}"]
    return [sys.executable, "-m", "nasflow.cli", *arguments, f"budget={BUDGET}", "seed=5", "strategy.population=10"]


def outcome(folder: Path) -> dict[int, tuple[list[int], dict[str, float]]]:
    return {record.slot: (record.row.tolist(), dict(record.metrics)) for record in Search.load(folder).study.records()}


def finished(folder: Path) -> set[int]:
    """Slots that the log holds as finished, read the way Optuna reads it."""
    study = Search.load(folder).study.optuna
    return {t.user_attrs["slot"] for t in study.get_trials(states=(TrialState.COMPLETE,)) if "slot" in t.user_attrs}


@pytest.fixture(scope="module")
def undisturbed(table: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[list[int], dict[str, float]]]:
    folder = tmp_path_factory.mktemp("undisturbed")
    subprocess.run(command(table, folder), check=True, capture_output=True, timeout=300)
    return outcome(folder)


def kill_once(table: Path, folder: Path, rng: random.Random) -> None:
    """Start the search, kill it once it has begun to write, and cut some bytes off its log."""
    journal = folder / "study.journal"
    process = subprocess.Popen(command(table, folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    start = journal.stat().st_size if journal.exists() else 0
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if journal.exists() and journal.stat().st_size > start + 4000:
            break
        time.sleep(0.01)
    time.sleep(rng.random() * 0.8)
    process.send_signal(signal.SIGKILL)
    process.wait()
    if rng.random() < 0.5:
        with journal.open("r+b") as file:
            file.truncate(journal.stat().st_size - rng.randrange(1, 60))


def rounds_of_killing(table: Path, folder: Path, rounds: int, expected: dict[int, object]) -> None:
    rng = random.Random(rounds)
    for _ in range(rounds):
        kill_once(table, folder, rng)
        before = finished(folder)
    subprocess.run(command(table, folder), check=True, capture_output=True, timeout=300)
    found = outcome(folder)
    assert sorted(found) == list(range(BUDGET))
    assert before <= set(found)
    assert found == expected
    study = optuna.load_study(study_name="nasflow", storage=Search.load(folder).study.optuna._storage)
    complete = [t.user_attrs["slot"] for t in study.get_trials(states=(TrialState.COMPLETE,))]
    assert len(complete) == len(set(complete)) == BUDGET


def test_a_killed_search_continues_as_if_nothing_had_happened(
    table: Path, tmp_path: Path, undisturbed: dict[int, object]
) -> None:
    rounds_of_killing(table, tmp_path, 2, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_many_kills(table: Path, tmp_path: Path, undisturbed: dict[int, object], seed: int) -> None:
    rounds_of_killing(table, tmp_path, 4 + seed, undisturbed)


def test_two_workers_of_which_one_is_killed_spend_the_budget_once(table: Path, tmp_path: Path) -> None:
    search = subprocess.Popen(command(table, tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (tmp_path / "config.yaml").exists():
        assert search.poll() is None
        time.sleep(0.01)
    worker = subprocess.Popen(
        [sys.executable, "-m", "nasflow.cli", "worker", f"run={tmp_path}"], stdout=subprocess.DEVNULL
    )
    journal = tmp_path / "study.journal"
    while search.poll() is None and (not journal.exists() or journal.stat().st_size < 20_000):
        time.sleep(0.01)
    search.kill()
    search.wait()
    assert worker.wait(timeout=200) == 0
    records = Search.load(tmp_path).study.records()
    assert [record.slot for record in records] == list(range(BUDGET))
    space = Search.load(tmp_path).space
    assert len(set(space.keys(np.array([record.row for record in records])))) >= BUDGET - 1
    study = Search.load(tmp_path).study.optuna
    complete = [t.user_attrs["slot"] for t in study.get_trials(states=(TrialState.COMPLETE,))]
    assert len(complete) == len(set(complete)) == BUDGET
