"""One operation of a traced torch module, on its way into a `Network`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from searchspaces.network.graph import NetworkBuilder
from searchspaces.network.operators import Shape


class Unsupported(Exception):  # noqa: N818
    """An operation has no counterpart; the text, if any, says why."""


@dataclass(frozen=True)
class Signal:
    """A tensor that depends on the images.

    Attributes:
        name: Its name in the builder.
        shape: Its shape without the batch axis. The builder's is smaller where the module used `expand`: sums and
            products repeat such tensors by themselves.
    """

    name: str
    shape: Shape


@dataclass(frozen=True)
class Array:
    """A tensor that does not depend on the images: a parameter (`trainable`) or a buffer, by its path."""

    path: str
    value: Tensor
    trainable: bool


class BatchSize:
    """Stands for the number of images where a module computes with it."""


class Call:
    """One operation to convert.

    Attributes:
        builder: Where the nodes go.
        arguments: The operation's arguments by the names of its schema, defaults included.
        shape: Shape of its result without the batch axis; None where it has several results.
    """

    def __init__(
        self,
        builder: NetworkBuilder,
        arguments: Mapping[str, Any],
        shape: Shape | None,
        learned: dict[str, tuple[str, Tensor]],
    ) -> None:
        self.builder = builder
        self.arguments = arguments
        self.shape: Shape = () if shape is None else shape
        self._learned = learned

    def __getitem__(self, name: str) -> Any:
        return self.arguments.get(name)

    def signal(self, name: str = "self") -> Signal:
        """Return argument `name`, a tensor that depends on the images."""
        value = self[name]
        if not isinstance(value, Signal):
            raise Unsupported(f"its argument {name!r} does not depend on the images")
        if value.shape != self.builder.shapes[value.name]:
            raise Unsupported("it takes a tensor repeated by expand, which only sums and products do by themselves")
        return value

    def axis(self, name: str = "dim", rank: int | None = None) -> int:
        """Return argument `name`, an axis of torch, as an axis without the batch axis."""
        rank = len(self.signal().shape) if rank is None else rank
        return image_axis(self[name], rank)

    def add(self, op: str, *inputs: Signal | str, arrays: Mapping[str, Array] | None = None, **attributes: Any) -> str:
        """Append a node whose weights are `arrays`."""
        arrays = arrays or {}
        names = [value.name if isinstance(value, Signal) else value for value in inputs]
        shapes: dict[str, Shape] = {key: tuple(array.value.shape) for key, array in arrays.items()}
        node = self.builder.add(op, *names, weights=shapes, **attributes)
        for key, array in arrays.items():
            self._learned[f"{node}.{key}"] = (array.path, array.value)
        return node


def image_axis(axis: int, rank: int) -> int:
    """Turn an axis of a tensor with batch axis into one of the `rank` axes without it."""
    axis = axis % (rank + 1)
    if axis == 0:
        raise Unsupported("it works along the batch axis")
    return axis - 1


def pair(value: int | Sequence[int]) -> tuple[int, int]:
    """Return a window's size, stride or padding for both axes."""
    if isinstance(value, int):
        return value, value
    return (value[0], value[0]) if len(value) == 1 else (value[0], value[1])


def parameter(call: Call, name: str, trainable: bool = True) -> Array:
    """Return argument `name`, a parameter (or, not `trainable`, a buffer)."""
    value = call[name]
    if not isinstance(value, Array):
        raise Unsupported(f"its {name} is {'missing' if value is None else 'computed from the images'}")
    if trainable and not value.trainable:
        raise Unsupported(f"its {name} {value.path!r} is not trained; make it a parameter")
    return value


def number(value: Any) -> Any:
    """Return a constant without axes as a number, and anything else as it is."""
    constant = isinstance(value, Array) and not value.trainable and value.value.ndim == 0
    return value.value.item() if constant else value


def learned(value: Array, rank: int) -> Array:
    """Return `value` shaped for combination with tensors that have `rank` axes without the batch axis."""
    if not value.trainable:
        raise Unsupported(f"the array {value.path!r} is not trained; make it a parameter or prepare images with it")
    shape = tuple(value.value.shape)
    if len(shape) == rank + 1 and shape[0] == 1:
        shape = shape[1:]
    if len(shape) > rank:
        raise Unsupported(f"parameter {value.path!r} of shape {shape} has an axis for the batch")
    return Array(value.path, value.value.reshape((1,) * (rank - len(shape)) + shape), True)
