"""Search spaces: gene spaces whose rows describe networks."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from searchspaces.errors import ConfigError, unknown
from searchspaces.genes import GeneSpace, Mask, Rows
from searchspaces.network import INPUT, OPERATORS, Network
from searchspaces.task import Task

_PROBE = Task("probe", (3, 32, 32), 10)


@dataclass(frozen=True)
class Op:
    """What an operation does, in terms that hold across spaces, so that encoders can embed unseen spaces.

    Attributes:
        name: The space's own name for it.
        kind: `input`, `output`, `none`, `skip`, `conv`, `separable`, `inverted_residual`, `max_pool`,
            `average_pool`, or an ONNX operator.
        kernel: Side of the window, 1 where there is none.
        expansion: Ratio of inner to outer channels of an inverted residual.
        groups: Groups of its pointwise convolutions; 0 stands for depthwise.
        stride: Stride.
    """

    name: str
    kind: str
    kernel: int = 1
    expansion: float = 1.0
    groups: int = 1
    stride: int = 1


class SearchSpace(GeneSpace, ABC):
    """A gene space whose rows are networks.

    Args:
        scale: A key of `scales`: `full` as published, `small` for images of a few pixels.
        **overrides: Single values that differ from that scale, by the names that `scales` uses.

    A subclass sets `name`, `genes` and `scales` and implements `network`.
    """

    scales: ClassVar[dict[str, dict[str, Any]]] = {"full": {}}

    def __init__(self, scale: str = "full", **overrides: Any) -> None:
        if scale not in self.scales:
            raise ConfigError(unknown(f"scale of space {self.name!r}", scale, self.scales))
        for key in overrides:
            if key not in self.scales[scale]:
                raise ConfigError(unknown(f"argument of space {self.name!r}", key, self.scales[scale]))
            _check_like(f"{self.name}.{key}", overrides[key], self.scales[scale][key])
        self.scale: dict[str, Any] = {
            key: _cast(overrides[key], value) if overrides.get(key) is not None else value
            for key, value in self.scales[scale].items()
        }

    @property
    def scale_arguments(self) -> dict[str, Any]:
        """The numbers that decide size and depth of the built networks."""
        return {key: list(value) if isinstance(value, (list, tuple)) else value for key, value in self.scale.items()}

    @abstractmethod
    def network(self, row: NDArray[np.int64], task: Task) -> Network:
        """Describe the network of one valid `row` for `task`.

        Raises:
            NetworkError: If images of the task are too small for this scale of the space.
        """

    @cached_property
    def ops(self) -> tuple[Op, ...]:
        """The operations that `graph` refers to by index; ids 0 and 1 are input and output."""
        return _generic_ops()

    def graph(self, rows: Rows) -> tuple[Mask, NDArray[np.int64]]:
        """Return the architectures as labelled directed acyclic graphs.

        Returns:
            Adjacency `(n, v, v)`, true at `[i, a, b]` for an edge from vertex a to vertex b > a, and operation ids
            `(n, v)` into `ops`; vertices that a row does not use have id -1 and no edges. This default has a
            vertex for each node of the network.
        """
        networks = [self.network(row, _PROBE) for row in rows]
        size = max((len(network.nodes) for network in networks), default=0) + 2
        adjacency = np.zeros((len(rows), size, size), dtype=np.bool_)
        ops = np.full((len(rows), size), -1, dtype=np.int64)
        index = {(op.kind, op.kernel, op.groups, op.stride): i for i, op in enumerate(self.ops)}
        for i, network in enumerate(networks):
            position = {INPUT: 0} | {node.name: v + 1 for v, node in enumerate(network.nodes)}
            ops[i, 0], ops[i, len(network.nodes) + 1] = 0, 1
            adjacency[i, position[network.output], len(network.nodes) + 1] = True
            for v, node in enumerate(network.nodes):
                kernel = int(node.attributes.get("kernel_shape", (1, 1))[0])
                stride = min(int(node.attributes.get("strides", (1, 1))[0]), 2)
                group = node.attributes.get("group", 1)
                groups = 0 if group > 1 and group == node.shape[0] else min(group, 2)
                ops[i, v + 1] = index[(node.op, min(kernel, 7), groups, stride)]
                for name in node.inputs:
                    adjacency[i, position[name], v + 1] = True
        return adjacency, ops


def _cast(value: Any, default: Any) -> Any:
    """Write a number as its default is written: 1 and 1.0 are one scale."""
    return float(value) if isinstance(default, float) else value


def _check_like(name: str, value: Any, default: Any) -> None:
    """Raise a `ConfigError` unless an override is positive and of the kind and length of what it replaces."""
    if value is None:
        return
    if isinstance(default, (list, tuple)):
        if not isinstance(value, (list, tuple)) or len(value) != len(default):
            raise ConfigError(f"{name} is a list of {len(default)} numbers, such as {list(default)}, but is {value!r}.")
        for entry, like in zip(value, default, strict=True):
            _check_like(name, entry, like)
    elif isinstance(default, int) and (isinstance(value, bool) or not (isinstance(value, int) and value > 0)):
        raise ConfigError(f"{name} takes whole numbers from 1 on, such as {default}, but is {value!r}.")
    elif isinstance(default, float) and not (isinstance(value, (int, float)) and value > 0):
        raise ConfigError(f"{name} takes positive numbers, such as {default:g}, but is {value!r}.")


def _generic_ops() -> tuple[Op, ...]:
    ops = [Op("input", "input"), Op("output", "output")]
    for op in OPERATORS:
        windowed = op in ("Conv", "MaxPool", "AveragePool")
        for kernel in range(1, 8) if windowed else (1,):
            for groups in (1, 2, 0) if op == "Conv" else (1,):
                for stride in (1, 2) if windowed else (1,):
                    ops.append(Op(f"{op}{kernel}g{groups}s{stride}", op, kernel, 1.0, groups, stride))
    return tuple(ops)
