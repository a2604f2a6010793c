"""Tasks from any NumPy archive of images and labels."""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nasflow.tasks.base import ImageTask, Split, stratified
from searchspaces.errors import ConfigError, TaskError

Arrays = dict[str, NDArray[Any]]
KEYS = ("x_train", "y_train", "x_valid", "y_valid", "x_test", "y_test")
WHOLE = ("images", "labels")
SHARES = {"train": 0.6, "valid": 0.2, "test": 0.2}
COLOURS = (1, 3, 4)  # channels of grey, colour, and colour with opacity


class NpzTask(ImageTask):
    """Images and labels from a `.npz` file; sizes and classes are read off the arrays.

    The file holds `x_train, y_train, x_test, y_test` and, if it likes, `x_valid, y_valid` (otherwise a fixed stratified
    fifth of the training images); or just `images, labels`, divided 60/20/20, fixed and stratified. Images are
    `(n, h, w)`, `(n, c, h, w)` or `(n, h, w, c)` of any real type; labels are the integers 0 to k - 1.

    Args:
        path: The file.
        name: The task's name; the file's without its ending when left out.
        scale: Scale at which search spaces build networks for it: `small` for quick networks and few pixels.
        channels: Which axis of four holds the channels, `first` (of an image) or `last`. When left out it is the one
            with 1, 3 or 4 entries; a file where both or neither of them has is refused.
        shift: Largest augmenting shift in pixels.
        flip: Whether augmentation mirrors images.

    Raises:
        TaskError: If the file is missing, malformed or ambiguous.
    """

    path: Path
    _data: dict[str, Split]

    def __init__(
        self,
        path: str | Path,
        name: str | None = None,
        scale: str = "small",
        channels: Literal["first", "last"] | None = None,
        shift: int = 0,
        flip: bool = False,
    ) -> None:
        path = Path(path).expanduser().absolute()
        raw = _divide(path, _read(path))
        data = {key: _split(path, key, *arrays, channels) for key, arrays in raw.items()}
        shape = _common_shape(path, data)
        classes = _classes(path, data)
        super().__init__(name or path.stem, shape, classes, scale, shift, flip)
        object.__setattr__(self, "path", path)
        object.__setattr__(self, "_data", data)

    def load(self) -> Mapping[str, Split]:
        """Return what the constructor read."""
        return self._data


def _read(path: Path) -> Arrays:
    """Read the arrays that a task may hold.

    Raises:
        TaskError: If the file cannot be read or is no archive of plain arrays.
    """
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise TaskError(f"{path} is one array, not an archive: write images and labels with numpy.savez.")
        with archive:
            return {key: archive[key] for key in archive.files if key in (*KEYS, *WHOLE)}
    except OSError as error:
        raise TaskError(f"{path} cannot be read: {error.strerror or error}. Set task.path to a .npz file.") from error
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise TaskError(
            f"{path} is no intact .npz archive of plain numeric arrays ({error}). Arrays of Python objects are never "
            "read: write one array for all images and one for all labels with numpy.savez."
        ) from error


def _divide(path: Path, arrays: Arrays) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
    """Return images and labels per split.

    Raises:
        TaskError: If arrays are missing or superfluous.
    """
    found = set(arrays)
    if found == set(WHOLE):
        return _parts(path, arrays["images"], arrays["labels"], SHARES)
    if found not in (set(KEYS), set(KEYS) - {"x_valid", "y_valid"}):
        raise TaskError(
            f"A task's .npz holds x_train, y_train, x_test, y_test and optionally both x_valid and y_valid, or just "
            f"images and labels, but of these {path} has {', '.join(sorted(found)) or 'none'}."
        )
    data = {"train": (arrays["x_train"], arrays["y_train"]), "test": (arrays["x_test"], arrays["y_test"])}
    if "x_valid" in found:
        return data | {"valid": (arrays["x_valid"], arrays["y_valid"])}
    return data | _parts(path, *data["train"], {"train": 0.8, "valid": 0.2})


