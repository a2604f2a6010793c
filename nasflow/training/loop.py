"""The training loop: one epoch after another, watched for divergence."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite, log

import numpy as np
import torch
from torch.nn import functional

from nasflow.training.batches import Augment, Batches
from nasflow.training.recipe import Recipe
from searchspaces.errors import TrainingError
from searchspaces.network import NetworkModule

CHECK_EVERY = 8  # steps between looks at the loss: each waits for the GPU
EXPLODED = 4.0  # an epoch's loss this many times that of guessing has never come back


@dataclass(frozen=True)
class EpochReport:
    """One finished epoch.

    Attributes:
        epoch: Its number, from 1.
        epochs: How many there are.
        lr: Learning rate of its last step.
        loss: Mean training loss, with label smoothing, in nats.
    """

    epoch: int
    epochs: int
    lr: float
    loss: float


class Loop:
    """Fits a module in place.

    Args:
        module: The network, with its initial weights, on the device of the batches.
        batches: The training images.
        augment: Changes batches of images; None leaves them as they are.
        recipe: The numbers.
        classes: Number of classes.
        epochs: Epochs to train.
        rng: Gives order and augmentation.
    """

    def __init__(
        self,
        module: NetworkModule,
        batches: Batches,
        augment: Augment | None,
        recipe: Recipe,
        classes: int,
        epochs: int,
        rng: np.random.Generator,
    ) -> None:
        self.module, self.batches, self.augment, self.recipe = module, batches, augment, recipe
        self.epochs, self.rng = epochs, rng
        self._guessing = log(classes)
        self._steps = epochs * max(1, len(batches.labels) // recipe.batch_size)
        self._step = 0
        self._parameters = list(module.parameters())
        self._optimiser = torch.optim.SGD(
            self._parameters,
            lr=recipe.lr,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            nesterov=True,
            fused=True,
        )

    def run(self) -> Iterator[EpochReport]:
        """Train epoch by epoch, with a report after each.

        Raises:
            TrainingError: If the loss diverges.
        """
        self.module.train()
        for epoch in range(1, self.epochs + 1):
            loss, lr = self._epoch(epoch)
            if self._step > self.recipe.warmup * self._steps and loss > EXPLODED * self._guessing:
                raise self.diverged(epoch, lr, f"{loss:.3g}, while guessing gives {self._guessing:.3g}")
            yield EpochReport(epoch, self.epochs, lr, loss)

    def _epoch(self, epoch: int) -> tuple[float, float]:
        """Return the epoch's mean loss and last learning rate."""
        recipe, losses = self.recipe, []
        for images, labels in self.batches.shuffled(recipe.batch_size, self.rng, self.augment):
            self._step += 1
            lr = recipe.rate(self._step / (self._steps + 1))
            self._optimiser.param_groups[0]["lr"] = lr
            loss = functional.cross_entropy(self.module(images), labels, label_smoothing=recipe.label_smoothing)
            self._optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self._parameters, recipe.clip)
            self._optimiser.step()
            losses.append(loss.detach())
            if len(losses) % CHECK_EVERY == 0 and not isfinite(float(losses[-1])):
                break
        mean = float(torch.stack(losses).mean())
        if not isfinite(mean):
            raise self.diverged(epoch, lr, str(mean))
        return mean, lr

    def diverged(self, epoch: int, lr: float, loss: str) -> TrainingError:
        """Return the error that says so."""
        return TrainingError(
            f"Training of network {self.module.network.name!r} diverged in epoch {epoch} of {self.epochs} at learning "
            f"rate {lr:.3g}: the loss is {loss}. Lower trainer.lr (now {self.recipe.lr:g}) or trainer.clip (now "
            f"{self.recipe.clip:g}), or raise trainer.warmup (now {self.recipe.warmup:g} of all steps)."
        )
