"""The trainer: what turns a network and a task into weights and accuracies."""

from collections.abc import Callable, Sequence
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
from searchspaces.network import (
    Network,
    extract_weights,
    init_weights,
    merge_weights,
    replicate,
    split_weights,
    to_torch,
)

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
        copies: How many seeds of one architecture are trained side by side where several are asked for; saves time
            for networks so small that operators wait for each other.
    """

    device: str = "auto"
    threads: int | None = 1
    copies: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"trainer.threads must be at least 1, or null to leave torch's, but is {self.threads}.")
        if self.copies < 1:
            raise ConfigError(f"trainer.copies must be at least 1, but is {self.copies}.")

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
        return self.fit_copies(network, task, [seed], epochs, between_epochs)[0]

    def fit_copies(
        self,
        network: Network,
        task: ImageTask,
        seeds: Sequence[int],
        epochs: int | None = None,
        between_epochs: Callback | None = None,
    ) -> list[TrainingResult]:
        """Train copies of `network` side by side, each under a seed of its own and as if it were alone.

        The copies share each operator, which small networks hardly notice: three train in 1.4 times the time of one.

        Args:
            network: What to train.
            task: Where the images come from.
            seeds: One seed per copy.
            epochs: Epochs instead of the configured ones.
            between_epochs: Called after every epoch with the first copy's report.

        Returns:
            One result per seed; `seconds` is the copies' equal share of the time.

        Raises:
            NetworkError: If there are several seeds and the network mixes channels in a way that copies cannot share.
            TrainingError: If the network does not fit the task, the loss of a copy diverges, or a GPU lacks memory.
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
                return self._fit(network, task, seeds, total, device, between_epochs)
            except torch.OutOfMemoryError as error:
                raise TrainingError(
                    f"The GPU lacks memory to train {network.name!r} in batches of {self.batch_size}: set a smaller "
                    f"trainer.batch_size, or trainer.device=cpu. Torch says: {error}"
                ) from error

    def _fit(
        self,
        network: Network,
        task: ImageTask,
        seeds: Sequence[int],
        epochs: int,
        device: torch.device,
        callback: Callback | None,
    ) -> list[TrainingResult]:
        splits, copies = task.splits, len(seeds)
        started, paused = perf_counter(), 0.0
        size = image_size(network)
        weights = merge_weights(network, [init_weights(network, seed) for seed in seeds])
        # In channels-last order small networks train 1.3 to 1.9 times faster on a CPU.
        module = to_torch(replicate(network, copies), weights).to(  # type: ignore[call-overload]
            device=device, memory_format=torch.channels_last
        )
        rngs = [np.random.default_rng([seed, 1]) for seed in seeds]  # the weights are drawn with the seed alone
        batches = Batches(splits.train, size, device)
        loop = Loop(module, batches, self._augment(task, device), self, task.classes, epochs, rngs)
        history = []
        for reports in loop.run():
            history.append(reports)
            if callback is not None:
                stopped = perf_counter()
                callback(reports[0])
                paused += perf_counter() - stopped
        valid = score(module, Batches(splits.valid, size, device), copies)
        test = score(module, Batches(splits.test, size, device), copies)
        if not all(isfinite(entry.loss) for entry in valid):
            raise loop.diverged(epochs, history[-1][0].lr, str([entry.loss for entry in valid]))
        seconds = (perf_counter() - started - paused) / copies
        return [
            TrainingResult(
                trained,
                {
                    "accuracy": valid[j].accuracy,
                    "loss": valid[j].loss,
                    "test_accuracy": test[j].accuracy,
                    "test_loss": test[j].loss,
                },
                epochs,
                seconds,
                tuple(reports[j] for reports in history),
            )
            for j, trained in enumerate(split_weights(network, extract_weights(module), copies))
        ]

    def _augment(self, task: ImageTask, device: torch.device) -> Augment | None:
        shift, flip = (task.shift, task.flip) if self.augment else (0, False)
        if not (shift or flip or task.noise):
            return None
        return Augment(task.splits, shift, flip, task.noise, device)
