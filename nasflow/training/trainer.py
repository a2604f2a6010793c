"""Training of one network: SGD with Nesterov momentum, warm-up and cosine schedule, label smoothing, clipping."""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, cos, isfinite, log, pi
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from nasflow.tasks.base import ImageTask
from nasflow.training.batches import Augment, Batch, Batches
from nasflow.training.evaluation import Score, score
from nasflow.training.runtime import check_fits, torch_device, torch_threads
from searchspaces.errors import ConfigError, TrainingError
from searchspaces.network import Network, extract_weights, to_torch

CHECK_EVERY = 8  # steps between looks at the loss; each look waits for the GPU
EXPLODED = 4.0  # a loss this many times that of guessing no longer comes back


@dataclass(frozen=True)
class EpochReport:
    """One finished epoch.

    Attributes:
        epoch: Its number, from 1.
        epochs: How many there are.
        lr: Learning rate at its end.
        loss: Mean training loss, with label smoothing.
    """

    epoch: int
    epochs: int
    lr: float
    loss: float


@dataclass(frozen=True)
class TrainingResult:
    """A trained network.

    Attributes:
        weights: Arrays keyed `<node>.<weight>`.
        metrics: `accuracy` and `loss` on the validation split, `test_accuracy` and `test_loss`; accuracies are
            shares from 0 to 1, losses cross-entropies in nats.
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
class Trainer:
    """How networks are trained.

    On a CPU, equal seeds and equal numbers of threads give equal weights, whatever the state of torch's own
    generators, which stays as it was.

    Attributes:
        epochs: Passes through the training images.
        batch_size: Images per step; a last, smaller batch is left out.
        lr: Highest learning rate.
        momentum: Nesterov momentum.
        weight_decay: Decay of all weights.
        label_smoothing: Share of the target spread over all classes (arXiv 1512.00567).
        warmup: Share of all steps in which the rate rises linearly; then it falls to 0 along a cosine (arXiv
            1608.03983).
        clip: Largest Euclidean norm of the gradient.
        augment: Whether images are shifted and mirrored as far as the task allows.
        device: `auto` (a GPU where there is one), `cpu`, `cuda` or `cuda:N`.
        threads: Threads of torch while training; None leaves them as they are.
    """

    epochs: int = 25
    batch_size: int = 64
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    warmup: float = 0.1
    clip: float = 5.0
    augment: bool = True
    device: str = "auto"
    threads: int | None = 1

    def __post_init__(self) -> None:
        bounds = {
            "epochs": self.epochs >= 1,
            "batch_size": self.batch_size >= 2,  # batch normalisation needs two images
            "lr": 0 < self.lr < float("inf"),
            "momentum": 0 < self.momentum < 1,
            "weight_decay": 0 <= self.weight_decay < float("inf"),
            "label_smoothing": 0 <= self.label_smoothing < 1,
            "warmup": 0 <= self.warmup < 1,
            "clip": self.clip > 0,
            "threads": self.threads is None or self.threads >= 1,
        }
        for name, kept in bounds.items():
            if not kept:
                raise ConfigError(
                    f"trainer.{name}={getattr(self, name)} is out of range: epochs and threads are at least 1, batch_size "
                    "at least 2, lr and clip positive, momentum between 0 and 1, weight_decay not negative, "
                    "label_smoothing and warmup from 0 to below 1."
                )

    def fit(
        self,
        network: Network,
        task: ImageTask,
        seed: int = 0,
        epochs: int | None = None,
        between_epochs: Callable[[EpochReport], None] | None = None,
    ) -> TrainingResult:
        """Train `network` on `task` from initial weights drawn by `seed`.

        Args:
            network: What to train; images are resized to its input.
            task: Where the images come from.
            seed: Seed of weights, order and augmentation.
            epochs: Epochs instead of the configured ones; the schedule shrinks with them.
            between_epochs: Called after every epoch; its time does not count.

        Raises:
            TrainingError: If the network does not fit the task, the loss diverges, or memory is short on a GPU.
            TaskError: If the task's data are missing or malformed.
        """
        total = self.epochs if epochs is None else epochs
        if total < 1:
            raise ConfigError(f"A network is trained for at least one epoch, not {total}.")
        check_fits(network, task)
        device = torch_device(self.device)
        with torch_threads(self.threads):
            try:
                return _Run(self, network, task, seed, total, device).result(between_epochs)
            except torch.OutOfMemoryError as error:
                raise TrainingError(
                    f"The GPU has not enough memory to train {network.name!r} in batches of {self.batch_size}: set a "
                    f"smaller trainer.batch_size, or trainer.device=cpu. Torch says: {error}"
                ) from error


class _Run:
    """The state of one training."""

    def __init__(
        self, trainer: Trainer, network: Network, task: ImageTask, seed: int, epochs: int, device: torch.device
    ) -> None:
        self.started = perf_counter()
        self.trainer, self.network, self.epochs = trainer, network, epochs
        splits, size = task.splits, (network.input_shape[1], network.input_shape[2])
        self.train = Batches(splits.train, size, device)
        self.valid = Batches(splits.valid, size, device)
        self.test = Batches(splits.test, size, device)
        self.augment = (
            Augment(splits, task.shift, task.flip, device) if trainer.augment and (task.shift or task.flip) else None
        )
        self.limit = EXPLODED * log(task.classes)
        self.rng = np.random.default_rng([seed, 1])  # the initial weights use the seed alone
        module = to_torch(network, seed=seed).to(device)
        # Channels last makes convolutions of few channels up to a third faster on CPUs.
        self.module: nn.Module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimiser = torch.optim.SGD(
            [*self.module.parameters()] or [nn.Parameter(torch.zeros(1))],
            lr=trainer.lr,
            momentum=trainer.momentum,
            weight_decay=trainer.weight_decay,
            nesterov=True,
            fused=True,
        )
        self.steps = max(1, len(splits.train) // trainer.batch_size)
        self.step, self.lr = 0, 0.0

    def result(self, between_epochs: Callable[[EpochReport], None] | None) -> TrainingResult:
        """Train, score and hand back."""
        history, paused = [], 0.0
        for epoch in range(1, self.epochs + 1):
            report = EpochReport(epoch, self.epochs, self.lr, self._epoch(epoch))
            history.append(report)
            if between_epochs is not None:
                stopped = perf_counter()
                between_epochs(report)
                paused += perf_counter() - stopped
        valid, test = self._score(self.valid), self._score(self.test)
        metrics = {
            "accuracy": valid.accuracy,
            "loss": valid.loss,
            "test_accuracy": test.accuracy,
            "test_loss": test.loss,
        }
        seconds = perf_counter() - self.started - paused
        weights = extract_weights(self.module)  # type: ignore[arg-type]
        return TrainingResult(weights, metrics, self.epochs, seconds, tuple(history))
