"""Searches with a predicted latency, whose best candidates are measured before they are reported."""

import json
import logging
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from devices import Device, Job, Measurement, Outcome
from nasflow.collection import ANCHORS
from nasflow.evaluators import Context, PredictedLatency
from nasflow.flow import InfeasibleError, Search, search
from nasflow.jobs.collect import DATASET
from nasflow.models import weights_path
from nasflow.pareto import non_dominated
from nasflow.study.predictions import checks, unmeasured
from nasflow.study.records import Record
from nasflow.tasks import Digits
from predictors.base import Prediction
from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError, DeviceError, PredictorError
from searchspaces.files import located
from searchspaces.nb201 import NB201
from searchspaces.table import Column, Table
from tests.nasflow.test_cli import in_this_process
from tests.nasflow.test_predictions import slots

SPACE, TASK = NB201("small"), Digits()
QUICK = ("device.rounds=2", "device.runs_per_round=2", "device.restarts=1")
BUDGET = 40


@pytest.fixture(autouse=True)
def lock_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine-wide lock of the test's own."""
    monkeypatch.setenv("NASFLOW_LOCK", str(tmp_path / "machine.lock"))


# -- a device whose latencies are known: those of the shipped table ----------------------------------------------------


def known_latencies(rows: Any) -> Any:
    table = Table.load(located("pkg://searchspaces.nb201/digits.parquet"), SPACE)
    return table.lookup(ArchBatch(SPACE, rows), "latency_ms")


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Predictors: of that device with another one as a source, of its inverse, of accuracies, and on no logarithms."""
    folder = tmp_path_factory.mktemp("fitted")
    rows = SPACE.enumerate_classes()[np.random.default_rng(0).permutation(4930)[:150]]
    figures = known_latencies(rows)
    phone = 3 * figures**1.3 * np.random.default_rng(1).uniform(0.7, 1.4, len(figures))
    kind = {"predictor": "latency_gp", "encoding": "latency"}
    asked: dict[str, tuple[Any, dict[str, str]]] = {
        "right": (figures, {**kind, "device": "local", "sources": "all"}),
        "wrong": (figures.min() * figures.max() / figures, {**kind, "device": "local"}),
        "accuracy": (figures, {**kind, "column": "accuracy"}),
        "negative": (figures, {"predictor": "ridge", "encoding": "onehot", "column": "local_latency_ms"}),
    }
    for name, (values, given) in asked.items():
        table = folder / f"{name}.parquet"
        described = [Column(column, "ms", "minimize") for column in ("local_latency_ms", "phone_latency_ms")]
        columns = {"local_latency_ms": values, "phone_latency_ms": phone, "accuracy": values}
        facts = {"local": {"options": Device().options, "identity": Device().identity}}
        Table(ArchBatch(SPACE, rows), columns, [*described, Column("accuracy")], {"devices": facts}).save(table)
        words = [f"{key}={value}" for key, value in given.items()]
        done = in_this_process("fit", *words, "samples=60", f"table={table}", f"hydra.run.dir={folder / name}")
        assert done.returncode == 0, done.stderr
        assert "held-out figures within the 90 % interval: " in done.stdout
    return {name: folder / name / "predictor.safetensors" for name in asked}


class KnownDevice:
    """Stands for `Device.run_jobs`: gives the shipped latencies.

    Args:
        stop: Batches after which it is interrupted.
        refused: Numbers of the models that it refuses.
    """

    def __init__(self, stop: int | None = None, refused: Sequence[int] = ()) -> None:
        self.stop, self.refused = stop, refused
        self.measured: Counter[tuple[int, ...]] = Counter()

    def __get__(self, device: Device, kind: type[Device]) -> Any:
        return partial(self, device)

    def __call__(
        self, device: Device, jobs: Sequence[Job], rng: np.random.Generator, state: Path, residents: int
    ) -> Iterator[list[Outcome]]:
        for start in range(0, len(jobs), 4):
            if self.stop == 0:
                raise KeyboardInterrupt
            self.stop = None if self.stop is None else self.stop - 1
            yield [self._outcome(job.key, device) for job in jobs[start : start + 4]]

    def _outcome(self, key: tuple[int, ...], device: Device) -> Outcome:
        self.measured[key] += 1
        if len(self.measured) - 1 in self.refused:
            return Outcome(key, None, "ONNX Runtime refuses it.")
        value = float(known_latencies(np.array([key]))[0])
        ones = np.ones((1, 1))
        facts = device.options | {"processor": "known"}
        return Outcome(key, Measurement(value, 0.001, 0.001, ones, ones[0], 1.0, 0, 0, 0.0, {}, "job", facts))


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> KnownDevice:
    known = KnownDevice()
    monkeypatch.setattr(Device, "run_jobs", known)
    return known


def overrides(path: Path, *more: str, budget: int = BUDGET) -> list[str]:
    evaluators = ["evaluator=[predicted_latency,table]", "evaluator.table.columns={accuracy:accuracy}"]
    return [*evaluators, f"evaluator.predicted_latency.path={path}", f"budget={budget}", *more]


def true_front(records: Sequence[Record]) -> set[int]:
    """Slots that are non-dominated by the device's own latencies."""
    rows = np.array([record.row for record in records])
    losses = np.stack([-np.array([r.metrics["accuracy"] for r in records]), known_latencies(rows)], axis=1)
    return {record.slot for record, best in zip(records, non_dominated(losses), strict=True) if best}


