"""Image classification tasks: where the data of a search come from."""

from nasflow.tasks.base import ImageTask, Split, Splits
from nasflow.tasks.cifar import Cifar10, Cifar100
from nasflow.tasks.digits import Digits
from nasflow.tasks.npz import NpzTask

__all__ = ["Cifar10", "Cifar100", "Digits", "ImageTask", "NpzTask", "Split", "Splits"]
