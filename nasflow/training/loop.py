"""The training loop: one epoch after another, watched for divergence."""

from collections.abc import Iterator, Sequence
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
    """Fits a module in place: one network, or k copies of it side by side, each as if it were alone.

    Args:
        module: The network, with its initial weights, on the device of the batches.
        batches: The training images.
        augment: Changes batches of images; None leaves them as they are.
        recipe: The numbers.
        classes: Number of classes.
        epochs: Epochs to train.
        rngs: Generators of order and augmentation, one per copy.
    """

    def __init__(
        self,
        module: NetworkModule,
        batches: Batches,
        augment: Augment | None,
        recipe: Recipe,
        classes: int,
        epochs: int,
        rngs: Sequence[np.random.Generator],
    ) -> None:
        self.module, self.batches, self.augment, self.recipe = module, batches, augment, recipe
        self.epochs, self.rngs, self._classes = epochs, rngs, classes
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

    def run(self) -> Iterator[list[EpochReport]]:
        """Train epoch by epoch, with a report per copy after each.

        Raises:
            TrainingError: If the loss of a copy diverges.
        """
        self.module.train()
        for epoch in range(1, self.epochs + 1):
            losses, lr = self._epoch(epoch)
            worst = max(losses)
            if self._step > self.recipe.warmup * self._steps and worst > EXPLODED * self._guessing:
                raise self.diverged(epoch, lr, f"{worst:.3g}, while guessing gives {self._guessing:.3g}")
            yield [EpochReport(epoch, self.epochs, lr, loss) for loss in losses]

    def _epoch(self, epoch: int) -> tuple[list[float], float]:
        """Return the epoch's mean loss of each copy, and its last learning rate."""
        recipe, copies, losses = self.recipe, len(self.rngs), []
        for images, labels in self.batches.shuffled(recipe.batch_size, self.rngs, self.augment):
            self._step += 1
            lr = recipe.rate(self._step / (self._steps + 1))
            self._optimiser.param_groups[0]["lr"] = lr
            outputs = self.module(images).reshape(len(labels) * copies, self._classes)
            each = functional.cross_entropy(
                outputs, labels.flatten(), label_smoothing=recipe.label_smoothing, reduction="none"
            )
            loss = each.reshape(-1, copies).mean(dim=0)
            self._optimiser.zero_grad()
            loss.sum().backward()  # type: ignore[no-untyped-call]
            clip_each([p.grad for p in self._parameters if p.grad is not None], recipe.clip, copies)
            self._optimiser.step()
            losses.append(loss.detach())
            if len(losses) % CHECK_EVERY == 0 and not bool(losses[-1].isfinite().all()):
                break
        means = torch.stack(losses).mean(dim=0).tolist()
        if not all(map(isfinite, means)):
            raise self.diverged(epoch, lr, str(means[0] if copies == 1 else means))
        return means, lr

    def diverged(self, epoch: int, lr: float, loss: str) -> TrainingError:
        """Return the error that says so."""
        return TrainingError(
            f"Training of network {self.module.network.name!r} diverged in epoch {epoch} of {self.epochs} at learning "
            f"rate {lr:.3g}: the loss is {loss}. Lower trainer.lr (now {self.recipe.lr:g}) or trainer.clip (now "
            f"{self.recipe.clip:g}), or raise trainer.warmup (now {self.recipe.warmup:g} of all steps)."
        )


def clip_each(gradients: list[torch.Tensor], largest: float, copies: int) -> None:
    """Scale gradients in place so that those of each copy together have a Euclidean norm of at most `largest`.

    Args:
        gradients: Of shape `(copies * c, ...)`, the first copy's part first.
        largest: The bound.
        copies: Number of copies.
    """
    if not gradients:
        return
    if copies == 1:
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        torch._foreach_mul_(gradients, (largest / (norm + 1e-6)).clamp(max=1.0))
        return
    parts = [part for gradient in gradients for part in gradient.chunk(copies)]
    norms = torch.stack(torch._foreach_norm(parts)).reshape(-1, copies)
    scales = (largest / (torch.linalg.vector_norm(norms, dim=0) + 1e-6)).clamp(max=1.0)
    for j in range(copies):
        torch._foreach_mul_(parts[j::copies], scales[j])
