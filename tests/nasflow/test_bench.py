"""The job `bench` and the suite of building times."""

import json
import subprocess
import sys
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from devices import heavy_work
from nasflow.config import composed, instantiate
from nasflow.jobs.bench import run_cell
from nasflow.suites import BuildThroughput, Cell, build_throughput
from searchspaces.errors import ConfigError, DeviceError
from searchspaces.nb201 import NB201
from searchspaces.task import Task

DIGITS = Task("digits", (1, 8, 8), 10)
PART = ["bench", "suite=build_throughput", "seeds=1", "tasks=[nb201]", "suite.archs=1", "suite.exported=1"]
WITHOUT_ONNXSCRIPT = """
import sys
sys.modules["onnxscript"] = None  # as where it is not installed
from nasflow.cli import main
sys.exit(main(sys.argv[1:]))
"""


def bench(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT_ONNXSCRIPT, *PART, *arguments, f"hydra.run.dir={folder}"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.parametrize("name", ["archs", "exported", "seeds"])
@pytest.mark.parametrize("value", [0, -1])
def test_a_suite_of_nothing_is_refused(name: str, value: int) -> None:
    with pytest.raises(ConfigError, match=rf"suite\.{name} is a whole number, at least 1, but is {value}"):
        instantiate(composed("bench", ["suite=build_throughput", f"suite.{name}={value}"]).suite)


def test_a_space_without_a_task_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"suite\.task, but \['b'\] have none"):
        BuildThroughput({"a": NB201(), "b": NB201()}, {"a": DIGITS})


def test_a_method_that_lacks_its_package_is_left_out(tmp_path: Path) -> None:
    done = bench(tmp_path)
    assert done.returncode == 0, done.stderr
    text = " ".join((done.stdout + done.stderr).split())
    assert "Left out: Method 'dynamo'" in text
    assert "pip install 'nasflow[dev]'" in text
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert {row["method"] for row in rows} == {"network", "torchscript"}
    assert all(row["mean"] > 0 for row in rows)


def test_nothing_but_a_method_that_lacks_its_package_is_an_error(tmp_path: Path) -> None:
    done = bench(tmp_path, "methods=[dynamo]")
    assert done.returncode == 2
    text = " ".join(done.stderr.split())
    assert "nasflow: Method 'dynamo' of suite 'build_throughput' needs onnxscript" in text
    assert "the extra `dev`" in text
    assert "Traceback" not in text
    assert not (tmp_path / "results.json").exists()


class PassesOver:
    """A suite that runs only the cells of some seeds."""

    name, tasks, methods, samples, seeds, version, published = "passes", ("a",), ("b",), (0,), 3, 1, ()

    def __init__(self, seeds: int) -> None:
        self.ran: list[int] = []
        self._seeds = seeds

    def run(self, cell: Cell) -> dict[str, float]:
        self.ran.append(cell.seed)
        return {"figure": 1.0} if cell.seed < self._seeds else {}

    def settings(self) -> dict[str, float]:
        return {}


def test_cells_that_were_passed_over_run_once_they_are_asked_for(tmp_path: Path) -> None:
    few, more = PassesOver(1), PassesOver(3)
    for suite in (few, more):
        for seed in range(3):
            run_cell(suite, Cell("a", "b", 0, seed), tmp_path)
    assert few.ran == [0, 1, 2]
    assert more.ran == [1, 2]


def test_timing_has_the_machine_to_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NASFLOW_LOCK", str(tmp_path / "lock"))
    kept_out = []

    def try_heavy_work() -> None:
        try:
            with heavy_work(timeout_s=0.0):
                kept_out.append(False)
        except DeviceError:
            kept_out.append(True)

    def timed(*_: Any) -> tuple[float, float]:
        other = Thread(target=try_heavy_work)
        other.start()
        other.join()
        return 1.0, 2.0

    monkeypatch.setattr(build_throughput, "_timed", timed)
    suite = BuildThroughput({"a": NB201("small")}, {"a": DIGITS}, archs=2)
    metrics = suite.run(Cell("a", "network", 0, 0))
    assert metrics == pytest.approx({"build_ms": 1e3, "session_ms": 2e3, "total_ms": 3e3})
    assert kept_out == [True] * 3
    try_heavy_work()
    assert kept_out[-1] is False
