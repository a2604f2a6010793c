"""Accuracy and loss of a network with given weights, in torch or in ONNX Runtime."""

from dataclasses import dataclass

import numpy as np
import onnxruntime
import torch
from torch import nn
from torch.nn import functional

from nasflow.tasks.base import ImageTask
from nasflow.training.batches import Batches, resize
from nasflow.training.runtime import check_fits, torch_device, torch_threads
from searchspaces.errors import TrainingError
from searchspaces.network import Arrays, Network, to_torch

BATCH_SIZE = 256


@dataclass(frozen=True)
class Score:
    """How well a network classifies a split.

    Attributes:
        accuracy: Share of images whose largest output is that of their class, 0 to 1.
        loss: Mean cross-entropy in nats, without label smoothing.
    """

    accuracy: float
    loss: float


def evaluate(
    network: Network,
    weights: Arrays,
    task: ImageTask,
    split: str = "valid",
    device: str = "auto",
    threads: int | None = None,
) -> Score:
    """Score a network in torch.

    Args:
        network: The network.
        weights: Its weights, keyed `<node>.<weight>`.
        task: Where the images come from.
        split: `train`, `valid` or `test`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        threads: Threads of torch; None leaves them as they are.

    Raises:
        TrainingError: If the network does not fit the task.
        NetworkError: If weights are missing or have other shapes.
    """
    check_fits(network, task)
    place = torch_device(device)
    batches = Batches(task.splits[split], _size(network.input_shape), place)
    with torch_threads(threads):
        return score(to_torch(network, weights).to(place), batches)


def score(module: nn.Module, batches: Batches) -> Score:
    """Score a module in evaluation mode, and leave it in the mode it was in."""
    mode = module.training
    module.eval()
    correct, loss = 0.0, 0.0
    with torch.inference_mode():
        for images, labels in batches.in_order(BATCH_SIZE):
            outputs = module(images)
            correct += float((outputs.argmax(dim=1) == labels).sum())
            loss += float(functional.cross_entropy(outputs, labels, reduction="sum"))
    module.train(mode)
    return Score(correct / len(batches.labels), loss / len(batches.labels))


def evaluate_onnx(model: bytes, task: ImageTask, split: str = "test", threads: int = 1) -> Score:
    """Score an ONNX model, fp32 or quantized, in ONNX Runtime on the CPU: the figure of what is shipped.

    Args:
        model: The serialised model, with one input `(batch, c, h, w)` of fixed sizes and one output.
        task: Where the images come from; they are resized as in training.
        split: `train`, `valid` or `test`.
        threads: Threads of ONNX Runtime.

    Raises:
        TrainingError: If ONNX Runtime refuses the model, or the model does not fit the task.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no common base of their own
        raise TrainingError(
            f"ONNX Runtime {onnxruntime.__version__} refuses the model of {len(model):,} bytes: {error} "
            "Check it with onnx.checker, or export the architecture again."
        ) from error
    return _score_session(session, task, split)


def _score_session(session: onnxruntime.InferenceSession, task: ImageTask, split: str) -> Score:
    (entry,), (exit_,) = session.get_inputs(), session.get_outputs()
    batch, channels, *size = entry.shape
    if channels != task.input_shape[0] or exit_.shape[1:] != [task.classes]:
        raise TrainingError(
            f"Task {task.name!r} has images of {task.input_shape[0]} channels and {task.classes} classes, but the model "
            f"takes {entry.shape} and gives {exit_.shape}: use the model that was made for this task."
        )
    images = torch.from_numpy(task.splits[split].images)
    outputs = []
    for piece in images.split(batch):
        full = torch.cat([piece, piece[-1:].expand(batch - len(piece), -1, -1, -1)])  # the batch size is fixed
        resized = resize(full, (size[0], size[1])).numpy()
        outputs.append(session.run(None, {entry.name: resized})[0][: len(piece)])
    labels = task.splits[split].labels
    logits = torch.from_numpy(np.concatenate(outputs))
    accuracy = float(np.mean(logits.argmax(dim=1).numpy() == labels))
    return Score(accuracy, float(functional.cross_entropy(logits, torch.from_numpy(labels))))


def _size(shape: tuple[int, ...]) -> tuple[int, int]:
    return shape[1], shape[2]
