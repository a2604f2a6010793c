"""The suite of measuring."""

import json
from pathlib import Path

import numpy as np
import pytest

from devices import Device
from nasflow.cli import main
from nasflow.suites import Cell, Measured, MeasurementSuite, Suite, measurement
from nasflow.suites.measurement import Collected, collected
from nasflow.tasks import Digits
from searchspaces.errors import ConfigError
from searchspaces.nb201 import NB201

SPACE = NB201(scale="small")
MEASURED = Measured(SPACE, Digits(), Device(rounds=2, runs_per_round=2, restarts=1))


@pytest.fixture(autouse=True)
def lock_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NASFLOW_LOCK", str(tmp_path / "machine.lock"))


@pytest.mark.parametrize("residents", [1, 8])
def test_a_collection_tells_where_its_time_went(residents: int) -> None:
    rows = SPACE.sample_classes(6, np.random.default_rng(0))
    found = collected(MEASURED, rows, residents)
    assert found.latencies.shape == found.raw.shape == (6,)
    assert (found.latencies > 0).all()
    assert 0 < found.running < found.seconds
    assert np.abs(np.log(found.latencies / found.raw)).max() < 2, "the anchors' pace corrects, it does not decide"


def test_cells_compare_two_collections(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second collection is 10 % slower throughout, and its raw figures drifted."""
    true = np.exp(np.linspace(0, 1, 20))
    seen: list[int] = []

    def fresh(function: object, measured: Measured, rows: np.ndarray, residents: int) -> Collected:
        assert function is collected
        assert len(set(SPACE.keys(rows))) == 20
        seen.append(residents)
        drift = np.linspace(1.0, 0.2, 20) if len(seen) == 2 else np.ones(20)
        return Collected(true * 1.1 ** (len(seen) - 1), true * drift, 0.1 * len(seen), 6.0, 4.5)

    monkeypatch.setattr(measurement, "in_fresh_process", fresh)
    suite = MeasurementSuite({"cells": MEASURED}, samples=[20], seeds=1)
    assert isinstance(suite, Suite)
    found = suite.run(Cell("cells", "sequential", 20, 0))
    assert seen == [1, 1]
    assert found["models_per_minute"] == pytest.approx(40 / 12 * 60)
    assert found["outside_inference_percent"] == pytest.approx(25)
    assert found["kendall_tau"] == pytest.approx(1)
    assert found["kendall_tau_raw"] < 0.9
    assert found["shift_percent"] == pytest.approx(10)
    assert found["drifted_percent"] == pytest.approx(15)
    assert found["spread_percent"] == pytest.approx(0, abs=1e-9)


def test_settings_tell_devices_apart() -> None:
    other = Measured(SPACE, Digits(), Device(rounds=3))
    assert MeasurementSuite({"a": MEASURED}).settings() != MeasurementSuite({"a": other}).settings()
    json.dumps(MeasurementSuite({"a": MEASURED}).settings())
    with pytest.raises(ConfigError, match="samples"):
        MeasurementSuite({"a": MEASURED}, samples=[4])


def test_from_the_command_line_in_fresh_processes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    device = "suite.tasks.nb201_small.device"
    small = [f"{device}.rounds=2", f"+{device}.runs_per_round=2", f"+{device}.restarts=1"]
    words = ["suite=measurement", "tasks=[nb201_small]", "methods=[interleaved]", "seeds=1", "suite.samples=[6]"]
    assert main(["bench", *words, *small, f"hydra.run.dir={tmp_path}"]) == 0, capsys.readouterr().err
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert {row["metric"] for row in rows} >= {"models_per_minute", "kendall_tau", "outside_inference_percent"}
    assert all(row["task"] == "nb201_small" for row in rows)
