"""Where training runs: device and threads."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from nasflow.tasks.base import ImageTask
from searchspaces.errors import ConfigError, TrainingError
from searchspaces.network import Network


def torch_device(name: str) -> torch.device:
    """Return the device called `name`; `auto` is the GPU where there is one, otherwise the CPU.

    Raises:
        ConfigError: If torch knows no such device or this machine has none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"Torch knows no device {name!r}: choose auto, cpu, cuda or cuda:0.") from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"Training runs on cpu or cuda, not on {name!r}.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"The device {name!r} was asked for, but torch {torch.__version__} sees {torch.cuda.device_count()} GPUs: "
            "choose auto or cpu, or install a build of torch for the GPU."
        )
    return device


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Let torch use `count` threads inside, and as many as before afterwards; None changes nothing."""
    before = torch.get_num_threads()
    try:
        if count is not None:
            torch.set_num_threads(count)
        yield
    finally:
        torch.set_num_threads(before)


def check_fits(network: Network, task: ImageTask) -> None:
    """Check that a network takes a task's channels and has one output per class.

    Raises:
        TrainingError: If it does not.
    """
    output = network.shapes[network.output]
    if network.input_shape[0] != task.input_shape[0] or output != (task.classes,):
        raise TrainingError(
            f"Task {task.name!r} has images of {task.input_shape[0]} channels and {task.classes} classes, but network "
            f"{network.name!r} takes {network.input_shape[0]} channels and gives an output of shape {output}: build it "
            "with space.network(row, task) for this task."
        )
