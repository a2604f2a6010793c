"""What a network costs, as an encoding."""

from collections.abc import Sequence
from functools import cache

import numpy as np

from predictors.encodings.base import Concatenation, Features, Standardised
from searchspaces.genes import Rows
from searchspaces.network import OPERATORS, Network
from searchspaces.space import SearchSpace
from searchspaces.task import Task
from searchspaces.unreduced import Unreduced

_CONVOLUTIONS = ("depthwise", "pointwise", "other")
_KINDS = [*(f"{kind} Conv" for kind in _CONVOLUTIONS), *(op for op in OPERATORS if op != "Conv")]
_PER_KIND = ("number", "macs", "params", "bytes")
_TOTALS = ("macs", "params", "bytes", "nodes", "depth")


class CostFeatures(Standardised):
    """Logarithms of multiply-accumulate operations and parameters, and depth in layers with weights, standardised.

    Counted on the description of the network, which takes milliseconds each; each canonical class is counted once.

    Args:
        input_shape: Channels, height and width of the images.
        classes: Classes of the task.
    """

    sample = 200
    rising = True

    def __init__(self, input_shape: Sequence[int] = (3, 32, 32), classes: int = 10) -> None:
        super().__init__()
        channels, height, width = input_shape
        self.task = Task("costs", (channels, height, width), classes)
        self._known: dict[tuple[str, bytes], tuple[float, float, float]] = {}

    def _names(self, space: SearchSpace) -> list[str]:
        return ["log macs", "log params", "depth"]

    def _figures(self, space: SearchSpace, rows: Rows) -> Features:
        keys = [(space.fingerprint, row.tobytes()) for row in rows]
        for key, row in zip(keys, rows, strict=True):
            if key not in self._known:
                network = space.network(row, self.task)
                macs, params = np.log1p([network.macs, network.params])
                self._known[key] = float(macs), float(params), float(network.depth)
        return np.array([self._known[key] for key in keys]).reshape(len(rows), 3)


class LayerCosts(Concatenation):
    """What a network costs as a whole and by kind of operator: logarithms, standardised.

    Each of five totals is a part of its own: multiply-accumulate operations, parameters, bytes moved, nodes, and depth.
    A last part has number, multiply-accumulate operations, parameters and bytes of depthwise, pointwise and other
    convolutions and of each other operator; what a space never uses stays zero. Which of them decides the latency
    differs by device: arithmetic on small cores, the number of operators on graphics cards with one image.

    Args:
        input_shape: Channels, height and width of the images.
        classes: Classes of the task.
    """

    def __init__(self, input_shape: Sequence[int] = (3, 32, 32), classes: int = 10) -> None:
        channels, height, width = input_shape
        counter = _counter((channels, height, width), classes)
        by_kind = [f"{what} of {kind}" for kind in _KINDS for what in _PER_KIND]
        parts = [_Counted(counter, [f"log {name}"], slice(i, i + 1), True) for i, name in enumerate(_TOTALS)]
        parts.append(_Counted(counter, [f"log {name}" for name in by_kind], slice(len(_TOTALS), None)))
        super().__init__(parts)


class _Counter:
    """Counts costs of networks; each is described once."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self._known: dict[tuple[str, bytes], Features] = {}

    def __call__(self, space: SearchSpace, rows: Rows) -> Features:
        """Return the logarithms of all costs, `(n, 5 + 4 kinds)`."""
        if isinstance(space, Unreduced):  # rows of one class of the base have one network
            return self(space.base, space.base.canonical(rows))
        keys = [(space.fingerprint, row.tobytes()) for row in rows]
        for key, row in zip(keys, rows, strict=True):
            if key not in self._known:
                self._known[key] = np.log1p(_costs(space.network(row, self.task)))
        return np.array([self._known[key] for key in keys]).reshape(len(rows), len(_TOTALS) + 4 * len(_KINDS))


@cache
def _counter(input_shape: tuple[int, int, int], classes: int) -> _Counter:
    """The counter that all encodings share."""
    return _Counter(Task("costs", input_shape, classes))


class _Counted(Standardised):
    """Some of the costs that a counter counts."""

    sample = 200

    def __init__(self, counter: _Counter, names: Sequence[str], where: slice, rising: bool = False) -> None:
        super().__init__()
        self.rising = rising
        self._counter, self._columns, self._where = counter, list(names), where

    def _names(self, space: SearchSpace) -> list[str]:
        return self._columns

    def _figures(self, space: SearchSpace, rows: Rows) -> Features:
        return self._counter(space, rows)[:, self._where]


def _costs(network: Network) -> Features:
    """Totals, then number, MACs, parameters and bytes by kind."""
    by_kind = np.zeros((len(_KINDS), len(_PER_KIND)))
    for node, cost in zip(network.nodes, network.costs, strict=True):
        kind = node.op
        if kind == "Conv":
            per_group, height, width = node.weights["weight"][1:]
            depthwise = per_group == 1 < node.attributes.get("group", 1)
            kind = f"{_CONVOLUTIONS[0 if depthwise else 1 if height == width == 1 else 2]} Conv"
        by_kind[_KINDS.index(kind)] += (1, cost.macs, cost.params, cost.bytes_moved)
    totals = network.macs, network.params, network.bytes_moved, len(network.nodes), network.depth
    return np.concatenate([totals, by_kind.ravel()])