# -- the evaluator -----------------------------------------------------------------------------------------------------


def evaluator(file: Path, **changes: Any) -> PredictedLatency:
    arguments: dict[str, Any] = {"space": SPACE, "task": TASK, "path": str(file), "device": Device()}
    return PredictedLatency(**(arguments | changes))


def test_latencies_are_predicted_in_batches(fitted: dict[str, Path]) -> None:
    predicted = evaluator(fitted["right"])
    archs = ArchBatch.sample(SPACE, 400, np.random.default_rng(5))
    found = predicted.evaluate(archs, Context(seeds=[0] * 400))
    assert set(found.columns) == set(predicted.provides) == {"latency_ms", "latency_predicted_std_ms"}
    mean, std = predicted.predictor.predict(archs)
    np.testing.assert_array_equal(found.columns["latency_ms"], mean)
    np.testing.assert_array_equal(found.columns["latency_predicted_std_ms"], std)
    errors = np.abs(np.log(mean / known_latencies(archs.rows)))
    assert np.median(errors) < 0.15
    low, high = ([entry[end] for entry in found.provenance] for end in ("low", "high"))
    inside = (low <= known_latencies(archs.rows)) & (known_latencies(archs.rows) <= high)
    assert inside.mean() > 0.6
    other = evaluator(fitted["right"], metric="board_ms")
    assert other.provides == ("board_ms", "board_predicted_std_ms")


def test_a_latency_below_zero_is_no_prediction(fitted: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    predicted = evaluator(fitted["negative"])
    archs = ArchBatch.sample(SPACE, 2, np.random.default_rng(5))
    below = Prediction(np.array([1.0, -0.5]), np.ones(2))
    monkeypatch.setattr(predicted.predictor, "predict", lambda archs: below)
    with pytest.raises(PredictorError, match=r"Regression predicts -0\.5 for \|.*predictor=latency_auto"):
        predicted.evaluate(archs, Context(seeds=[0, 0]))


def rewritten(path: Path, out: Path, change: Any) -> Path:
    with safe_open(path, "numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dictionary)
        meta = json.loads(file.metadata()["nasflow"])
    change(meta)
    save_file(arrays, out, {"nasflow": json.dumps(meta)})
    return out


def foreign(meta: dict[str, Any]) -> None:
    meta["facts"]["identity"]["encoding"]["encodings"]["costs"] = {"_target_": "os.system", "command": "false"}


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"space": NB201("full")}, PredictorError, "figures of another space or scale do not carry over"),
        ({"space": NB201("small", stem=3)}, PredictorError, "figures of another space or scale do not carry over"),
        ({"task": Digits(size=16)}, ConfigError, r"but task 'digits_16' has input_shape \[1, 16, 16\]"),
        ({"device": Device(precision="int8")}, ConfigError, "measured with precision fp32 and not int8"),
        ({"device": Device(batch=8)}, ConfigError, "measured with batch 1 and not 8"),
        ({"metric": "latency"}, ConfigError, "does not end in '_ms'"),
        ({"content": "other"}, PredictorError, "holds another predictor than when the study began"),
        ({"path": "nowhere.safetensors"}, PredictorError, "There is no predictor"),
    ],
)
def test_a_predictor_of_something_else_is_refused(
    changes: dict[str, Any], error: type[Exception], says: str, fitted: dict[str, Path]
) -> None:
    with pytest.raises(error, match=says):
        evaluator(fitted["right"], **changes)


