"""The trainer: what turns a network and a task into weights and accuracies."""

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray

from nasflow.tasks.base import ImageTask
from nasflow.training.batches import Augment, Batches
from nasflow.training.evaluation import image_size, score
from nasflow.training.loop import EpochReport, Loop
from nasflow.training.recipe import Recipe
from nasflow.training.runtime import check_fits, torch_device, torch_threads
from searchspaces.errors import ConfigError, TrainingError
from searchspaces.network import Network, extract_weights, to_torch

Callback = Callable[[EpochReport], None]


@dataclass(frozen=True)
class TrainingResult:
    """A trained network.

    Attributes:
        weights: Arrays keyed `<node>.<weight>`.
        metrics: `accuracy` and `loss` on the validation split, `test_accuracy` and `test_loss`; accuracies are
            shares from 0 to 1, losses are cross-entropies in nats without label smoothing.
        epochs: Epochs trained.
        seconds: Wall time of training and scoring, without the time spent in callbacks.
        history: One report per epoch.
    """

    weights: dict[str, NDArray[np.float32]]
    metrics: dict[str, float]
    epochs: int
    seconds: float
    history: tuple[EpochReport, ...]


@dataclass(frozen=True)
class Trainer(Recipe):
    """Trains networks by a recipe.

    On a CPU, equal seeds and equal numbers of threads give equal weights. Torch's own generators are neither used
    nor changed.

    Attributes:
        device: `auto` (a GPU where there is one), `cpu`, `cuda` or `cuda:N`.
        threads: Threads of torch while training; None leaves them as they are.
    """

    device: str = "auto"
    threads: int | None = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"trainer.threads must be at least 1, or null to leave torch's, but is {self.threads}.")

    def fit(
        self,
        network: Network,
        task: ImageTask,
        seed: int = 0,
        epochs: int | None = None,
        between_epochs: Callback | None = None,
    ) -> TrainingResult:
        """Train `network` on `task` from initial weights drawn by `seed`.

        Args:
            network: What to train; images are resized to its input.
            task: Where the images come from.
            seed: Seed of weights, order and augmentation.
            epochs: Epochs instead of the configured ones; the schedule shrinks with them.
            between_epochs: Called after every epoch; its time does not count.

        Raises:
            TrainingError: If the network does not fit the task, the loss diverges, or a GPU lacks memory.
            TaskError: If the task's data are missing or malformed.
        """
        total = self.epochs if epochs is None else epochs
        if total < 1:
            raise ConfigError(f"A network is trained for at least one epoch, not for {total}.")
        check_fits(network, task)
        if network.params == 0:
            raise TrainingError(f"Network {network.name!r} has no weights, so there is nothing to train.")
        device = torch_device(self.device)
        with torch_threads(self.threads):
            try:
                return self._fit(network, task, seed, total, device, between_epochs)
            except torch.OutOfMemoryError as error:
                raise TrainingError(
                    f"The GPU lacks memory to train {network.name!r} in batches of {self.batch_size}: set a smaller "
                    f"trainer.batch_size, or trainer.device=cpu. Torch says: {error}"
                ) from error

    def _fit(
        self, network: Network, task: ImageTask, seed: int, epochs: int, device: torch.device, callback: Callback | None
    ) -> TrainingResult:
        splits = task.splits
        started, paused = perf_counter(), 0.0
        size = image_size(network)
        # In channels-last order small networks train 1.3 to 1.9 times faster on a CPU.
        module = to_torch(network, seed=seed).to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        augment = Augment(splits, task.shift, task.flip, device) if self.augment and (task.shift or task.flip) else None
        rng = np.random.default_rng([seed, 1])  # the initial weights are drawn with the seed alone
        loop = Loop(module, Batches(splits.train, size, device), augment, self, task.classes, epochs, rng)
        history = []
        for report in loop.run():
            history.append(report)
            if callback is not None:
                stopped = perf_counter()
                callback(report)
                paused += perf_counter() - stopped
        valid = score(module, Batches(splits.valid, size, device))
        test = score(module, Batches(splits.test, size, device))
        metrics = {
            "accuracy": valid.accuracy,
            "loss": valid.loss,
            "test_accuracy": test.accuracy,
            "test_loss": test.loss,
        }
        if not isfinite(valid.loss):
            raise loop.diverged(epochs, history[-1].lr, str(valid.loss))
        seconds = perf_counter() - started - paused
        return TrainingResult(extract_weights(module), metrics, epochs, seconds, tuple(history))
