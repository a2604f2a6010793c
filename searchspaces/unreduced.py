"""Spaces taken row by row, for figures of networks that were executed with their operations without effect."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchspaces.genes import Mask, Rows
from searchspaces.network import Network
from searchspaces.space import Op, SearchSpace
from searchspaces.task import Task


class Unreduced(SearchSpace):
    """A space whose rows are each a class of their own.

    Frameworks that execute a model as it is written spend time on operations whose result nobody reads. Published
    latencies were measured so: of cells of NAS-Bench-201 a quarter of the variance of the logarithm lies within
    canonical classes. Models that nasflow builds leave such operations out, and need no such view.

    Args:
        base: The space.
    """

    def __init__(self, base: SearchSpace) -> None:
        self.base = base
        self.genes = base.genes
        self.scale = base.scale

    @property
    def name(self) -> str:  # type: ignore[override]
        """The base's, and that it is taken row by row."""
        return f"{self.base.name}_unreduced"

    @property
    def scale_arguments(self) -> dict[str, Any]:
        """The base's."""
        return self.base.scale_arguments

    @cached_property
    def ops(self) -> tuple[Op, ...]:
        """The base's."""
        return self.base.ops

    def is_valid(self, rows: Rows) -> Mask:
        """As in the base."""
        return self.base.is_valid(rows)

    def active(self, rows: Rows) -> Mask:
        """Every gene matters."""
        return np.ones(rows.shape, dtype=np.bool_)

    def sample(self, n: int, rng: np.random.Generator) -> Rows:
        """As in the base."""
        return self.base.sample(n, rng)

    def graph(self, rows: Rows) -> tuple[Mask, NDArray[np.int64]]:
        """As in the base, for the rows as they are."""
        return self.base.graph(rows)

    def network(self, row: NDArray[np.int64], task: Task) -> Network:
        """As in the base: without the operations that have no effect."""
        return self.base.network(row, task)

    def format(self, rows: Rows) -> list[str]:
        """As in the base."""
        return self.base.format(rows)

    def parse(self, texts: Sequence[str]) -> Rows:
        """As in the base."""
        return self.base.parse(texts)
