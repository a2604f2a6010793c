"""Finished models: ONNX files with their weights and what is known of them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from devices import Device
from nasflow.study.predictions import checks
from nasflow.study.records import Record
from nasflow.tasks import ImageTask
from nasflow.training import onnx_accuracy
from nasflow.training.batches import resize
from nasflow.training.evaluation import image_size
from searchspaces.errors import ConfigError, NetworkError
from searchspaces.files import write_bytes, write_text
from searchspaces.network import Arrays, Network, init_weights, to_onnx
from searchspaces.space import SearchSpace
from searchspaces.task import Task

_CALIBRATED = 128  # images that ranges of int8 are calibrated on


@dataclass(frozen=True)
class Model:
    """A non-dominated network of a search, in the form that its latency was measured in.

    Attributes:
        slot: The slot that found it.
        path: The ONNX file.
        arch: The architecture in the space's notation.
        trained: Whether the file holds trained weights or random ones.
        metrics: What the search measured: latencies of this form, the accuracy at fp32.
        precision: `fp32` or `int8`.
        batch: Images that the file takes at once.
        devices: The devices whose latencies the search measured in this form.
        test_accuracy: Accuracy of the ONNX file on the task's test images, where it was trained.
        fp32_test_accuracy: That of the same weights before they were quantized, where they were.
        disagreements: In words, where a measured figure lies outside of the 90 % interval that was predicted for it.
        metadata: What the file says of itself, see `metadata`.
    """

    slot: int
    path: Path
    arch: str
    trained: bool
    metrics: Mapping[str, float]
    precision: str = "fp32"
    batch: int = 1
    devices: tuple[str, ...] = ()
    test_accuracy: float | None = None
    fp32_test_accuracy: float | None = None
    disagreements: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def form(self) -> str:
        """Precision and, where it is not 1, batch, for people."""
        return form(self.precision, self.batch)

    def describe(self) -> str:
        """Return one line for people."""
        figures = [f"{name} {value:.4g}" for name, value in self.metrics.items()]
        if self.test_accuracy is not None:
            figures.append(f"test_accuracy {self.test_accuracy:.4g}")
        if self.fp32_test_accuracy is not None:
            figures.append(f"at fp32 {self.fp32_test_accuracy:.4g}")
        told = "".join(f"  ({text})" for text in self.disagreements)
        return f"{self.path}  {self.form}, {', '.join(figures)}  {self.arch}{told}"


def form(precision: str, batch: int) -> str:
    """Name a precision and, where it is not 1, a batch size."""
    return precision + (f", batch {batch}" if batch != 1 else "")


def weights_path(folder: Path, slot: int, row: NDArray[np.int64]) -> Path:
    """Where a search keeps the trained weights of architecture `row` in a slot.

    The row is part of the name, for a slot that is given to another worker may come to hold another architecture.
    """
    digest = sha256(row.astype(np.int64).tobytes()).hexdigest()[:8]
    return folder / "weights" / f"slot_{slot:04d}_{digest}.safetensors"


def save_weights(path: Path, weights: Arrays) -> None:
    """Write weights, replacing a former file in one step."""
    # safetensors takes the memory as it lies, whatever its strides. Its own files have names that nothing cleans up.
    write_bytes(path, save({key: np.ascontiguousarray(array) for key, array in weights.items()}))


def load_weights_file(path: Path) -> Arrays:
    """Read weights.

    Raises:
        NetworkError: If the file is missing or no safetensors file.
    """
    try:
        return dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise NetworkError(
            f"{path} cannot be read as safetensors weights: {error}. Give a file that a search or an export wrote."
        ) from error


def _check_onnx(model: bytes, name: str) -> None:
    """Load a model in ONNX Runtime.

    Raises:
        NetworkError: If ONNX Runtime refuses it.
    """
    try:
        onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no public base class
        reason = str(error).splitlines()[0]
        raise NetworkError(f"ONNX Runtime {onnxruntime.__version__} refuses {name}: {reason}") from error


def metadata(space: SearchSpace, row: NDArray[np.int64], task: Task, trained: bool) -> dict[str, Any]:
    """Return what a deployment must know of a model, JSON-able.

    Returns:
        - `nasflow_version`: The version that wrote the model.
        - `space`, `scale`, `arch`: The architecture, and the numbers that decide its size.
        - `task`, `classes`: What the model tells apart; its output is a score per class.
        - `input_shape`: Channels, height and width of an image.
        - `mean`, `std`: Per channel, for a trained model: it takes `(raw - mean) / std` of the raw images.
    """
    facts = {
        "nasflow_version": version("nasflow"),
        "space": space.name,
        "scale": space.scale_arguments,
        "arch": space.format(row[None])[0],
        "task": task.name,
        "classes": task.classes,
        "input_shape": list(space.network(row, task).input_shape),
    }
    if trained and isinstance(task, ImageTask):
        facts |= {"mean": task.splits.mean.tolist(), "std": task.splits.std.tolist()}
    return facts


def deployable(
    space: SearchSpace,
    row: NDArray[np.int64],
    task: Task,
    device: Device,
    weights: Arrays | None = None,
    seed: int = 0,
) -> bytes:
    """Return one architecture as the ONNX model that `device` runs, checked in ONNX Runtime.

    Its `metadata_props` hold what `metadata` returns: words as they are, all else as JSON. Ranges of int8 are
    calibrated on training images; on random ones where there are no trained weights.

    Args:
        space: The search space.
        row: The architecture, shape `(genes,)`.
        task: The task that it is built for.
        device: Decides precision and batch.
        weights: Trained weights, keyed `<node>.<weight>`; drawn when absent.
        seed: Seed of the drawn weights.

    Raises:
        ConfigError: If trained weights are to be quantized, and the task has no images to calibrate on.
        DeviceError: If the network cannot be quantized.
        NetworkError: If the weights do not belong to the network, or ONNX Runtime refuses the model.
    """
    network = space.network(row, task)
    images = None
    if weights is not None and device.precision != "fp32":
        if not isinstance(task, ImageTask):
            raise ConfigError(f"{device.precision} needs images to calibrate on, and task {task.name!r} has none.")
        images = _calibration_images(task, network, device.batch)
    drawn = init_weights(network, seed) if weights is None else weights
    model = onnx.load_from_string(device.prepare(network, drawn, images))
    facts = metadata(space, row, task, trained=weights is not None)
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()}
    onnx.helper.set_model_props(model, texts)
    data = bytes(model.SerializeToString())
    _check_onnx(data, facts["arch"])
    return data


def _calibration_images(task: ImageTask, network: Network, batch: int) -> NDArray[np.float32]:
    """Draw training images, for files may hold them class by class, in the size that the network takes."""
    images = task.splits.train.images
    drawn = np.random.default_rng(0).permutation(len(images))[: max(_CALIBRATED, batch)]
    resized: NDArray[np.float32] = resize(torch.from_numpy(images[drawn]), image_size(network)).numpy()
    return resized


def write_models(
    folder: Path, records: Sequence[Record], front: Sequence[Record], space: SearchSpace, task: Task
) -> list[Model]:
    """Write the front into `models/`: ONNX files, the fp32 weights of those that were trained, and `models.json`.

    A network has a file for each precision and batch that its latency was measured in; fp32 and 1 where none was.
    Files of other records, which a former call wrote, are deleted.
    """
    target = folder / "models"
    ordered = sorted(front, key=lambda record: record.slot)
    models = [model for record in ordered for model in _write(folder, record, space, task)]
    kept = {path for model in models for path in (model.path, _weights_beside(target, model.slot))}
    for record in records:
        for pattern in (f"slot_{record.slot:04d}.*", f"slot_{record.slot:04d}_*"):
            for path in set(target.glob(pattern)) - kept:
                path.unlink()
    entries = [asdict(model) | {"path": str(model.path.relative_to(folder))} for model in models]
    write_text(target / "models.json", json.dumps(entries, indent=1))
    return models


def _write(folder: Path, record: Record, space: SearchSpace, task: Task) -> list[Model]:
    source = weights_path(folder, record.slot, record.row)
    weights = load_weights_file(source) if source.exists() else None
    if weights is not None:
        save_weights(_weights_beside(folder / "models", record.slot), weights)
    return [
        _write_form(folder, record, space, task, weights, Device(precision=precision, batch=batch), names)
        for (precision, batch), names in _forms(record).items()
    ]


def _weights_beside(target: Path, slot: int) -> Path:
    return target / f"slot_{slot:04d}.safetensors"


def _forms(record: Record) -> dict[tuple[str, int], list[str]]:
    """Precisions and batches that latencies of a record were measured in, each with the devices' names."""
    forms: dict[tuple[str, int], list[str]] = {}
    for notes in record.provenance.values():
        facts = notes.get("environment") if isinstance(notes, Mapping) else None
        if isinstance(facts, Mapping) and {"device", "precision", "batch"} <= facts.keys():
            forms.setdefault((facts["precision"], facts["batch"]), []).append(facts["device"])
    return forms or {("fp32", 1): []}


