"""The numbers of a training."""

from dataclasses import dataclass
from math import cos, isfinite, pi

from searchspaces.errors import ConfigError


@dataclass(frozen=True)
class Recipe:
    """How weights are fitted: SGD with Nesterov momentum under a schedule.

    Attributes:
        epochs: Passes through the training images.
        batch_size: Images per step; a last, smaller batch is left out.
        lr: Highest learning rate.
        momentum: Nesterov momentum.
        weight_decay: Decay of all trained numbers.
        label_smoothing: Share of the target spread over all classes (arXiv 1512.00567).
        warmup: Share of all steps in which the rate rises linearly; then it falls to 0 along a cosine (arXiv
            1608.03983).
        clip: Largest Euclidean norm of the gradient.
        augment: Whether images are shifted and mirrored as far as the task allows.

    Raises:
        ConfigError: If a number is out of range.
    """

    epochs: int = 16
    batch_size: int = 64
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    warmup: float = 0.1
    clip: float = 5.0
    augment: bool = True

    def __post_init__(self) -> None:
        rules = {
            "epochs": (self.epochs >= 1, "at least 1"),
            "batch_size": (self.batch_size >= 2, "at least 2, for batch normalisation"),
            "lr": (self.lr > 0 and isfinite(self.lr), "positive"),
            "momentum": (0 < self.momentum < 1, "between 0 and 1"),
            "weight_decay": (self.weight_decay >= 0 and isfinite(self.weight_decay), "not negative"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "from 0 to below 1"),
            "warmup": (0 <= self.warmup < 1, "from 0 to below 1"),
            "clip": (self.clip > 0, "positive"),
        }
        for name, (kept, rule) in rules.items():
            if not kept:
                raise ConfigError(f"trainer.{name} must be {rule}, but is {getattr(self, name)}.")

    def rate(self, progress: float) -> float:
        """Return the learning rate after the share `progress` of all steps, 0 to 1."""
        if progress < self.warmup:
            return self.lr * progress / self.warmup
        return self.lr * (1 + cos(pi * (progress - self.warmup) / (1 - self.warmup))) / 2
