"""What a network costs, as an encoding."""

from collections.abc import Sequence

import numpy as np

from predictors.encodings.base import Features, Standardised
from searchspaces.genes import Rows
from searchspaces.space import SearchSpace
from searchspaces.task import Task


class CostFeatures(Standardised):
    """Logarithms of multiply-accumulate operations and parameters, and depth in layers with weights, standardised.

    Counted on the description of the network, which takes milliseconds each; each canonical class is counted once.

    Args:
        input_shape: Channels, height and width of the images.
        classes: Classes of the task.
    """

    sample = 200

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
