"""Finished models: ONNX files with their weights and what is known of them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from nasflow.study.study import Record
from searchspaces.errors import NetworkError
from searchspaces.files import replacing, write_bytes, write_text
from searchspaces.network import Arrays, to_onnx
from searchspaces.space import SearchSpace
from searchspaces.task import Task


@dataclass(frozen=True)
class Model:
    """A non-dominated network of a search.

    Attributes:
        slot: The slot that found it.
        path: The ONNX file, relative to the search's folder.
        arch: The architecture in the space's notation.
        trained: Whether the file holds trained weights or random ones.
        metrics: What the search measured.
        test_accuracy: Accuracy of the ONNX file on the task's test images, where it was trained.
    """

    slot: int
    path: str
    arch: str
    trained: bool
    metrics: Mapping[str, float]
    test_accuracy: float | None = None

    def describe(self) -> str:
        """Return one line for people."""
        figures = [f"{name} {value:.4g}" for name, value in self.metrics.items()]
        if self.test_accuracy is not None:
            figures.append(f"test_accuracy {self.test_accuracy:.4g}")
        return f"{self.path}  {', '.join(figures)}  {self.arch}"


def weights_path(folder: Path, slot: int, row: NDArray[np.int64]) -> Path:
    """Where a search keeps the trained weights of architecture `row` in a slot.

    The row is part of the name, for a slot that is given to another worker may come to hold another architecture.
    """
    digest = sha256(row.astype(np.int64).tobytes()).hexdigest()[:8]
    return folder / "weights" / f"slot_{slot:04d}_{digest}.safetensors"


def save_weights(path: Path, weights: Arrays) -> None:
    """Write weights, replacing a former file in one step."""
    with replacing(path) as partial:
        # safetensors writes the memory as it lies, whatever its strides.
        save_file({key: np.ascontiguousarray(array) for key, array in weights.items()}, partial)


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


def check_onnx(model: bytes, name: str) -> None:
    """Load a model in ONNX Runtime.

    Raises:
        NetworkError: If ONNX Runtime refuses it.
    """
    try:
        onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no public base class
        reason = str(error).splitlines()[0]
        raise NetworkError(f"ONNX Runtime {onnxruntime.__version__} refuses {name}: {reason}") from error


def write_models(
    folder: Path, records: Sequence[Record], front: Sequence[Record], space: SearchSpace, task: Task
) -> list[Model]:
    """Write `models/slot_NNNN.onnx` for the front, beside it the weights where it was trained, and `models.json`.

    Models of other records, which a former call wrote, are deleted.
    """
    target = folder / "models"
    models = [_write(folder, record, space, task) for record in sorted(front, key=lambda record: record.slot)]
    for slot in {record.slot for record in records} - {model.slot for model in models}:
        for path in target.glob(f"slot_{slot:04d}*"):
            path.unlink()
    write_text(target / "models.json", json.dumps([asdict(model) for model in models], indent=1))
    return models


def _write(folder: Path, record: Record, space: SearchSpace, task: Task) -> Model:
    from nasflow.tasks import ImageTask
    from nasflow.training import onnx_accuracy

    network = space.network(record.row, task)
    source = weights_path(folder, record.slot, record.row)
    trained = source.exists()
    weights = load_weights_file(source) if trained else None
    stem = f"slot_{record.slot:04d}" + ("" if trained else "_untrained")
    path = folder / "models" / f"{stem}.onnx"
    data = to_onnx(network, weights).SerializeToString()
    check_onnx(data, str(path))
    write_bytes(path, data)
    if weights is not None:
        save_weights(path.with_suffix(".safetensors"), weights)
    accuracy = onnx_accuracy(data, task, "test") if trained and isinstance(task, ImageTask) else None
    return Model(
        slot=record.slot,
        path=str(path.relative_to(folder)),
        arch=space.format(record.row[None])[0],
        trained=trained,
        metrics=dict(record.metrics),
        test_accuracy=accuracy,
    )
