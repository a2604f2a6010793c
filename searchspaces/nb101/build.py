"""Cells of NAS-Bench-101 as networks (arXiv 1902.09635, sections 2.1 and 2.2)."""

from searchspaces.errors import NetworkError
from searchspaces.genes import Mask
from searchspaces.nb101.cells import OPS, VERTICES
from searchspaces.network import NetworkBuilder


def add_cell(builder: NetworkBuilder, x: str, channels: int, edges: Mask, ops: list[int]) -> str:
    """Append one cell and return its output.

    A vertex sums what arrives: tensors of other vertices, cut to its channels, and the cell's input through a 1×1
    convolution. The output concatenates its vertices and adds the projected input where an edge leads there from
    the input.

    Args:
        builder: What to write to.
        x: The cell's input.
        channels: Channels of the cell's output.
        edges: Pruned adjacency `(7, 7)`.
        ops: Operations of the five inner vertices, indices into `OPS`.

    Raises:
        NetworkError: If the cell has fewer channels than the output has vertices to concatenate.
    """
    width = vertex_channels(channels, edges)
    values: dict[int, str] = {}
    for vertex in sorted(width):
        with builder.scope(f"vertex{vertex}"):
            arriving = [_cut(builder, values[v], width[vertex]) for v in values if edges[v, vertex]]
            if edges[0, vertex]:
                arriving.append(builder.conv_bn(x, width[vertex], 1))
            values[vertex] = _operation(builder, builder.sum(arriving), width[vertex], OPS[ops[vertex - 1]])
    with builder.scope("output"):
        parts = [value for vertex, value in values.items() if edges[vertex, -1]]
        terms = [builder.add("Concat", *parts) if len(parts) > 1 else parts[0]] if parts else []
        if edges[0, -1]:
            terms.append(builder.conv_bn(x, channels, 1))
        return builder.sum(terms)


def vertex_channels(channels: int, edges: Mask) -> dict[int, int]:
    """Return the channels of each live inner vertex, such that their concatenation has `channels`.

    Vertices that lead to the output share its channels, the first of them taking what division leaves over; any
    other vertex has as many as the widest that it leads to.

    Raises:
        NetworkError: If there are too few channels to share.
    """
    last = [v for v in range(1, VERTICES - 1) if edges[v, -1]]
    if channels < len(last):
        raise NetworkError(
            f"The output of this cell concatenates {len(last)} vertices but has only {channels} channels to share "
            f"among them: set the space's `stem` to at least {VERTICES - 2}."
        )
    width = {v: channels // len(last) + (i < channels % len(last)) for i, v in enumerate(last)}
    for vertex in range(VERTICES - 2, 0, -1):
        if vertex not in width and edges[vertex].any():
            width[vertex] = max(width[v] for v in width if edges[vertex, v])
    return width


def _cut(builder: NetworkBuilder, x: str, channels: int) -> str:
    if builder.shapes[x][0] == channels:
        return x
    return builder.add("Slice", x, axis=0, start=0, end=channels)


def _operation(builder: NetworkBuilder, x: str, channels: int, op: str) -> str:
    if op == "maxpool3x3":
        return builder.pool(x, "MaxPool", 3)
    return builder.conv_bn(x, channels, 3 if op == "conv3x3-bn-relu" else 1)