def _parts(
    path: Path, images: NDArray[Any], labels: NDArray[Any], shares: Mapping[str, float]
) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
    labels = _labels(path, "the file", images, labels)
    parts = stratified(labels, list(shares.values()))
    if min(map(len, parts)) == 0:
        raise TaskError(
            f"{path} has {len(labels)} images, too few to divide them into {', '.join(shares)}: every class needs "
            "about five. Write the splits yourself as x_train, y_train, x_valid, y_valid, x_test, y_test."
        )
    return {name: (images[part], labels[part]) for name, part in zip(shares, parts, strict=True)}


def _labels(path: Path, where: str, images: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.int64]:
    """Check labels and flatten `(n, 1)`.

    Raises:
        TaskError: If they are no integers, or not one per image.
    """
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    whole = labels.dtype.kind in "iub" or (labels.dtype.kind == "f" and bool((labels == np.floor(labels)).all()))
    if labels.ndim != 1 or not whole:
        raise TaskError(
            f"Labels are one integer per image, shape (n,), but those of {where} in {path} have shape {labels.shape} "
            f"and type {labels.dtype}. Turn one-hot rows into labels with argmax(axis=1)."
        )
    if images.ndim == 0 or len(images) != len(labels) or len(labels) == 0:
        raise TaskError(
            f"Every image needs one label, but {where} in {path} has images of shape {images.shape} and "
            f"{len(labels)} labels."
        )
    return labels.astype(np.int64)


def _split(path: Path, name: str, images: NDArray[Any], labels: NDArray[Any], channels: str | None) -> Split:
    labels = _labels(path, name, images, labels)
    if images.dtype.kind not in "iubf" or images.ndim not in (3, 4) or 0 in images.shape:
        raise TaskError(
            f"Images are real numbers of shape (n, h, w), (n, c, h, w) or (n, h, w, c), but those of {name} in {path} "
            f"have shape {images.shape} and type {images.dtype}."
        )
    if images.dtype.kind == "f":
        with np.errstate(over="ignore"):
            images = images.astype(np.float32, copy=False)
        if not np.isfinite(images).all():
            bad = int(np.argmin(np.isfinite(images).reshape(len(images), -1).all(axis=1)))
            raise TaskError(f"Image {bad} of {name} in {path} is not finite as float32: mend it or leave it out.")
    return Split(_channels_first(path, images, channels), labels)


def _channels_first(path: Path, images: NDArray[Any], channels: str | None) -> NDArray[Any]:
    if channels not in (None, "first", "last"):
        raise ConfigError(f"task.channels is first or last, or null to tell by the axes' sizes, not {channels!r}.")
    if images.ndim == 3:
        return images[:, None]
    first, last = images.shape[1] in COLOURS, images.shape[3] in COLOURS
    if channels is None and first == last:
        raise TaskError(
            f"The images in {path} have shape {images.shape}: whether the channels come first or last cannot be told, "
            f"because {'both axes' if first else 'neither axis'} could be 1, 3 or 4 channels. Set task.channels=first "
            "or task.channels=last."
        )
    return np.moveaxis(images, 3, 1) if channels == "last" or (channels is None and last) else images


def _common_shape(path: Path, data: Mapping[str, Split]) -> tuple[int, int, int]:
    shapes = {name: split.images.shape[1:] for name, split in data.items()}
    if len(set(shapes.values())) != 1:
        raise TaskError(f"All images of a task have one shape (channels, height, width), but {path} has {shapes}.")
    channels, height, width = shapes["train"]
    return channels, height, width


def _classes(path: Path, data: Mapping[str, Split]) -> int:
    """Return the number of classes.

    Raises:
        TaskError: If the training labels are not 0 to k - 1 with k > 1, or another split has others.
    """
    present = np.unique(data["train"].labels)
    if len(present) < 2 or not np.array_equal(present, np.arange(len(present))):
        listed = ", ".join(map(str, present[:10])) + (", …" if len(present) > 10 else "")
        raise TaskError(
            "Labels are the integers 0 to k - 1, at least two of them and each occurring in training, but the training "
            f"labels in {path} are {listed}. Renumber them with numpy.unique(labels, return_inverse=True)[1]."
        )
    for name, split in data.items():
        strange = np.setdiff1d(split.labels, present)
        if len(strange):
            raise TaskError(
                f"The {name} labels in {path} include {strange[0]}, which no training image has: classes are 0 to "
                f"{len(present) - 1}. Remove those images or add such ones to x_train."
            )
    return len(present)
