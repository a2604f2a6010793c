import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from nasflow.evaluators.base import Context, Evaluation
from nasflow.tabulation import Tabulation, arch_seed, distinct
from searchspaces import jsonlines
from searchspaces.arch import ArchBatch
from searchspaces.errors import NetworkError, StudyError
from searchspaces.nb201 import NB201
from searchspaces.table import Table


@dataclass
class Noisy:
    """Depends on the architecture and its seed alone, and cannot evaluate cells that begin with `fails`."""

    fails: int = -1
    delay: float = 0.0
    provides: tuple[str, ...] = ("accuracy",)
    cost: str = "cheap"
    deterministic: bool = True
    calls: list[int] = field(default_factory=list)

    def evaluate(self, archs: ArchBatch, context: Context) -> Evaluation:
        self.calls.append(len(archs))
        if (archs.rows[:, 0] == self.fails).any():
            raise NetworkError("This cell begins as none may.")
        time.sleep(self.delay * len(archs))
        noise = [np.random.default_rng(seed).standard_normal() for seed in context.seeds]
        facts = [{"test_loss": 2.0 + value, "seconds": 0.1, "device": "x", "seed": 3, "whole": True} for value in noise]
        return Evaluation({"accuracy": archs.rows.sum(axis=1) + 0.5 * np.array(noise)}, facts)


def parts(fails: int = -1, delay: float = 0.0):
    return NB201(scale="small"), [Noisy(fails, delay)]


def archs(n: int = 40) -> ArchBatch:
    return distinct(NB201(scale="small"), n, np.random.default_rng(0))


def tabulated(folder: Path, n: int = 40, seeds: int = 2, workers: int = 1, **arguments) -> tuple[Tabulation, Table]:
    tabulation = Tabulation(folder / "log.jsonl", partial(parts, **arguments), {"a": 1})
    tabulation.run(archs(n), range(seeds), workers)
    return tabulation, tabulation.table(archs(n), range(seeds), {})


def test_a_table_holds_mean_and_seeds(tmp_path: Path) -> None:
    _, table = tabulated(tmp_path)
    names = ("accuracy", "test_loss", "seconds")
    assert set(table.columns) == {f"{name}{seed}" for name in names for seed in ("", ".seed0", ".seed1")}
    per_seed = np.stack([table.column(f"accuracy.seed{s}") for s in (0, 1)])
    assert np.allclose(table.column("accuracy"), per_seed.mean(axis=0))
    noise = np.random.default_rng(arch_seed(1, table.archs.rows[3])).standard_normal()
    assert per_seed[1, 3] == pytest.approx(table.archs.rows[3].sum() + 0.5 * noise)
    assert table.columns["accuracy"].direction == "maximize"
    assert table.columns["test_loss.seed0"].unit == "nats"
    assert 0.8 < table.provenance["reliability"]["accuracy"] < 1


def test_processes_give_the_figures_of_one(tmp_path: Path) -> None:
    _, alone = tabulated(tmp_path / "1")
    _, together = tabulated(tmp_path / "2", workers=2)
    for name in alone.columns:
        assert np.array_equal(alone.column(name), together.column(name))


def test_what_is_done_is_not_done_again(tmp_path: Path, monkeypatch) -> None:
    tabulated(tmp_path, n=10)
    seen = []
    monkeypatch.setattr(jsonlines.JsonLines, "append", lambda self, entries: seen.extend(entries))
    tabulated(tmp_path, n=14)
    assert len(seen) == 8
    assert {entry["seed"] for entry in seen} == {0, 1}


def test_failures_are_kept_with_their_reason_and_tried_again(tmp_path: Path) -> None:
    tabulation, table = tabulated(tmp_path, fails=2)
    bad = table.archs.rows[:, 0] == 2
    assert 0 < bad.sum() < 20
    assert np.array_equal(np.isnan(table.column("accuracy")), bad)
    failures = tabulation.failures(archs(), range(2))
    assert len(failures) == 2 * bad.sum()
    assert "nor_conv_1x1" in failures[0]
    assert "begins as none may" in failures[0]
    _, mended = tabulated(tmp_path)
    assert not np.isnan(mended.column("accuracy")).any()


def test_too_many_failures_stop_it(tmp_path: Path) -> None:
    tabulation = Tabulation(tmp_path / "log.jsonl", partial(parts, fails=2), {}, max_failure_rate=0.05)
    with pytest.raises(StudyError, match=r"max_failure_rate=0\.05.*begins as none may"):
        tabulation.run(archs(), range(2), 1)


def test_another_identity_or_space_is_refused(tmp_path: Path) -> None:
    tabulated(tmp_path, n=5)
    with pytest.raises(StudyError, match="a: was 1, is now 2"):
        Tabulation(tmp_path / "log.jsonl", parts, {"a": 2})


def test_draws_of_more_begin_with_those_of_fewer_and_repeat_no_class() -> None:
    few, many = archs(100), archs(400)
    assert np.array_equal(many.rows[:100], few.rows)
    assert len(set(many.space.keys(many.rows))) == 400
    with pytest.raises(StudyError, match="ask for fewer"):
        archs(5000)


_SCRIPT = """
import sys; sys.path.insert(0, {tests!r})
from pathlib import Path
from test_tabulation import *
if __name__ == "__main__":
    tabulated(Path({folder!r}), n=60, workers=2, delay=0.02)
"""


@pytest.mark.slow
def test_kills_lose_and_repeat_nothing(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT.format(tests=str(Path(__file__).parent), folder=str(tmp_path)))
    rng = np.random.default_rng(0)
    for _ in range(4):
        process = subprocess.Popen([sys.executable, str(script)], start_new_session=True)
        time.sleep(rng.uniform(4, 9))
        process.send_signal(signal.SIGKILL)
        process.wait()
        deadline = time.monotonic() + 120  # a worker that is still importing notices afterwards
        while _alive(process.pid):
            assert time.monotonic() < deadline, "workers outlive their parent"
            time.sleep(0.2)
        log = tmp_path / "log.jsonl"
        if log.exists():
            os.truncate(log, max(0, log.stat().st_size - int(rng.integers(0, 40))))
    _, table = tabulated(tmp_path, n=60, workers=2)
    _, undisturbed = tabulated(tmp_path / "other", n=60)
    assert np.array_equal(table.column("accuracy"), undisturbed.column("accuracy"))
    entries = jsonlines.JsonLines(tmp_path / "log.jsonl").read()[1:]
    assert len({(*entry["row"], entry["seed"]) for entry in entries}) == len(entries) == 120


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
