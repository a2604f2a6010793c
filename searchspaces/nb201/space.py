"""NAS-Bench-201 (arXiv 2001.00326): cells of four nodes, six edges, five operations.

A cell is written `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`: per node its incoming edges with their source. The official
index of a cell is its place in the list of all cells, shuffled once by Python's generator with seed 88.
"""

import random
import re
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from searchspaces.errors import ArchitectureError, unknown
from searchspaces.genes import Gene, Mask, Rows
from searchspaces.network import INPUT, Network, NetworkBuilder
from searchspaces.space import Op, SearchSpace
from searchspaces.task import Task

OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
NODES = 4
CELLS = len(OPS) ** len(EDGES)
_NONE, _SKIP = 0, 1
_PLACES = len(OPS) ** np.arange(len(EDGES))[::-1]


class NB201(SearchSpace):
    """The NAS-Bench-201 search space of 15,625 cells.

    Rows hold the operation of the edges 0→1, 0→2, 1→2, 0→3, 1→3, 2→3. Two cells are of one canonical class when
    their outputs are the same expression in the input: operations on edges that carry no signal are dropped, a
    skip connection is its source, and sums do not care for order. An expression that occurs twice in a cell may be
    computed once or twice, so cells of one class can differ in parameters (326 of the 4,930 classes).
    """

    name = "nb201"
    genes = tuple(Gene(f"{source}_{target}", OPS) for source, target in EDGES)
    scales: ClassVar[dict[str, dict[str, Any]]] = {
        "full": {"stem": 16, "cells": 5},
        "small": {"stem": 8, "cells": 1},
    }

    @cached_property
    def ops(self) -> tuple[Op, ...]:
        """Input, output, then the five operations."""
        return (
            Op("input", "input"),
            Op("output", "output"),
            Op("none", "none"),
            Op("skip_connect", "skip"),
            Op("nor_conv_1x1", "conv", kernel=1),
            Op("nor_conv_3x3", "conv", kernel=3),
            Op("avg_pool_3x3", "average_pool", kernel=3),
        )

    def canonical(self, rows: Rows) -> Rows:
        """Map to the first dead-free cell, in row order, of the same expression."""
        return _rows_of(_classes()[rows @ _PLACES])

    def active(self, rows: Rows) -> Mask:
        """An edge is active when some operation on it leads to another class."""
        return np.asarray(_active()[rows @ _PLACES])

    def network(self, row: NDArray[np.int64], task: Task) -> Network:
        """Stem, three stages of cells with a residual reduction between stages, classifier."""
        stem, cells = self.scale["stem"], self.scale["cells"]
        builder = NetworkBuilder(f"{self.name}_{self.index(row[None])[0]}", task.input_shape)
        x = builder.conv_bn(INPUT, stem, 3, act=None)
        for stage in range(3):
            if stage:
                with builder.scope(f"reduction{stage}"):
                    x = _reduction(builder, x, stem * 2**stage)
            for cell in range(cells):
                with builder.scope(f"stage{stage}_cell{cell}"):
                    x = _cell(builder, x, row)
        x = builder.act(builder.batch_norm(x), "Relu")
        return builder.build(builder.classifier(x, task.classes))

    def graph(self, rows: Rows) -> tuple[Mask, NDArray[np.int64]]:
        """Vertices are the input, the six edges' operations and the output; ids index `ops`."""
        adjacency = np.zeros((len(rows), len(EDGES) + 2, len(EDGES) + 2), dtype=np.bool_)
        for i, (source, target) in enumerate(EDGES):
            adjacency[:, 0, i + 1] |= source == 0
            adjacency[:, i + 1, -1] |= target == NODES - 1
            for j, (next_source, _) in enumerate(EDGES):
                adjacency[:, i + 1, j + 1] |= next_source == target
        ops = np.concatenate(
            [np.zeros((len(rows), 1), np.int64), rows + 2, np.ones((len(rows), 1), np.int64)], axis=1
        )
        return adjacency, ops

    def index(self, rows: Rows) -> NDArray[np.int64]:
        """Return the official index of each row, shape `(n,)`."""
        return np.asarray(_official()[0][rows @ _PLACES])

    def from_index(self, index: Any) -> Rows:
        """Return the rows of official indices, shape `(n, 6)`.

        Raises:
            ArchitectureError: If an index is outside 0…15,624.
        """
        numbers = np.atleast_1d(np.asarray(index))
        if not np.issubdtype(numbers.dtype, np.integer) or numbers.min() < 0 or numbers.max() >= CELLS:
            raise ArchitectureError(f"Indices of {self.name!r} are integers from 0 to {CELLS - 1}, but got {index!r}.")
        return _rows_of(_official()[1][numbers])

    def format(self, rows: Rows) -> list[str]:
        """Write the official arch strings."""
        return ["|{}~0|+|{}~0|{}~1|+|{}~0|{}~1|{}~2|".format(*(OPS[op] for op in row)) for row in rows]

    def parse(self, texts: Sequence[str]) -> Rows:
        """Read official arch strings.

        Raises:
            ArchitectureError: If a text has not the six edges of a cell or names an unknown operation.
        """
        return np.array([_parse(text) for text in texts], dtype=np.int64).reshape(-1, len(EDGES))