def _write_form(
    folder: Path,
    record: Record,
    space: SearchSpace,
    task: Task,
    weights: Arrays | None,
    device: Device,
    names: Sequence[str],
) -> Model:
    quantized = device.precision != "fp32"
    parts = [device.precision] * quantized + [f"batch{device.batch}"] * (device.batch != 1)
    parts += ["untrained"] * (weights is None)
    path = folder / "models" / f"{'_'.join([f'slot_{record.slot:04d}', *parts])}.onnx"
    data = deployable(space, record.row, task, device, weights)
    write_bytes(path, data)
    accuracy = fp32_accuracy = None
    if weights is not None and isinstance(task, ImageTask):
        accuracy = onnx_accuracy(data, task)
        if quantized:
            fp32_accuracy = onnx_accuracy(to_onnx(space.network(record.row, task), weights).SerializeToString(), task)
    return Model(
        slot=record.slot,
        path=path,
        arch=space.format(record.row[None])[0],
        trained=weights is not None,
        metrics=dict(record.metrics),
        precision=device.precision,
        batch=device.batch,
        devices=tuple(names),
        test_accuracy=accuracy,
        fp32_test_accuracy=fp32_accuracy,
        disagreements=tuple(str(check) for check in checks(record) if check.disagrees),
        metadata=metadata(space, record.row, task, weights is not None),
    )
