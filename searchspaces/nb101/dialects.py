"""Notations of NAS-Bench-101 cells that tables and other tools use: adjacency matrices, NASLib's tuples, hashes."""

from collections.abc import Sequence
from math import isqrt

import numpy as np

from searchspaces.errors import ArchitectureError
from searchspaces.genes import Rows
from searchspaces.nb101.cells import INNER, OPS, VERTICES, adjacency, prune
from searchspaces.nb101.hashing import module_hashes
from searchspaces.nb101.notation import rows_of_table

NASLIB_OPS = ("input", "output", "maxpool3x3", "conv1x1-bn-relu", "conv3x3-bn-relu")


def from_matrices(matrices: Sequence[str], operations: Sequence[str]) -> Rows:
    """Return the rows `(n, 26)` of cells given by adjacency matrix and operations, as the benchmark's file has them.

    Args:
        matrices: Per cell the entries of its V×V adjacency matrix, row by row, as text of 0 and 1.
        operations: Per cell the V operations, from `input` to `output`, joined by commas.

    Raises:
        ArchitectureError: If a matrix is not square or not of a graph in order, or an operation is unknown.
    """
    bits = {matrix: _edge_bits(matrix) for matrix in set(matrices)}
    digits = {names: _digits(names.split(",")) for names in set(operations)}
    return rows_of_table(
        np.array([bits[matrix] for matrix in matrices], dtype=np.int64),
        np.array([len(digits[names]) + 2 for names in operations], dtype=np.int64),
        [digits[names] for names in operations],
    )


def _edge_bits(matrix: str) -> int:
    size = isqrt(len(matrix))
    edges = [(place // size, place % size) for place, entry in enumerate(matrix) if entry == "1"]
    square = size * size == len(matrix) and set(matrix) <= set("01")
    if not square or any(source >= target for source, target in edges):
        raise ArchitectureError(
            f"An adjacency matrix has V² entries 0 or 1, those on and below the diagonal 0, but got {matrix!r}."
        )
    return sum(1 << source + target * (target - 1) // 2 for source, target in edges)


def _digits(names: Sequence[str]) -> str:
    if len(names) < 2 or names[0] != "input" or names[-1] != "output" or not set(names[1:-1]) <= set(OPS):
        raise ArchitectureError(f"Operations go from input over some of {', '.join(OPS)} to output, but got {names!r}.")
    return "".join(str(OPS.index(name)) for name in names[1:-1])


def from_naslib(tuples: Sequence[Sequence[int]]) -> Rows:
    """Return the rows `(n, 26)` of cells that NASLib writes as V² matrix entries and V operation numbers.

    Raises:
        ArchitectureError: If a tuple has another length, or is not a cell.
    """
    matrices, operations = [], []
    for numbers in tuples:
        size = next((v for v in range(2, VERTICES + 1) if v * v + v == len(numbers)), 0)
        if not size or not all(0 <= number < len(NASLIB_OPS) for number in numbers):
            raise ArchitectureError(
                f"NASLib writes a cell of V vertices as V² + V numbers from 0 to {len(NASLIB_OPS) - 1}, but got "
                f"{numbers!r}."
            )
        matrices.append("".join(map(str, numbers[:-size])))
        operations.append(",".join(NASLIB_OPS[number] for number in numbers[-size:]))
    return from_matrices(matrices, operations)


def to_naslib(rows: Rows) -> list[tuple[int, ...]]:
    """Return NASLib's tuple of each row's cell, without its dead vertices."""
    pruned = prune(rows)
    tuples = []
    for matrix, row in zip(adjacency(pruned), pruned, strict=True):
        names = ["input", *(OPS[op] for op in row[-INNER:]), "output"]
        live = [v for v in range(VERTICES) if v in (0, VERTICES - 1) or matrix[v].any()]
        entries = matrix[np.ix_(live, live)].astype(int).ravel().tolist()
        tuples.append((*entries, *(NASLIB_OPS.index(names[v]) for v in live)))
    return tuples


def from_hashes(hashes: Sequence[str], rows: Rows) -> Rows:
    """Return those of `rows` that have the given module hashes, `(n, 26)`.

    Args:
        hashes: Published hashes.
        rows: Where to look, such as the rows of a table or `enumerate_classes()`; hashing takes 0.1 ms a row.

    Raises:
        ArchitectureError: If no row has one of the hashes.
    """
    place = {digest: i for i, digest in enumerate(module_hashes(rows))}
    unknown = [digest for digest in hashes if digest not in place]
    if unknown:
        raise ArchitectureError(
            f"{len(unknown)} of {len(hashes)} hashes are of none of the {len(rows)} rows, the first is {unknown[0]}."
        )
    return rows[[place[digest] for digest in hashes]]
