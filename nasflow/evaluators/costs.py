"""Costs that follow from the network alone."""

from typing import Literal

import numpy as np

from nasflow.evaluators.base import Context, Evaluation
from searchspaces.arch import ArchBatch
from searchspaces.space import SearchSpace
from searchspaces.task import Task


class Costs:
    """Parameters, multiply-accumulate operations and depth, from the description of the network.

    Args:
        space: The search space.
        task: The task that networks are built for.
    """

    provides = ("params_m", "macs_m", "depth")
    cost: Literal["cheap", "expensive"] = "cheap"
    deterministic = True

    def __init__(self, space: SearchSpace, task: Task) -> None:
        self.space = space
        self.task = task

    def evaluate(self, archs: ArchBatch, context: Context) -> Evaluation:
        """Return `params_m` and `macs_m` in millions, and `depth` in layers with weights."""
        networks = [self.space.network(row, self.task) for row in archs.rows]
        return Evaluation(
            {
                "params_m": np.array([network.params / 1e6 for network in networks]),
                "macs_m": np.array([network.macs / 1e6 for network in networks]),
                "depth": np.array([float(network.depth) for network in networks]),
            }
        )
