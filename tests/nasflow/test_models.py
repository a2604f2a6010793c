"""What a search hands back: the models in the form that they were measured in, and what they say of themselves."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from devices import Device
from nasflow.flow import search
from nasflow.models import Model, deployable, metadata, save_weights, weights_path, write_models
from nasflow.study.records import Record
from nasflow.tasks import Digits
from nasflow.training import onnx_accuracy
from searchspaces.errors import ConfigError
from searchspaces.nb201 import NB201
from searchspaces.network import init_weights
from searchspaces.task import Task

SPACE, TASK = NB201("small"), Digits()
ROW = np.array([3, 1, 3, 2, 4, 3])
QUICK = ["space=nb201", "trainer.epochs=1", "device.rounds=2", "device.runs_per_round=2", "device.restarts=1"]


def operators(path: Path) -> set[str]:
    return {node.op_type for node in onnx.load(path).graph.node}


def entries(folder: Path) -> list[dict[str, Any]]:
    return list(json.loads((folder / "models" / "models.json").read_text()))


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray[Any, Any]]:
    return init_weights(SPACE.network(ROW, TASK), seed=1)


def record(slot: int, *devices: Device) -> Record:
    provenance = {f"measure_{i}": {"metric": "latency_ms", "environment": d.options} for i, d in enumerate(devices)}
    return Record(slot, slot, ROW, "complete", {"accuracy": 0.5}, provenance=provenance)


def written(folder: Path, weights: dict[str, np.ndarray[Any, Any]], *devices: Device) -> list[Model]:
    found = record(3, *devices)
    save_weights(weights_path(folder, 3, ROW), weights)
    return write_models(folder, [found], [found], SPACE, TASK)


def test_an_int8_search_hands_back_int8_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run, models = search(*QUICK, "device=local_int8", "budget=3", folder="some/run")
    report = (run.folder / "report.html").read_text()
    for model, entry in zip(models, entries(run.folder), strict=True):
        assert model.path.is_file() and not model.path.is_absolute(), "as the caller named the folder"
        assert {"QuantizeLinear", "DequantizeLinear"} <= operators(model.path)
        measured = run.study.records()[model.slot].provenance["measure"]
        assert any("QLinearConv" in op for op in measured["operators"]) or "Conv" not in operators(model.path)
        assert model.test_accuracy == onnx_accuracy(model.path.read_bytes(), run.task)
        assert model.path.with_name(f"slot_{model.slot:04d}.safetensors").is_file()
        assert run.folder / entry["path"] == model.path
        assert (entry["precision"], entry["batch"], entry["devices"]) == ("int8", 1, ["local_int8"])
        assert entry["test_accuracy"] == model.test_accuracy
        noted = run.study.records()[model.slot].provenance["train"]["test_accuracy"]
        assert entry["fp32_test_accuracy"] == pytest.approx(noted, abs=0.005)
        assert f'{entry["fp32_test_accuracy"]:.4f} <small>fp32</small>' in report
        assert f'{entry["test_accuracy"]:.4f} <small>int8</small>' in report
    assert "; int8</p>" in report


def test_a_search_in_batches_hands_back_that_batch(tmp_path: Path) -> None:
    given = ["device=local_batch8", "objective=accuracy", "+objective.latency_ms.at_most=1000", "budget=2"]
    run, models = search(*QUICK, *given, folder=tmp_path)
    for model in models:
        assert session(model.path).get_inputs()[0].shape == [8, 1, 8, 8]
        assert "QuantizeLinear" not in operators(model.path)
        assert model.test_accuracy == onnx_accuracy(model.path.read_bytes(), run.task)
        assert (model.precision, model.batch, model.fp32_test_accuracy) == ("fp32", 8, None)
        card = (tmp_path / "report.html").read_text().partition(f'<article id="slot-{model.slot}"')[2]
        assert "latency" in card.partition("</p>")[0], "a metric that is only bounded"
        assert card.partition("</p>")[0].endswith("; fp32, batch 8")


def test_without_a_device_models_are_fp32_and_take_one_image(
    tmp_path: Path, weights: dict[str, np.ndarray[Any, Any]]
) -> None:
    (model,) = written(tmp_path, weights)
    assert model.path == tmp_path / "models" / "slot_0003.onnx"
    assert (model.precision, model.batch, model.devices, model.fp32_test_accuracy) == ("fp32", 1, (), None)
    assert session(model.path).get_inputs()[0].shape == [1, 1, 8, 8]


def test_each_form_that_was_measured_has_a_file(tmp_path: Path, weights: dict[str, np.ndarray[Any, Any]]) -> None:
    devices = [Device("a"), Device("b", threads=2), Device("c", precision="int8", batch=4)]
    plain, packed = written(tmp_path, weights, *devices)
    assert (plain.path.name, plain.devices) == ("slot_0003.onnx", ("a", "b"))
    assert (packed.path.name, packed.devices) == ("slot_0003_int8_batch4.onnx", ("c",))
    assert packed.fp32_test_accuracy == pytest.approx(plain.test_accuracy)
    names = {path.name for path in (tmp_path / "models").iterdir()}
    assert names == {plain.path.name, packed.path.name, "slot_0003.safetensors", "models.json"}


def test_files_of_other_slots_and_forms_go(tmp_path: Path, weights: dict[str, np.ndarray[Any, Any]]) -> None:
    written(tmp_path, weights, Device())
    far = tmp_path / "models" / "slot_00031.onnx"
    far.write_bytes(b"of slot 31, were it written so")
    written(tmp_path, weights, Device(precision="int8"))
    assert not (tmp_path / "models" / "slot_0003.onnx").exists()
    write_models(tmp_path, [record(3)], [], SPACE, TASK)
    assert {path.name for path in (tmp_path / "models").iterdir()} == {far.name, "models.json"}


def test_int8_ranges_are_those_of_training_images(weights: dict[str, np.ndarray[Any, Any]]) -> None:
    """The scale of the quantized input spans what images hold, not what random numbers do."""
    model = onnx.load_from_string(deployable(SPACE, ROW, TASK, Device(precision="int8"), weights))
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    first = next(node for node in model.graph.node if node.op_type == "QuantizeLinear" and node.input[0] == "input")
    images = TASK.splits.train.images
    span = float(images.max() - images.min())
    assert 255 * float(arrays[first.input[1]]) == pytest.approx(span, rel=0.05)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_metadata_is_read_in_onnx_runtime(weights: dict[str, np.ndarray[Any, Any]], precision: str) -> None:
    data = deployable(SPACE, ROW, TASK, Device(precision=precision), weights)
    found = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).get_modelmeta().custom_metadata_map
    assert set(found) == {
        "nasflow_version", "space", "scale", "arch", "task", "classes", "input_shape", "mean", "std"
    }  # fmt: skip
    assert (found["space"], found["task"], found["arch"]) == ("nb201", "digits", SPACE.format(ROW[None])[0])
    assert json.loads(found["classes"]) == 10
    assert json.loads(found["input_shape"]) == [1, 8, 8]
    assert NB201(**json.loads(found["scale"])).fingerprint == SPACE.fingerprint
    raw = TASK.load()["test"].images.astype(np.float32)
    mean, std = (np.array(json.loads(found[key]), np.float32)[:, None, None] for key in ("mean", "std"))
    np.testing.assert_array_equal((raw - mean) / std, TASK.splits.test.images)


def test_untrained_models_state_no_normalisation() -> None:
    assert not {"mean", "std"} & metadata(SPACE, ROW, TASK, trained=False).keys()


def test_quantizing_needs_images(weights: dict[str, np.ndarray[Any, Any]]) -> None:
    sizes = Task("sizes", TASK.input_shape, TASK.classes)
    with pytest.raises(ConfigError, match="int8 needs images to calibrate on, and task 'sizes' has none"):
        deployable(SPACE, ROW, sizes, Device(precision="int8"), weights)
    assert deployable(SPACE, ROW, sizes, Device(precision="int8")), "for measuring, random images do"
