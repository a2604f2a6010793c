"""Batches of images: a whole split stays on the device and is indexed, without workers or copies per epoch."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from nasflow.tasks.base import Split, Splits

Batch = tuple[Tensor, Tensor]


class Batches:
    """One split on a device.

    Args:
        split: Images and labels.
        size: Height and width that the network takes; images are resized to it batch by batch.
        device: Where the batches shall lie.
    """

    def __init__(self, split: Split, size: tuple[int, int], device: torch.device) -> None:
        self.images = torch.from_numpy(split.images).to(device)
        self.labels = torch.from_numpy(split.labels).to(device)
        self.size = size

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """Yield all images in their order; the last batch may be smaller.

        Yields:
            Images `(b, c, h, w)` and labels `(b,)`.
        """
        for start in range(0, len(self.labels), batch_size):
            images = self.images[start : start + batch_size]
            yield resize(images, self.size), self.labels[start : start + batch_size]

    def shuffled(
        self, batch_size: int, rngs: Sequence[np.random.Generator], augment: "Augment | None"
    ) -> Iterator[Batch]:
        """Yield one epoch of full batches, each copy of a network in a random order of its own.

        What does not fill a batch is left out, except when there is no full one.

        Args:
            batch_size: Images per batch and copy.
            rngs: k generators, of order and augmentation.
            augment: Changes batches of images.

        Yields:
            Images `(b, k * c, h, w)`, the first copy's channels first, and labels `(b, k)`.
        """
        orders = [torch.from_numpy(rng.permutation(len(self.labels))).to(self.labels.device) for rng in rngs]
        for start in range(0, max(1, len(self.labels) - batch_size + 1), batch_size):
            chosen = [order[start : start + batch_size] for order in orders]
            images = [self.images[some] for some in chosen]
            if augment is not None:
                images = [augment(some, rng) for some, rng in zip(images, rngs, strict=True)]
            labels = torch.stack([self.labels[some] for some in chosen], dim=1)
            yield resize(torch.cat(images, dim=1), self.size), labels


class Augment:
    """Random shifts, filled with the raw value 0, mirroring, and noise.

    Args:
        splits: The task's data, for the statistics of their normalisation.
        shift: Largest shift in pixels, in both directions of both axes.
        flip: Whether half of the images are mirrored left to right.
        noise: Standard deviation of the noise added to normalised images.
        device: Where the images lie.
    """

    def __init__(self, splits: Splits, shift: int, flip: bool, noise: float, device: torch.device) -> None:
        self.shift, self.flip, self.noise = shift, flip, noise
        self._black = torch.from_numpy(-splits.mean / splits.std).to(device)[:, None, None]

    def __call__(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        """Return a changed copy of `images (n, c, h, w)`."""
        if self.shift:
            images = self._shifted(images, rng)
        if self.flip:
            mirrored = torch.from_numpy(rng.random(len(images)) < 0.5).to(images.device)
            images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
        if self.noise:
            drawn = torch.from_numpy(rng.standard_normal(tuple(images.shape), dtype=np.float32))
            images = images + self.noise * drawn.to(images.device)
        return images

    def _shifted(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        count, _, height, width = images.shape
        pad = self.shift
        canvas = self._black.repeat(count, 1, height + 2 * pad, width + 2 * pad)
        canvas[:, :, pad:-pad, pad:-pad] = images
        places = torch.from_numpy(rng.integers(0, 2 * pad + 1, size=(2, count))).to(images.device)
        windows = canvas.unfold(2, height, 1).unfold(3, width, 1)
        return windows[torch.arange(count, device=images.device), :, places[0], places[1]]


def resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize `images (n, c, h, w)` bilinearly, antialiased where they shrink."""
    if images.shape[-2:] == size:
        return images
    return functional.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)