def _parse(text: str) -> list[int]:
    edges = [
        (int(source), target + 1, op)
        for target, node in enumerate(text.strip().split("+"))
        for op, source in re.findall(r"([^|~]+)~(\d+)", node)
        if re.fullmatch(r"\|([^|~]+~\d+\|)+", node)
    ]
    if [edge[:2] for edge in sorted(edges, key=lambda edge: (edge[1], edge[0]))] != list(EDGES):
        raise ArchitectureError(
            f"A cell of NAS-Bench-201 has six edges, written |op~0|+|op~0|op~1|+|op~0|op~1|op~2|, but {text!r} has "
            f"{len(edges)}: {', '.join(f'{source}→{target}' for source, target, _ in edges) or 'none'}."
        )
    for _, _, op in edges:
        if op not in OPS:
            raise ArchitectureError(unknown("operation", op, OPS))
    return [OPS.index(op) for _, _, op in sorted(edges, key=lambda edge: (edge[1], edge[0]))]


def _rows_of(places: NDArray[np.int64]) -> Rows:
    return places[:, None] // _PLACES % len(OPS)


@lru_cache(maxsize=1)
def _official() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Official index by place in lexicographic order, and the reverse."""
    order = list(range(CELLS))
    random.Random(88).shuffle(order)  # noqa: S311
    places = np.array(order)
    return np.argsort(places), places


@lru_cache(maxsize=1)
def _classes() -> NDArray[np.int64]:
    """Place of the canonical cell, for every place in lexicographic order."""
    representative: dict[tuple[str, bool], int] = {}
    expressions = []
    for place, row in enumerate(_rows_of(np.arange(CELLS)).tolist()):
        expression = _expression(row)
        expressions.append(expression)
        if _is_dead_free(row):
            representative.setdefault((expression, True), place)
    return np.array([representative[expression, True] for expression in expressions])


def _expression(row: Sequence[int]) -> str:
    """The cell's output as a sum of terms; empty where nothing arrives."""
    terms: list[list[str]] = [["x"], [], [], []]
    for (source, target), op in zip(EDGES, row, strict=True):
        if op == _SKIP:
            terms[target] += terms[source]
        elif op != _NONE and terms[source]:
            terms[target].append(f"{op}({'+'.join(sorted(terms[source]))})")
    return "+".join(sorted(terms[-1]))


def _is_dead_free(row: Sequence[int]) -> bool:
    reached, used = {0}, {NODES - 1}
    for (source, target), op in zip(EDGES, row, strict=True):
        if op != _NONE and source in reached:
            reached.add(target)
    for (source, target), op in zip(EDGES[::-1], row[::-1], strict=True):
        if op != _NONE and target in used:
            used.add(source)
    return all(op == _NONE or (s in reached and t in used) for (s, t), op in zip(EDGES, row, strict=True))


@lru_cache(maxsize=1)
def _active() -> Mask:
    """Active edges for every place in lexicographic order."""
    rows, classes = _rows_of(np.arange(CELLS)), _classes()
    active = np.zeros((CELLS, len(EDGES)), dtype=np.bool_)
    for edge in range(len(EDGES)):
        for op in range(len(OPS)):
            changed = rows.copy()
            changed[:, edge] = op
            active[:, edge] |= classes[changed @ _PLACES] != classes
    return active


def _cell(builder: NetworkBuilder, x: str, row: NDArray[np.int64]) -> str:
    """Build one cell; nodes that no signal reaches stay None."""
    channels = builder.shapes[x][0]
    nodes: list[str | None] = [x]
    for target in range(1, NODES):
        arriving = []
        for (source, end), op in zip(EDGES, row, strict=True):
            signal = nodes[source] if end == target else None
            if signal is not None and OPS[op] != "none":
                arriving.append(_edge(builder, signal, channels, OPS[op]))
        nodes.append(builder.sum(arriving) if arriving else None)
    return nodes[-1] or builder.zero(x)


def _edge(builder: NetworkBuilder, x: str, channels: int, op: str) -> str:
    if op == "skip_connect":
        return x
    if op == "avg_pool_3x3":
        return builder.pool(x, "AveragePool", 3)
    return builder.conv_bn(builder.act(x, "Relu"), channels, int(op[-1]), act=None)


def _reduction(builder: NetworkBuilder, x: str, channels: int) -> str:
    """Residual block of stride 2, pre-activated, with average pooling on the shortcut."""
    main = builder.conv_bn(builder.act(x, "Relu"), channels, 3, stride=2, act=None)
    main = builder.conv_bn(builder.act(main, "Relu"), channels, 3, act=None)
    shortcut = builder.conv(builder.pool(x, "AveragePool", 2, stride=2, padding=0), channels, 1)
    return builder.sum([main, shortcut])
