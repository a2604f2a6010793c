"""The embedded default task: scikit-learn's handwritten digits, part of its distribution."""

from collections.abc import Mapping

import numpy as np
import torch
from torch.nn.functional import interpolate

from nasflow.tasks.base import ImageTask, Split, stratified
from searchspaces.errors import ConfigError

SIDE = 8
SHARES = {"train": 0.5, "valid": 0.3, "test": 0.2}


class Digits(ImageTask):
    """1,797 images of 8 x 8 pixels and ten classes; half of them to train, 30 % to validate, 20 % to test.

    Args:
        scale: Scale at which search spaces build networks for it.
        shift: Largest augmenting shift in pixels.
        noise: Noise that makes the task harder, in standard deviations of the images: without it, most networks
            classify 97 % and hardly differ.
        size: Side to which the images are enlarged, and `channels` how often they are repeated: real images in the
            shape of others that cannot be had.
        channels: Number of equal channels.

    Raises:
        ConfigError: If a number is out of range.
    """

    def __init__(
        self, scale: str = "small", shift: int = 1, noise: float = 0.0, size: int = SIDE, channels: int = 1
    ) -> None:
        if size < SIDE or channels < 1:
            raise ConfigError(f"Digits have at least {SIDE} pixels and 1 channel, not {size} and {channels}.")
        name = "digits" + (f"_noise{noise:g}" if noise else "") + ("" if (size, channels) == (SIDE, 1) else f"_{size}")
        super().__init__(name, (channels, size, size), 10, scale, shift=shift, noise=noise)

    def load(self) -> Mapping[str, Split]:
        """Return scikit-learn's images, intensities 0 to 16."""
        from sklearn.datasets import load_digits  # scikit-learn takes a second to import

        images, labels = load_digits(return_X_y=True)
        images = images.astype(np.float32).reshape(-1, 1, SIDE, SIDE)
        channels, size, _ = self.input_shape
        if size != SIDE:
            images = interpolate(torch.from_numpy(images), (size, size), mode="bilinear", align_corners=False).numpy()
        images = np.repeat(images, channels, axis=1)
        parts = stratified(labels, list(SHARES.values()))
        return {name: Split(images[part], labels[part]) for name, part in zip(SHARES, parts, strict=True)}
