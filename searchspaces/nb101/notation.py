"""Text and table notations of NAS-Bench-101 cells.

In text a cell is the list of its vertices, each an operation followed by the vertices that feed it:
`input|conv3x3-bn-relu~0|maxpool3x3~0~1|output~0~2`.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchspaces.errors import ArchitectureError, unknown
from searchspaces.genes import Rows
from searchspaces.nb101.cells import EDGES, INNER, INPUT_EDGES, OPS, VERTICES, adjacency

_EDGE_GENE = {edge: gene for gene, edge in enumerate(EDGES)}


def format_cells(rows: Rows) -> list[str]:
    """Write all seven vertices of each row, the dead ones included, so that nothing is lost."""
    texts = []
    for row, matrix in zip(rows, adjacency(rows), strict=True):
        names = ["input", *(OPS[op] for op in row[-INNER:]), "output"]
        texts.append(
            "|".join("~".join([name, *map(str, np.flatnonzero(matrix[:, v]))]) for v, name in enumerate(names))
        )
    return texts


def parse_cell(text: str) -> list[int]:
    """Read one text; cells of fewer than seven vertices are filled up with dead ones, fed by the input.

    Raises:
        ArchitectureError: If there are not two to seven vertices from `input` to `output`, an operation is unknown,
            or a vertex is fed by one that does not stand before it, or twice by one.
    """
    vertices = [part.strip().split("~") for part in text.strip().split("|")]
    names = [vertex[0] for vertex in vertices]
    if not 2 <= len(vertices) <= VERTICES or names[0] != "input" or names[-1] != "output":
        raise ArchitectureError(
            f"A cell of NAS-Bench-101 is written as two to {VERTICES} vertices, from input to output, each followed "
            f"by the vertices that feed it, as in input|{OPS[0]}~0|output~0~1, but {text!r} has {', '.join(names)}."
        )
    row = [0] * (len(EDGES) + INNER)
    for gene in INPUT_EDGES[len(vertices) - 2 :]:
        row[gene] = 1
    for v, (name, *sources) in enumerate(vertices):
        if 0 < v < len(vertices) - 1:
            if name not in OPS:
                raise ArchitectureError(unknown("operation", name, OPS))
            row[len(EDGES) + v - 1] = OPS.index(name)
        if not set(sources) <= set(map(str, range(v))) or len(set(sources)) < len(sources):
            raise ArchitectureError(
                f"Vertex {v} of a cell can be fed by vertices that stand before it, numbered from 0, each once, but in "
                f"{text!r} it is fed by {', '.join(sources)}."
            )
        for source in sources:
            row[_EDGE_GENE[int(source), VERTICES - 1 if v == len(vertices) - 1 else v]] = 1
    return row


def rows_of_table(edge_bits: Any, vertices: Any, ops: Sequence[str]) -> Rows:
    """Turn records of `n` cells of two to seven vertices into rows `(n, 26)`, filled up as by `parse_cell`.

    Args:
        edge_bits: Integers `(n,)` with bit `x + y(y-1)/2` set for an edge x→y.
        vertices: Numbers of vertices `(n,)`, input and output included.
        ops: One text per cell with one digit per inner vertex, an index into `OPS`.

    Raises:
        ArchitectureError: If a record contradicts itself or is out of range.
    """
    bits, sizes = np.asarray(edge_bits), np.asarray(vertices)
    _check_table(bits, sizes, ops)
    rows = np.zeros((len(ops), len(EDGES) + INNER), dtype=np.int64)
    for size in range(2, VERTICES + 1):
        chosen = np.flatnonzero(sizes == size)
        rows[np.ix_(chosen, INPUT_EDGES[size - 2 :])] = 1
        for bit, (source, target) in enumerate(EDGES[: size * (size - 1) // 2]):
            gene = _EDGE_GENE[source, VERTICES - 1 if target == size - 1 else target]
            rows[chosen, gene] = bits[chosen] >> bit & 1
    digits = "".join(text.ljust(INNER, "0") for text in ops)
    rows[:, len(EDGES) :] = np.frombuffer(digits.encode(), dtype=np.uint8).reshape(-1, INNER) - ord("0")
    return rows


def _check_table(bits: NDArray[Any], sizes: NDArray[Any], ops: Any) -> None:
    if not bits.shape == sizes.shape == (len(ops),):
        raise ArchitectureError(
            "Records of NAS-Bench-101 need edge bits, a number of vertices and operations for each cell, but got the "
            f"shapes {bits.shape}, {sizes.shape} and {(len(ops),)}."
        )
    digits = re.compile(f"[0-{len(OPS) - 1}]*")
    for i, (edges, size, text) in enumerate(zip(bits.tolist(), sizes.tolist(), ops, strict=True)):
        if not (
            isinstance(edges, int)
            and isinstance(size, int)
            and isinstance(text, str)
            and 2 <= size <= VERTICES
            and 0 <= edges < 2 ** (size * (size - 1) // 2)
            and len(text) == size - 2
            and digits.fullmatch(text)
        ):
            raise ArchitectureError(
                f"A record has 2 to {VERTICES} vertices, a bit for each of their V(V-1)/2 edges, and as text (leading "
                f"zeros count) V-2 operations from 0 to {len(OPS) - 1}, but record {i} has {size!r} vertices, edge "
                f"bits {edges!r} and operations {text!r}."
            )
