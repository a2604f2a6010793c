"""Accuracy and loss of a network with given weights, in torch or in ONNX Runtime."""

from dataclasses import dataclass

import numpy as np
import onnxruntime
import torch
from torch import nn
from torch.nn import functional

from nasflow.tasks.base import ImageTask, Split
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
    batches = Batches(task.splits[split], image_size(network), place)
    with torch_threads(threads):
        return score(to_torch(network, weights).to(place), batches)[0]


def score(module: nn.Module, batches: Batches, copies: int = 1) -> list[Score]:
    """Score each of the copies of a network in a module, in evaluation mode; leave it in the mode it was in."""
    mode = module.training
    module.eval()
    correct = loss = torch.zeros(copies, device=batches.labels.device)
    with torch.inference_mode():
        for images, labels in batches.in_order(BATCH_SIZE):
            outputs = module(images.repeat(1, copies, 1, 1)).reshape(len(labels), copies, -1)
            wanted = labels[:, None].expand(-1, copies)
            correct = correct + (outputs.argmax(dim=2) == wanted).sum(dim=0)
            loss = loss + functional.cross_entropy(outputs.transpose(1, 2), wanted, reduction="none").sum(dim=0)
    module.train(mode)
    n = len(batches.labels)
    return [Score(float(c) / n, float(nats) / n) for c, nats in zip(correct, loss, strict=True)]


def onnx_accuracy(model: bytes, task: ImageTask, split: str = "test", threads: int = 1) -> float:
    """Return the accuracy, 0 to 1, of an ONNX model in ONNX Runtime on the CPU: the figure of what is shipped.

    Args:
        model: The serialised model, fp32 or quantized, with one input `(batch, c, h, w)` of fixed sizes and one output.
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
    except Exception as error:  # the errors of ONNX Runtime have no base of their own
        raise TrainingError(
            f"ONNX Runtime {onnxruntime.__version__} refuses the model of {len(model):,} bytes: {error} Check it with "
            "onnx.checker, or export the architecture again."
        ) from error
    (source,), (result,) = session.get_inputs(), session.get_outputs()
    if source.shape[1] != task.input_shape[0] or result.shape[1:] != [task.classes]:
        raise TrainingError(
            f"Task {task.name!r} has images of {task.input_shape[0]} channels and {task.classes} classes, but the "
            f"model takes {source.shape} and gives {result.shape}: use the model that was made for this task."
        )
    return _share_correct(session, task.splits[split])


def _share_correct(session: onnxruntime.InferenceSession, split: Split) -> float:
    source = session.get_inputs()[0]
    batch, _, height, width = source.shape
    correct = 0
    for start in range(0, len(split), batch):
        labels = split.labels[start : start + batch]
        images = split.images[start : start + batch]
        images = np.pad(images, ((0, batch - len(images)), (0, 0), (0, 0), (0, 0)))  # the model's batch size is fixed
        resized = resize(torch.from_numpy(images), (height, width)).numpy()
        outputs = session.run(None, {source.name: resized})[0]
        correct += int((outputs[: len(labels)].argmax(axis=1) == labels).sum())
    return correct / len(split)


def image_size(network: Network) -> tuple[int, int]:
    """Return height and width of a network's input."""
    return network.input_shape[1], network.input_shape[2]
