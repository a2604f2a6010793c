"""The embedded default task: scikit-learn's handwritten digits, part of its distribution."""

from collections.abc import Mapping

import numpy as np

from nasflow.tasks.base import ImageTask, Split, stratified

SHARES = {"train": 0.5, "valid": 0.3, "test": 0.2}


class Digits(ImageTask):
    """1,797 images of 8 x 8 pixels and ten classes; half of them to train, 30 % to validate, 20 % to test.

    Args:
        scale: Scale at which search spaces build networks for it.
        shift: Largest augmenting shift in pixels.
    """

    def __init__(self, scale: str = "small", shift: int = 1) -> None:
        super().__init__("digits", (1, 8, 8), 10, scale, shift=shift)

    def load(self) -> Mapping[str, Split]:
        """Return scikit-learn's images, intensities 0 to 16."""
        from sklearn.datasets import load_digits  # scikit-learn takes a second to import

        images, labels = load_digits(return_X_y=True)
        images = images.astype(np.float32).reshape(-1, *self.input_shape)
        parts = stratified(labels, list(SHARES.values()))
        return {name: Split(images[part], labels[part]) for name, part in zip(SHARES, parts, strict=True)}
