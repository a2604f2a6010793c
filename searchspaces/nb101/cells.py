"""Cells of NAS-Bench-101 as rows: reachability, pruning and the canonical form, vectorised over rows.

A row holds 21 edge bits, the edge x→y at `x + y(y-1)/2`, and then the operations of the vertices 1 to 5. Vertex 0 is
the cell's input and vertex 6 its output; vertices that are not on a path between the two are dead.
"""

from functools import lru_cache
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from searchspaces.genes import Mask, Rows

OPS = ("conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3")
VERTICES = 7
INNER = VERTICES - 2
EDGES = tuple((source, target) for target in range(1, VERTICES) for source in range(target))
MAX_EDGES = 9
INPUT_EDGES = np.array([EDGES.index((0, target)) for target in range(1, VERTICES - 1)])

_SOURCES, _TARGETS = np.array(EDGES).T
_BITS = len(EDGES)
# A row is packed into one number in its own order: the first gene takes the highest bit, operations two bits each.
_SHIFTS = np.concatenate([np.arange(_BITS)[::-1] + 2 * INNER, 2 * np.arange(INNER)[::-1]])
_MASKS = np.array([1] * _BITS + [3] * INNER)
_PENALTY = 2 ** (_BITS + 2 * INNER)
_CHUNK = 16384


def adjacency(rows: Rows) -> Mask:
    """Return the adjacency `(n, 7, 7)` of rows `(n, 26)`."""
    matrix = np.zeros((len(rows), VERTICES, VERTICES), dtype=np.bool_)
    matrix[:, _SOURCES, _TARGETS] = rows[:, :_BITS] != 0
    return matrix


def reach(rows: Rows) -> tuple[Mask, Mask]:
    """Tell which vertices the input reaches and which reach the output, both `(n, 7)`."""
    matrix = adjacency(rows)
    from_input = np.zeros((len(rows), VERTICES), dtype=np.bool_)
    to_output = from_input.copy()
    from_input[:, 0] = to_output[:, -1] = True
    for vertex in range(1, VERTICES):
        from_input[:, vertex] = (matrix[:, :, vertex] & from_input).any(axis=1)
        to_output[:, -1 - vertex] = (matrix[:, -1 - vertex] & to_output).any(axis=1)
    return from_input, to_output


def active(rows: Rows) -> Mask:
    """Tell which genes matter, `(n, 26)`: edges that would carry the signal if set, operations of live vertices.

    This rule is exact. An edge whose source the input does not reach, or whose target does not reach the output, is
    on no path between the two, and as there are no cycles its presence does not change what its source is reached
    from or its target leads to. Any other edge is live when present, and so changes the number of live edges; the
    operation of a live vertex changes how often the cell has which operation.
    """
    from_input, to_output = reach(rows)
    edges = from_input[:, _SOURCES] & to_output[:, _TARGETS]
    return np.concatenate([edges, (from_input & to_output)[:, 1:-1]], axis=1)


def prune(rows: Rows) -> Rows:
    """Clear the edges that carry no signal and the operations of dead vertices, `(n, 26)`."""
    return np.where(active(rows), rows, 0)


def attach_dead(rows: Rows) -> Rows:
    """Let the input feed every dead vertex of pruned rows, `(n, 26)`.

    The cells stay the same, but a dead vertex is then one edge to the output away from coming alive. Without any
    edge it would take two changes at once, and searches that change one gene at a time could only ever lose vertices.
    """
    from_input, to_output = reach(rows)
    result = rows.copy()
    result[:, INPUT_EDGES] |= ~(from_input & to_output)[:, 1:-1]
    return result


def edge_count(rows: Rows) -> NDArray[np.int64]:
    """Return the number of edges of each row, `(n,)`."""
    return np.asarray(rows[:, :_BITS].sum(axis=1))


def pack(rows: Rows) -> NDArray[np.int64]:
    """Return each row as one number, `(n,)`, which sorts as the rows do."""
    return np.asarray((rows << _SHIFTS).sum(axis=1))


def unpack(numbers: NDArray[np.int64]) -> Rows:
    """Return the rows `(n, 26)` that are packed in `numbers`."""
    return np.asarray(numbers[:, None] >> _SHIFTS & _MASKS)


def class_numbers(rows: Rows) -> NDArray[np.int64]:
    """Return a number that names the class of each row, `(n,)`: equal for isomorphic pruned cells.

    It is the smallest packed pruned row over all orders of the inner vertices that keep edges pointing forward and
    have the dead vertices last. Under one order the packed number is linear in the genes, so a matrix product gives
    the numbers under all 120 orders; orders that are not allowed cost a penalty.
    """
    numbers = np.zeros(len(rows), dtype=np.int64)
    for start in range(0, len(rows), _CHUNK):
        mask = active(rows[start : start + _CHUNK])
        pruned = np.where(mask, rows[start : start + _CHUNK], 0)
        features = np.concatenate([pruned, ~mask[:, _BITS:]], axis=1).astype(np.float64)
        numbers[start : start + _CHUNK] = (features @ _order_weights()).min(axis=1) % _PENALTY
    return numbers


def representatives(numbers: NDArray[np.int64]) -> Rows:
    """Return the canonical rows `(n, 26)` of classes that `class_numbers` named."""
    return attach_dead(unpack(numbers))


@lru_cache(maxsize=1)
def _order_weights() -> NDArray[np.float64]:
    """Weights `(26 + 5, 120)` of genes and dead vertices; all products stay far below 2**53, so they are exact."""
    columns = []
    for order in permutations(range(1, VERTICES - 1)):
        place = np.argsort([0, *order, VERTICES - 1])
        source, target = place[_SOURCES], place[_TARGETS]
        moved = _SHIFTS[np.where(source < target, source + target * (target - 1) // 2, 0)]
        edges = np.where(source < target, 2.0**moved, _PENALTY)
        inner = place[1:-1] - 1
        dead = _PENALTY * (INNER - 1 - inner)
        columns.append(np.concatenate([edges, 2.0 ** _SHIFTS[_BITS + inner], dead]))
    return np.array(columns).T.copy()
