"""Piecewise linear operators: which piece each element is on, and the operators held on their pieces."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from searchspaces.network import Node


@dataclass(frozen=True)
class Switch:
    """Elementwise operator `scale · x + shift` within its bounds, constant beyond them.

    Attributes:
        scale: Slope within the bounds.
        shift: Added after scaling.
        low: Smallest output.
        high: Largest output, or None.
        gate: Whether the result is multiplied by the input.
    """

    scale: float = 1.0
    shift: float = 0.0
    low: float = 0.0
    high: float | None = None
    gate: bool = False

    def pieces(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Where `x` is within the bounds, and where it is above the upper one, if there is one."""
        inner = self._inner(x)
        if self.high is None:
            return inner > self.low, None
        return (inner > self.low) & (inner < self.high), inner >= self.high

    def held(self, x: Tensor, pieces: tuple[Tensor, Tensor | None]) -> Tensor:
        """Apply the operator as if `x` were on `pieces`."""
        within, above = pieces
        result = self._inner(x) * within  # masked_fill and where take several times as long
        if above is not None and self.high is not None:
            result = result + above * self.high
        if self.low:
            result = result + (~within if above is None else ~(within | above)) * self.low
        return result * x if self.gate else result

    def _inner(self, x: Tensor) -> Tensor:
        return x if (self.scale, self.shift) == (1.0, 0.0) else self.scale * x + self.shift


def switch(node: Node) -> Switch | None:
    """Return the node as a switch, None if it is not one."""
    given = node.attributes
    match node.op:
        case "Relu":
            return Switch()
        case "Clip":
            return Switch(low=given["min"], high=given["max"])
        case "HardSigmoid":
            return Switch(given.get("alpha", 0.2), given.get("beta", 0.5), high=1.0)
        case "HardSwish":
            return Switch(1 / 6, 0.5, high=1.0, gate=True)
    return None


def holding(node: Node) -> tuple[Callable[..., Any], Callable[..., Tensor]] | None:
    """Return how to read the pieces that `node` is on from its module and input, and how to hold it on them.

    Returns:
        `pieces(module, x)` and `held(module, x, pieces)`, or None where the operator is smooth.
    """
    if node.op == "MaxPool":
        return _largest, _picked
    kind = switch(node)
    if kind is None:
        return None
    return (lambda module, x: kind.pieces(x)), (lambda module, x, pieces: kind.held(x, pieces))


def _largest(pool: Any, x: Tensor) -> Tensor:
    window = pool.kernel_size, pool.stride, pool.padding, pool.dilation
    indices: Tensor = functional.max_pool2d(x, *window, return_indices=True)[1]
    return indices


def _picked(pool: Any, x: Tensor, indices: Tensor) -> Tensor:
    return torch.gather(x.flatten(2), 2, indices.flatten(2)).view(indices.shape)
