"""Encodings that read an architecture's genes or graph, without building its network."""

import numpy as np

from predictors.encodings.base import Encoding, Features, Standardised, search_space
from predictors.encodings.graph import along_paths, live_graph, path_sequences
from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError
from searchspaces.genes import Rows
from searchspaces.space import SearchSpace

_MOST_PATHS = 2048  # kinds of paths from which on counting each one makes no sense


class OneHot(Standardised):
    """One entry per choice of each gene of the canonical row, standardised; genes that do not matter are all zeros."""

    def _names(self, space: SearchSpace) -> list[str]:
        return [f"{gene.name}={choice}" for gene in space.genes for choice in gene.choices]

    def _figures(self, space: SearchSpace, rows: Rows) -> Features:
        active = space.active(rows)
        hot = [
            (rows[:, i, None] == np.arange(len(gene.choices))) & active[:, i, None]
            for i, gene in enumerate(space.genes)
        ]
        return np.concatenate(hot, axis=1).astype(np.float64)


class AdjacencyOps(Encoding):
    """The graph's adjacency matrix and the operations of its vertices, one-hot; entries are 0 and 1.

    Networks whose vertices are written in another order have other vectors, unless the space's canonical form orders
    them.
    """

    def columns(self, space: SearchSpace) -> list[str]:
        """Return `a→b` for every pair of vertices a < b, then `vertex=op` for every vertex and operation."""
        size = _vertices(space)
        edges = [f"{a}→{b}" for a in range(size) for b in range(a + 1, size)]
        return edges + [f"{v}={op.name}" for v in range(size) for op in space.ops]

    def encode(self, archs: ArchBatch) -> Features:
        """Return the entries `(n, v (v - 1) / 2 + v ops)`."""
        space = search_space(archs)
        _vertices(space)
        adjacency, ops = space.graph(space.canonical(archs.rows))
        first, second = np.triu_indices(adjacency.shape[1], 1)
        hot = ops[:, :, None] == np.arange(len(space.ops))
        return np.concatenate([adjacency[:, first, second], hot.reshape(len(ops), -1)], axis=1).astype(np.float64)


class Paths(Standardised):
    """How many paths from input to output carry each sequence of operations (arXiv 1910.11858), standardised."""

    def __init__(self) -> None:
        super().__init__()
        self._sequences: dict[str, dict[tuple[int, ...], int]] = {}

    def _names(self, space: SearchSpace) -> list[str]:
        return ["→".join(space.ops[op].name for op in ops) or "direct" for ops in self._kinds(space)]

    def _figures(self, space: SearchSpace, rows: Rows) -> Features:
        kinds = self._kinds(space)
        adjacency, ops = live_graph(space, rows)
        counts = np.zeros((len(rows), len(kinds)))
        for path, where in path_sequences(adjacency, _MOST_PATHS):
            found, group = np.unique(ops[where][:, path], axis=0, return_inverse=True)
            places = np.array([kinds.get(tuple(sequence), -1) for sequence in found.tolist()])[group.ravel()]
            known = places >= 0
            counts[np.flatnonzero(where)[known], places[known]] += 1
        return counts

    def _kinds(self, space: SearchSpace) -> dict[tuple[int, ...], int]:
        """Place of each sequence of operations that a sample of the space has."""
        if space.fingerprint not in self._sequences:
            found: set[tuple[int, ...]] = set()
            adjacency, ops = live_graph(space, space.canonical(self.reference(space)))
            for number, (path, where) in enumerate(path_sequences(adjacency, _MOST_PATHS)):
                found.update(map(tuple, np.unique(ops[where][:, path], axis=0).tolist()))
                if max(number, len(found)) > _MOST_PATHS or len(path) > _LONGEST:
                    raise ConfigError(
                        f"Networks of {space.name!r} have too many different paths to count each kind: take "
                        "encoding=onehot or encoding=topology."
                    )
            self._sequences[space.fingerprint] = {ops: i for i, ops in enumerate(sorted(found, key=_by_length))}
        return self._sequences[space.fingerprint]


class OpCounts(Standardised):
    """How many vertices carry each operation, those without effect in the canonical row included, standardised."""

    def _names(self, space: SearchSpace) -> list[str]:
        return [op.name for op in space.ops]

    def _figures(self, space: SearchSpace, rows: Rows) -> Features:
        ops = space.graph(rows)[1]
        counts: Features = (ops[:, :, None] == np.arange(len(space.ops))).sum(axis=1).astype(np.float64)
        return counts


class OpPairs(Standardised):
    """How many edges lead from each operation to each other one, standardised; ends count as operations."""

    def _names(self, space: SearchSpace) -> list[str]:
        return [f"{a.name}→{b.name}" for a in space.ops for b in space.ops]

    def _figures(self, space: SearchSpace, rows: Rows) -> Features:
        adjacency, ops = live_graph(space, rows)
        hot = (ops[:, :, None] == np.arange(len(space.ops))).astype(np.float64)
        after = adjacency.astype(np.float64) @ hot  # (n, v, ops): how many of each operation follow a vertex
        pairs: Features = hot.transpose(0, 2, 1) @ after
        return pairs.reshape(len(rows), -1)


class Topology(Standardised):
    """What the graph is like as a whole, standardised.

    For each operation the number of its vertices and the largest, the smallest and the mean number on a path from input
    to output; the numbers of edges, vertices and paths; the lengths of the longest and the shortest path. Operations of
    kind `none`, and what only they connect, are left out.
    """

    def _names(self, space: SearchSpace) -> list[str]:
        ops = [op.name for op in space.ops]
        return [f"{what} {op}" for what in ("number of", "most", "fewest", "mean") for op in [*ops, "vertices"]] + [
            "edges",
            "log paths",
        ]

    def _figures(self, space: SearchSpace, rows: Rows) -> Features:
        adjacency, ops = live_graph(space, rows)
        weights = np.concatenate([ops[:, :, None] == np.arange(len(space.ops)), ops[:, :, None] >= 0], axis=2)
        paths, most, fewest, mean = along_paths(adjacency, weights.astype(np.float64))
        edges = adjacency.sum(axis=(1, 2))
        return np.concatenate(
            [weights.sum(axis=1), most, fewest, mean, edges[:, None], np.log1p(paths)[:, None]], axis=1
        )


_LONGEST = 10


def _by_length(ops: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    return len(ops), ops


def _vertices(space: SearchSpace) -> int:
    """Number of vertices of the graphs of a space.

    Raises:
        ConfigError: If they differ in size.
    """
    rows = space.sample(64, np.random.default_rng(0))
    sizes = {space.graph(row[None])[0].shape[1] for row in rows}
    if len(sizes) > 1:
        raise ConfigError(
            f"Graphs of {space.name!r} differ in size, so they have no common adjacency matrix: take encoding=onehot "
            "or encoding=topology."
        )
    return int(sizes.pop())
