"""Tasks with images: three fixed splits, normalised with the statistics of the first."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchspaces.errors import ConfigError, unknown
from searchspaces.task import Task

NOISY_COPIES = 4  # of valid and test images, so that noise blurs an accuracy less
SPLIT_SEED = 2026  # splits belong to the task: no seed of a search moves an image from one to another


@dataclass(frozen=True)
class Split:
    """Images and their labels.

    Attributes:
        images: `(n, c, h, w)`, float32 and normalised wherever a task hands them out.
        labels: `(n,)`, int64, from 0 to classes - 1.
    """

    images: NDArray[Any]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Splits:
    """The data of a task: train on `train`, choose by `valid`, report `test`.

    Attributes:
        train: What weights are fitted to.
        valid: What searches see.
        test: What reports state, and nothing else uses.
        mean: Mean of the raw training images per channel, `(c,)`.
        std: Their standard deviation per channel, `(c,)`; a deployed model takes `(raw - mean) / std`.
    """

    train: Split
    valid: Split
    test: Split
    mean: NDArray[np.float32]
    std: NDArray[np.float32]

    def __getitem__(self, name: str) -> Split:
        """Return a split by its name.

        Raises:
            ConfigError: If it is none of train, valid and test.
        """
        splits = {"train": self.train, "valid": self.valid, "test": self.test}
        if name not in splits:
            raise ConfigError(unknown("split", name, splits))
        return splits[name]


@dataclass(frozen=True)
class ImageTask(Task, ABC):
    """A classification task whose data can be loaded.

    A subclass calls this constructor with its sizes and implements `load`.

    Attributes:
        shift: Largest shift in pixels that leaves an image's class as it is; augmentation uses it.
        flip: Whether mirroring left to right leaves the class as it is.
        noise: Standard deviation of the Gaussian noise that belongs to the images, in units of their own standard
            deviation: drawn anew whenever an image is trained on, and once for all in the other splits.
    """

    shift: int = 0
    flip: bool = False
    noise: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.shift < min(self.input_shape[1:]):
            raise ConfigError(
                f"The augmentation of task {self.name!r} shifts images by 0 to {min(self.input_shape[1:]) - 1} pixels, "
                f"less than their side, but shift={self.shift}."
            )
        if not (self.noise >= 0 and isfinite(self.noise)):
            raise ConfigError(f"The noise of task {self.name!r} is 0 or a positive number, but is {self.noise}.")

    @abstractmethod
    def load(self) -> Mapping[str, Split]:
        """Read the raw images (any real type, `(n, c, h, w)`) and labels of `train`, `valid` and `test`.

        Raises:
            TaskError: If files are missing or malformed.
        """

    @cached_property
    def splits(self) -> Splits:
        """The normalised data, loaded at first use.

        Raises:
            TaskError: If files are missing or malformed.
        """
        raw = self.load()
        mean, std = statistics(raw["train"].images)
        splits = {
            name: Split(normalise(split.images, mean, std), split.labels.astype(np.int64))
            for name, split in raw.items()
        }
        if self.noise:
            rng = np.random.default_rng(SPLIT_SEED)
            splits |= {name: noisy(splits[name], self.noise, rng) for name in ("valid", "test")}
        return Splits(**splits, mean=mean, std=std)


def statistics(images: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return mean and standard deviation per channel of `images (n, c, h, w)`; 1 for a constant channel."""
    channels = range(images.shape[1])
    mean = np.array([images[:, c].mean(dtype=np.float64) for c in channels])
    std = np.array([images[:, c].std(dtype=np.float64) for c in channels])
    std[std <= 1e-6 * np.abs(mean)] = 1.0  # a constant channel, up to the rounding of its mean
    return mean.astype(np.float32), std.astype(np.float32)


def normalise(
    images: NDArray[Any], mean: NDArray[np.float32], std: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return `(images - mean) / std` per channel as contiguous float32."""
    result: NDArray[np.float32] = np.subtract(images, mean[:, None, None], dtype=np.float32, order="C")
    result /= std[:, None, None]
    return result


def noisy(split: Split, noise: float, rng: np.random.Generator) -> Split:
    """Return `NOISY_COPIES` times as many images, each with noise of its own."""
    images = np.tile(split.images, (NOISY_COPIES, 1, 1, 1))
    drawn: NDArray[np.float32] = rng.standard_normal(images.shape, dtype=np.float32)
    return Split(images + np.float32(noise) * drawn, np.tile(split.labels, NOISY_COPIES))


def stratified(labels: NDArray[np.int64], shares: Sequence[float]) -> list[NDArray[np.int64]]:
    """Divide examples into parts with the same mixture of classes; equal labels give equal parts.

    Args:
        labels: `(n,)`.
        shares: Share of each part; they sum to 1. Classes too small to be divided fall to the first parts.

    Returns:
        Sorted indices into `labels` per part.
    """
    rng = np.random.default_rng(SPLIT_SEED)
    ends = np.cumsum(shares)[:-1]
    parts: list[list[NDArray[np.int64]]] = [[] for _ in shares]
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        for part, piece in zip(parts, np.split(members, np.round(ends * len(members)).astype(int)), strict=True):
            part.append(piece)
    return [np.sort(np.concatenate(part)) for part in parts]
