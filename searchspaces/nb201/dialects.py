"""Notations of NAS-Bench-201 cells that other tools use.

Official indices and arch strings are the space's own (`index`, `from_index`, `format`, `parse`); a row is the tuple of
operations in the order of `EDGES`. NASLib numbers edges by their source first and has its own order of operations.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchspaces.errors import ArchitectureError
from searchspaces.genes import Rows
from searchspaces.nb201.space import EDGES, OPS

NASLIB_OPS = ("skip_connect", "none", "nor_conv_3x3", "nor_conv_1x1", "avg_pool_3x3")
NASLIB_EDGES = tuple(sorted(EDGES))

_OP_OF_NASLIB = np.array([OPS.index(op) for op in NASLIB_OPS])
_NASLIB_OF_OP = np.array([NASLIB_OPS.index(op) for op in OPS])
_PLACE_OF_EDGE = np.array([NASLIB_EDGES.index(edge) for edge in EDGES])


def from_naslib(tuples: Any) -> Rows:
    """Return the rows `(n, 6)` of cells that NASLib writes as six operation numbers, such as `(4, 0, 3, 1, 4, 3)`.

    Raises:
        ArchitectureError: If they are not six numbers from 0 to 4 each.
    """
    array = np.asarray(tuples)
    if array.ndim != 2 or array.shape[1] != len(EDGES) or not np.issubdtype(array.dtype, np.integer):
        raise ArchitectureError(f"NASLib writes a cell as {len(EDGES)} whole numbers, but got shape {array.shape}.")
    if array.min(initial=0) < 0 or array.max(initial=0) >= len(OPS):
        raise ArchitectureError(f"NASLib's operations have the numbers 0 to {len(OPS) - 1}, but got {array.max()}.")
    return np.asarray(_OP_OF_NASLIB[array[:, _PLACE_OF_EDGE]])


def to_naslib(rows: Rows) -> NDArray[np.int64]:
    """Return NASLib's operation numbers of each row, shape `(n, 6)`."""
    return np.asarray(_NASLIB_OF_OP[rows[:, np.argsort(_PLACE_OF_EDGE)]])


def without_dead(rows: Rows) -> Rows:
    """Replace operations on edges that carry no signal from input to output by `none`, `(n, 6)`."""
    none, nodes = OPS.index("none"), max(target for _, target in EDGES) + 1
    reached = np.zeros((len(rows), nodes), dtype=np.bool_)
    used = reached.copy()
    reached[:, 0] = used[:, -1] = True
    for edge, (source, target) in enumerate(EDGES):
        reached[:, target] |= reached[:, source] & (rows[:, edge] != none)
    for edge, (source, target) in reversed(list(enumerate(EDGES))):
        used[:, source] |= used[:, target] & (rows[:, edge] != none)
    sources, targets = np.array(EDGES).T
    return np.where(reached[:, sources] & used[:, targets], rows, none)
