"""NAS-Bench-101 (arXiv 1902.09635): cells of at most seven vertices and nine edges, three operations."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from searchspaces.genes import Gene, Mask, Rows
from searchspaces.nb101.build import add_cell
from searchspaces.nb101.cells import (
    EDGES,
    INNER,
    MAX_EDGES,
    OPS,
    VERTICES,
    active,
    adjacency,
    class_numbers,
    edge_count,
    prune,
    reach,
    representatives,
)
from searchspaces.nb101.classes import enumerate_classes
from searchspaces.nb101.hashing import module_hashes
from searchspaces.nb101.notation import format_cells, parse_cell, rows_of_table
from searchspaces.network import INPUT, Network, NetworkBuilder
from searchspaces.space import Op, SearchSpace
from searchspaces.task import Task


class NB101(SearchSpace):
    """The NAS-Bench-101 search space of 423,624 cells.

    Rows hold the edge bits 0→1, 0→2, 1→2, …, 5→6 over seven vertices and the operations of the inner vertices 1 to
    5. Vertices that are on no path from input (0) to output (6) are dead and left out of the network, so smaller
    cells are rows with dead vertices. Two cells are of one canonical class when they are isomorphic without their
    dead vertices, which is when their published hashes are equal. Where the output's channels do not divide evenly
    among its vertices the earlier ones get one more, so cells of one class can differ slightly in parameters.

    `sample` is uniform over rows, as in the publication, and so far from uniform over classes: 0.3 % of the rows but
    85 % of the classes use all five inner vertices. `sample_classes` draws uniformly over classes, and
    `enumerate_classes` lists them.
    """

    name = "nb101"
    genes = (
        *(Gene(f"{source}_{target}", (0, 1)) for source, target in EDGES),
        *(Gene(f"op{vertex}", OPS) for vertex in range(1, VERTICES - 1)),
    )
    scales: ClassVar[dict[str, dict[str, Any]]] = {
        "full": {"stem": 128, "stacks": 3, "cells": 3},
        "small": {"stem": 16, "stacks": 3, "cells": 1},
    }

    @cached_property
    def ops(self) -> tuple[Op, ...]:
        """Input, output, then the three operations."""
        return (
            Op("input", "input"),
            Op("output", "output"),
            Op("conv3x3-bn-relu", "conv", kernel=3),
            Op("conv1x1-bn-relu", "conv", kernel=1),
            Op("maxpool3x3", "max_pool", kernel=3),
        )

    def is_valid(self, rows: Rows) -> Mask:
        """Tell which cells connect input to output with at most nine edges, counted without dead vertices."""
        edges = edge_count(prune(rows))
        return (edges > 0) & (edges <= MAX_EDGES)

    def canonical(self, rows: Rows) -> Rows:
        """Prune, and order the vertices for the smallest row; dead vertices come last, fed by the input, operation 0.

        They keep that edge because single changes of active genes could not bring back a vertex without edges.
        """
        return representatives(class_numbers(rows))

    def enumerate_classes(self) -> Rows:
        """Return the canonical rows of the 423,624 classes, in row order; takes ten seconds once per process."""
        return enumerate_classes()

    def active(self, rows: Rows) -> Mask:
        """Edges that would carry the signal if set, and operations of live vertices.

        A change of any of these leads to another class or to a cell that is not valid, a change of any other gene
        never does.
        """
        return active(rows)

    def network(self, row: NDArray[np.int64], task: Task) -> Network:
        """Stem, stacks of cells with max pooling and twice the channels between stacks, classifier."""
        pruned = prune(row[None])
        edges, ops = adjacency(pruned)[0], pruned[0, -INNER:].tolist()
        channels = self.scale["stem"]
        builder = NetworkBuilder(f"{self.name}_{module_hashes(pruned)[0][:12]}", task.input_shape)
        x = builder.conv_bn(INPUT, channels, 3)
        for stack in range(self.scale["stacks"]):
            if stack:
                x = builder.pool(x, "MaxPool", 2, stride=2, padding=0)
                channels *= 2
            for cell in range(self.scale["cells"]):
                with builder.scope(f"stack{stack}_cell{cell}"):
                    x = add_cell(builder, x, channels, edges, ops)
        return builder.build(builder.classifier(x, task.classes))

    def graph(self, rows: Rows) -> tuple[Mask, NDArray[np.int64]]:
        """Vertices are those of the pruned cell in the row's order; ids index `ops`, -1 for dead vertices."""
        from_input, to_output = reach(rows)
        ops = np.zeros((len(rows), VERTICES), dtype=np.int64)
        ops[:, 1:-1] = np.where((from_input & to_output)[:, 1:-1], rows[:, -INNER:] + 2, -1)
        ops[:, -1] = 1
        return adjacency(prune(rows)), ops

    def hashes(self, rows: Rows) -> list[str]:
        """Return the published module hash of each row, by which the benchmark's tables name cells."""
        return module_hashes(rows)

    def from_table(self, edge_bits: Any, vertices: Any, ops: Sequence[str]) -> Rows:
        """Return the rows `(n, 26)` of table records.

        Args:
            edge_bits: Integers `(n,)` with bit `x + y(y-1)/2` set for an edge x→y.
            vertices: Numbers of vertices `(n,)`, input and output included.
            ops: One text per cell with a digit per inner vertex: 0 conv3x3, 1 conv1x1, 2 maxpool3x3.

        Raises:
            ArchitectureError: If a record is malformed or not a valid cell.
        """
        return self.check(rows_of_table(edge_bits, vertices, ops))

    def format(self, rows: Rows) -> list[str]:
        """Write per vertex its operation and sources: `input|conv3x3-bn-relu~0|…|output~0~1`."""
        return format_cells(rows)

    def parse(self, texts: Sequence[str]) -> Rows:
        """Read what `format` writes; cells of fewer than seven vertices may be written as such.

        They are filled up with dead vertices as in `canonical`.

        Raises:
            ArchitectureError: If a text is malformed, names an unknown operation, or is not a valid cell.
        """
        return self.check([parse_cell(text) for text in texts])