def test_wrong_files_are_refused(fitted: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="predicts 'accuracy' in no unit, but a latency is in ms"):
        evaluator(fitted["accuracy"])
    out = tmp_path / "predictor.safetensors"
    with pytest.raises(PredictorError, match="names os.system, which is no predictor, encoding or estimator"):
        evaluator(rewritten(fitted["right"], out, foreign))
    with pytest.raises(PredictorError, match="does not say what it was fitted with"):
        evaluator(rewritten(fitted["right"], out, lambda meta: meta["facts"].clear()))
    with pytest.raises(PredictorError, match="has predictor schema 0"):
        evaluator(rewritten(fitted["right"], out, lambda meta: meta.update(schema=0)))
    out.write_bytes(fitted["right"].read_bytes()[:-9])
    with pytest.raises(PredictorError, match="is damaged"):
        evaluator(out)


def test_another_machine_is_told(
    fitted: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def elsewhere(meta: dict[str, Any]) -> None:
        meta["facts"]["target"]["device"] |= {"identity": "other", "environment": {"processor": "Some board"}}

    evaluator(fitted["right"])
    assert "another machine" not in caplog.text
    evaluator(rewritten(fitted["right"], tmp_path / "other.safetensors", elsewhere))
    assert "another machine or with other versions (processor Some board" in caplog.text
    assert not evaluator(tmp_path / "other.safetensors")._references, "their anchors tell nothing of this machine"


def test_a_refused_predictor_leaves_no_trace(fitted: dict[str, Path], tmp_path: Path) -> None:
    given = ["search", *overrides(fitted["right"]), "device=local_int8", f"hydra.run.dir={tmp_path / 'run'}"]
    done = in_this_process(*given)
    assert done.returncode == 2
    assert "precision fp32 and not int8" in " ".join(done.stderr.split())
    assert not (tmp_path / "run" / "study.journal").exists()
    nothing = in_this_process("search", "evaluator=[predicted_latency,table]", f"hydra.run.dir={tmp_path / 'run'}")
    assert "evaluator.predicted_latency.path must be given" in nothing.stderr


# -- searches ----------------------------------------------------------------------------------------------------------


def test_the_front_is_one_of_measured_figures(fitted: dict[str, Path], tmp_path: Path, device: KnownDevice) -> None:
    run, models = search(*overrides(fitted["right"]), folder=tmp_path)
    records = run.study.verified()
    assert {model.slot for model in models} == true_front(records) == set(slots(run.front(records)))
    assert set(device.measured.values()) == {1}
    assert len(models) <= len(device.measured) < BUDGET / 2, "a good predictor spares the rest"
    for one in run.front(records):
        assert one.metrics["latency_ms"] == pytest.approx(float(known_latencies(one.row[None])[0]))
        before = run.study.records()[one.slot].metrics["latency_ms"]
        assert one.metrics["latency_predicted_ms"] == before != one.metrics["latency_ms"]
        assert unmeasured(run.study.records()[one.slot]) == ["latency_ms"]
    entries = json.loads((tmp_path / "models" / "models.json").read_text())
    assert [entry["devices"] for entry in entries] == [["local"]] * len(models), "as measured"
    assert all(entry["metrics"].keys() >= {"latency_ms", "latency_predicted_ms"} for entry in entries)

    page = (tmp_path / "report.html").read_text()
    assert "Predicted and measured" in page
    assert "Where it was not measured it is predicted." in page
    assert (tmp_path / "plots" / "predictions_0.png").is_file()
    assert "Measured latency is" in page and "Kendall&#x27;s tau-b" in page
    assert f"{len(device.measured)} measurements beside the prediction" in page
    assert "(predicted)" in page, "what was not measured says so"
    assert "Not all candidates are measured" not in page


def test_a_wrong_predictor_is_flagged_and_its_front_mended(
    fitted: dict[str, Path], tmp_path: Path, device: KnownDevice, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    run, models = search(*overrides(fitted["wrong"]), folder=tmp_path)
    records = run.study.verified()
    assert {model.slot for model in models} == true_front(records)
    predicted = run.front(run.study.records())
    assert set(slots(predicted)) != true_front(records), "the prediction alone names others"
    found = [check for one in records for check in checks(one)]
    assert np.mean([check.disagrees for check in found]) > 0.5
    told = [model for model in models if model.disagreements]
    assert told
    assert re.search(r"\(latency_ms .* outside of the 90 % interval from .* to .*\)$", told[0].describe())
    entries = json.loads((tmp_path / "models" / "models.json").read_text())
    assert {e["slot"] for e in entries if e["disagreements"]} == {model.slot for model in told}
    page = (tmp_path / "report.html").read_text()
    assert f"Prediction and measurement disagree</strong> on {len(told)} of the {len(models)} models" in page
    assert "outside of it" in page
    assert f"{sum(check.disagrees for check in found)} of {len(found)} measured figures lie outside" in caplog.text


def test_an_interrupted_measuring_goes_on(
    fitted: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: KnownDevice
) -> None:
    whole, _ = search(*overrides(fitted["wrong"]), folder=tmp_path / "whole")
    stopped = KnownDevice(stop=1)
    monkeypatch.setattr(Device, "run_jobs", stopped)
    with pytest.raises(KeyboardInterrupt):
        search(*overrides(fitted["wrong"]), folder=tmp_path / "cut")
    assert len(stopped.measured) == 4

    done = in_this_process("report", f"run={tmp_path / 'cut'}")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "cut" / "report.html").read_text()
    assert "Not all candidates are measured" in page
    before = Search.load(tmp_path / "cut")
    assert {one.slot for one in before.front(before.study.verified())} <= {
        one.slot for one in before.study.verified() if checks(one)
    }

    rest = KnownDevice()
    monkeypatch.setattr(Device, "run_jobs", rest)
    run, models = search(*overrides(fitted["wrong"]), folder=tmp_path / "cut")
    assert not rest.measured.keys() & stopped.measured.keys(), "nothing is measured twice"
    assert {model.slot for model in models} == true_front(run.study.verified())
    assert set(slots(whole.front(whole.study.verified()))) == {model.slot for model in models}
    again = KnownDevice()
    monkeypatch.setattr(Device, "run_jobs", again)
    search(*overrides(fitted["wrong"]), folder=tmp_path / "cut")
    assert not again.measured


def test_a_larger_budget_continues_as_if_nothing_had_been_measured(
    fitted: dict[str, Path], tmp_path: Path, device: KnownDevice
) -> None:
    search(*overrides(fitted["wrong"], budget=20), folder=tmp_path / "two")
    first = dict(device.measured)
    run, models = search(*overrides(fitted["wrong"]), folder=tmp_path / "two")
    assert all(device.measured[key] == 1 for key in first)
    assert {model.slot for model in models} == true_front(run.study.verified())
    whole, _ = search(*overrides(fitted["wrong"]), folder=tmp_path / "one")
    rows = [[one.row.tolist() for one in r.study.records()] for r in (run, whole)]
    assert rows[0] == rows[1]
    figures = [[dict(one.metrics) for one in r.study.records()] for r in (run, whole)]
    assert figures[0] == figures[1]


def test_a_model_that_the_device_refuses_is_no_candidate(
    fitted: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing = KnownDevice(refused=[0])
    monkeypatch.setattr(Device, "run_jobs", refusing)
    run, models = search(*overrides(fitted["right"]), folder=tmp_path)
    (failed,) = [one for one in run.study.verified() if one.state == "failed"]
    assert failed.error == "latency_ms could not be measured: ONNX Runtime refuses it."
    assert failed.slot not in {model.slot for model in models}
    assert {model.slot for model in models} == true_front([o for o in run.study.verified() if o.state == "complete"])
    assert "ONNX Runtime refuses it." in (tmp_path / "report.html").read_text()


def test_a_device_that_gives_nothing_is_told(
    fitted: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Device, "run_jobs", lambda *given: iter(()))
    with pytest.raises(DeviceError, match="local gave no figures of"):
        search(*overrides(fitted["right"], budget=5), folder=tmp_path)


def test_a_bound_that_only_predictions_meet_is_not_met(
    fitted: dict[str, Path], tmp_path: Path, device: KnownDevice
) -> None:
    bounded = ["objective=accuracy", "+objective.latency_ms.at_most=0.036"]
    run, (model,) = search(*overrides(fitted["right"], *bounded, budget=20), folder=tmp_path / "met")
    assert model.metrics["latency_ms"] <= 0.036
    fits = [r for r in run.study.verified() if r.state == "complete" and known_latencies(r.row[None])[0] <= 0.036]
    assert model.metrics["accuracy"] == max(r.metrics["accuracy"] for r in fits)
    bounded[1] = "+objective.latency_ms.at_most=0.038"
    with pytest.raises(InfeasibleError, match="meets latency_ms at most 0.038"):
        search(*overrides(fitted["wrong"], *bounded, budget=6), folder=tmp_path / "missed")
    missed = Search.load(tmp_path / "missed").study
    predicted_to_fit = [r for r in missed.records() if r.state == "complete"]
    assert predicted_to_fit
    assert all(checks(one) for one in missed.verified() if one.state == "complete"), "all were tried"


def test_each_predicted_metric_is_measured_on_its_own_device(
    fitted: dict[str, Path], tmp_path: Path, device: KnownDevice
) -> None:
    second = "{_target_:nasflow.evaluators.PredictedLatency,metric:board_ms,device:${device},"
    given = [
        f"+evaluator.board={second}path:{fitted['wrong']}}}",
        "+objective.board_ms.direction=minimize",
        "storage=sqlite",
        f"storage.url=sqlite:///{tmp_path / 'study.db'}",
    ]
    run, models = search(*overrides(fitted["right"], *given, budget=12), folder=tmp_path / "run")
    records = run.study.verified()
    assert {model.slot for model in models} == true_front(records), "both devices are the same one in truth"
    for one in run.front(records):
        assert one.metrics["board_ms"] == one.metrics["latency_ms"]
        assert one.metrics["board_predicted_ms"] != one.metrics["latency_predicted_ms"]
        assert [check.metric for check in checks(one)] == ["latency_ms", "board_ms"]
    assert {path.name for path in (tmp_path / "run" / "plots").glob("predictions*")} == {
        "predictions_0.png", "predictions_1.png"
    }  # fmt: skip


# -- for real ----------------------------------------------------------------------------------------------------------


def test_collect_fit_and_search(tmp_path: Path) -> None:
    folder = {name: tmp_path / name for name in ("set", "predictor", "run")}

    def nasflow(job: str, *arguments: str) -> str:
        done = in_this_process(job, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    nasflow("collect", *QUICK, "device=local", "n=16", f"hydra.run.dir={folder['set']}")
    given = ["predictor=latency_auto", "encoding=latency", "device=local", f"table={folder['set'] / DATASET}"]
    nasflow("fit", *given, "samples=16", f"hydra.run.dir={folder['predictor']}")
    path = folder["predictor"] / "predictor.safetensors"
    arguments = ["evaluator=[costs,predicted_latency,train]", f"evaluator.predicted_latency.path={path}"]
    told = nasflow("search", *QUICK, *arguments, "trainer.epochs=1", "budget=5", f"hydra.run.dir={folder['run']}")
    run = Search.load(folder["run"])
    records = run.study.verified()
    front = run.front(records)
    assert f"{len(front)} non-dominated models" in told
    assert all(one.metrics["latency_predicted_ms"] > 0 and one.metrics["latency_ms"] > 0 for one in front)
    assert all(one.provenance["measured_latency_ms"]["operators"] for one in front)
    entries = json.loads((folder["run"] / "models" / "models.json").read_text())
    assert all(entry["trained"] and entry["test_accuracy"] > 0 for entry in entries)
    kept = {one.slot for one in records if weights_path(folder["run"], one.slot, one.row).exists()}
    assert kept == {one.slot for one in records if one in front or unmeasured(one)}
    scales = [folder["set"] / ANCHORS, folder["run"] / "anchors" / "latency_ms.json"]
    first, second = (json.loads(scale.read_text())["references_ms"] for scale in scales)
    assert first == second, "what was predicted and what was measured are on one scale"


def test_a_changed_predictor_is_noticed(fitted: dict[str, Path], tmp_path: Path, device: KnownDevice) -> None:
    path = tmp_path / "predictor.safetensors"
    path.write_bytes(fitted["right"].read_bytes())
    search(*overrides(path, budget=3), folder=tmp_path / "run")
    path.write_bytes(fitted["wrong"].read_bytes())
    done = in_this_process("search", *overrides(path, budget=4), f"hydra.run.dir={tmp_path / 'run'}")
    assert done.returncode == 1
    assert "evaluator.predicted_latency.content: was" in " ".join(done.stderr.split())
    with pytest.raises(PredictorError, match="holds another predictor than when the study began"):
        Search.load(tmp_path / "run").verify()


def test_a_killed_measuring_is_taken_up(fitted: dict[str, Path], tmp_path: Path) -> None:
    """Killed with SIGKILL once something is measured, for real and by the device of the search."""
    slow = ("device.rounds=10", "device.runs_per_round=5", "device.restarts=2")
    given = ["search", *overrides(fitted["wrong"], *slow, budget=30), f"hydra.run.dir={tmp_path / 'run'}"]
    journal = tmp_path / "run" / "study.journal"
    process = subprocess.Popen([sys.executable, "-m", "nasflow.cli", *given], stderr=subprocess.DEVNULL)
    while process.poll() is None and not (journal.exists() and b'"measured:' in journal.read_bytes()):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    before = [text.partition('"')[0] for text in journal.read_text().split('"measured:')[1:]]
    assert before
    assert in_this_process(*given).returncode == 0
    after = Counter(text.partition('"')[0] for text in journal.read_text().split('"measured:')[1:])
    assert set(after.values()) == {1}
    assert set(before) < set(after)
    run = Search.load(tmp_path / "run")
    assert all(checks(one) for one in run.front(run.study.verified()))
