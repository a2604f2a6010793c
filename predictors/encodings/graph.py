"""Figures of labelled directed acyclic graphs, over batches."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from searchspaces.genes import Mask, Rows
from searchspaces.space import SearchSpace

Ops = NDArray[np.int64]


def live_graph(space: SearchSpace, rows: Rows) -> tuple[Mask, Ops]:
    """Return `space.graph(rows)` without operations of kind `none` and what no signal passes: -1, without edges.

    Returns:
        Adjacency `(n, v, v)` and operation ids `(n, v)`. Input and output stay, also of a graph without a path.
    """
    adjacency, ops = space.graph(rows)
    kinds = np.array([op.kind for op in space.ops])[ops]
    present = (ops >= 0) & (kinds != "none")
    ends = present & ((kinds == "input") | (kinds == "output"))
    adjacency = adjacency & present[:, :, None] & present[:, None, :]
    reached, used = present & (kinds == "input"), present & (kinds == "output")
    size = adjacency.shape[1]
    for v in range(size):  # a vertex's predecessors stand before it
        reached[:, v] |= (reached & adjacency[:, :, v]).any(axis=1)
    for v in range(size - 1, -1, -1):
        used[:, v] |= (used & adjacency[:, v]).any(axis=1)
    live = reached & used
    return adjacency & live[:, :, None] & live[:, None, :], np.where(live | ends, ops, -1)


def along_paths(adjacency: Mask, weights: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Sum weights of vertices along the paths from the first vertex to the last one with an id.

    Args:
        adjacency: Live graphs `(n, v, v)`; the input is vertex 0, the output the last one, `v - 1`.
        weights: `(n, v, k)`, of k kinds.

    Returns:
        Number of paths `(n,)`; and the largest, the smallest and the mean sum over paths, each `(n, k)`, zero where
        there is no path.
    """
    n, size, kinds = weights.shape
    number = np.zeros((n, size))
    number[:, 0] = 1
    total = np.zeros((n, size, kinds))
    most, fewest = np.full((n, size, kinds), -np.inf), np.full((n, size, kinds), np.inf)
    total[:, 0] = most[:, 0] = fewest[:, 0] = weights[:, 0]
    for v in range(1, size):
        before = adjacency[:, :v, v]
        number[:, v] = (number[:, :v] * before).sum(axis=1)
        carried = (total[:, :v] * before[:, :, None]).sum(axis=1)
        total[:, v] = carried + weights[:, v] * number[:, v, None]
        most[:, v] = np.where(before[:, :, None], most[:, :v], -np.inf).max(axis=1) + weights[:, v]
        fewest[:, v] = np.where(before[:, :, None], fewest[:, :v], np.inf).min(axis=1) + weights[:, v]
    paths = number[:, -1]
    none = (paths == 0)[:, None]
    mean = total[:, -1] / np.maximum(paths, 1)[:, None]
    return paths, np.where(none, 0, most[:, -1]), np.where(none, 0, fewest[:, -1]), mean


def path_sequences(adjacency: Mask, most: int) -> Iterator[tuple[list[int], Mask]]:
    """Yield each sequence of vertices that is a path from the first to the last vertex in some graph, and in which.

    Args:
        adjacency: Live graphs `(n, v, v)`.
        most: Sequences from which on to stop.
    """
    last = adjacency.shape[1] - 1
    stack = [([0], np.ones(len(adjacency), dtype=np.bool_))]
    found = 0
    while stack and found <= most:
        path, where = stack.pop()
        for v in range(path[-1] + 1, last + 1):
            there = where & adjacency[:, path[-1], v]
            if there.any():
                if v == last:
                    found += 1
                    yield path[1:], there
                else:
                    stack.append(([*path, v], there))
