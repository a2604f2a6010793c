"""CIFAR-10 and CIFAR-100 from the files of their authors' binary version (Krizhevsky, 2009).

A record is one or two label bytes, then 3,072 bytes: the red, green and blue planes of 32 x 32 pixels, row by row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from nasflow.tasks.base import ImageTask, Split, stratified
from searchspaces.errors import TaskError

SHAPE = (3, 32, 32)
PIXELS = 3072
VALID_SHARE = 0.1


@dataclass(frozen=True)
class Layout:
    """Files of one data set.

    Attributes:
        train: Names of the files with training images.
        test: Name of the file with test images.
        records: Records in each file, in the order train, test.
        label_bytes: Label bytes of a record, of which the last is the class.
        folder: Name of the folder in the authors' archive.
    """

    train: tuple[str, ...]
    test: str
    records: tuple[int, ...]
    label_bytes: int
    folder: str


class _Cifar(ImageTask):
    layout: ClassVar[Layout]
    folder: Path

    def __init__(self, name: str, classes: int, folder: str | Path, scale: str, shift: int, flip: bool) -> None:
        super().__init__(name, SHAPE, classes, scale, shift, flip)
        object.__setattr__(self, "folder", Path(folder).expanduser().absolute())

    def load(self) -> Mapping[str, Split]:
        """Read the files; a tenth of the training images, fixed and stratified, is the validation split.

        Raises:
            TaskError: If a file is missing, has another size, or holds labels that are no classes.
        """
        records = [self._records(name, count) for name, count in zip(self._names(), self.layout.records, strict=True)]
        train, test = self._split(records[:-1]), self._split(records[-1:])
        fitted, held_out = stratified(train.labels, [1 - VALID_SHARE, VALID_SHARE])
        return {
            "train": Split(train.images[fitted], train.labels[fitted]),
            "valid": Split(train.images[held_out], train.labels[held_out]),
            "test": test,
        }

    def _names(self) -> tuple[str, ...]:
        return (*self.layout.train, self.layout.test)

    def _records(self, name: str, count: int) -> NDArray[np.uint8]:
        path, length = self.folder / name, self.layout.label_bytes + PIXELS
        expected = (
            f"Task {self.name!r} reads {', '.join(self._names())} of the binary version, folder {self.layout.folder!r} "
            f"of its archive: set task.folder to where that is, or put it into the folder that NASFLOW_DATA names."
        )
        try:
            content = np.fromfile(path, dtype=np.uint8)
        except OSError as error:
            raise TaskError(f"{path} cannot be read: {error.strerror or error}. {expected}") from error
        if content.size != count * length:
            raise TaskError(
                f"{path} has {content.size:,} bytes, but {count:,} records of {length:,} bytes make "
                f"{count * length:,}: it is truncated or another file. {expected}"
            )
        records = content.reshape(count, length)
        largest = int(records[:, self.layout.label_bytes - 1].max())
        if largest >= self.classes:
            raise TaskError(
                f"{path} holds the label {largest}, but {self.name!r} has classes 0 to {self.classes - 1}: it is "
                f"damaged or another file. {expected}"
            )
        return records

    def _split(self, files: Sequence[NDArray[np.uint8]]) -> Split:
        records = np.concatenate(files)
        labels = records[:, self.layout.label_bytes - 1].astype(np.int64)
        return Split(records[:, self.layout.label_bytes :].reshape(-1, *SHAPE), labels)


class Cifar10(_Cifar):
    """CIFAR-10: 45,000 + 5,000 training images and 10,000 test images of ten classes.

    Args:
        folder: Folder with `data_batch_1.bin` to `data_batch_5.bin` and `test_batch.bin`.
        scale: Scale at which search spaces build networks for it.
        shift: Largest augmenting shift in pixels.
        flip: Whether augmentation mirrors images.
    """

    layout = Layout(
        tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin", (10_000,) * 6, 1, "cifar-10-batches-bin"
    )

    def __init__(self, folder: str | Path, scale: str = "full", shift: int = 4, flip: bool = True) -> None:
        super().__init__("cifar10", 10, folder, scale, shift, flip)


class Cifar100(_Cifar):
    """CIFAR-100 with its hundred fine labels: 45,000 + 5,000 training images and 10,000 test images.

    Args:
        folder: Folder with `train.bin` and `test.bin`.
        scale: Scale at which search spaces build networks for it.
        shift: Largest augmenting shift in pixels.
        flip: Whether augmentation mirrors images.
    """

    layout = Layout(("train.bin",), "test.bin", (50_000, 10_000), 2, "cifar-100-binary")

    def __init__(self, folder: str | Path, scale: str = "full", shift: int = 4, flip: bool = True) -> None:
        super().__init__("cifar100", 100, folder, scale, shift, flip)
