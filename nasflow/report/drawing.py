"""Compact SVG drawings of architectures, from the graph that their space gives."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from nasflow.report.layout import Layout, arrange, bypass, longest_paths, prune
from nasflow.report.text import count, esc, listing
from searchspaces.genes import GeneSpace, JointSpace, Mask
from searchspaces.network import OPERATORS
from searchspaces.space import Op, SearchSpace

MAX_VERTICES = 60
_LETTER, _LINE, _PAD, _HIGH, _GAP = 6.4, 12.0, 8.0, 30.0, 10.0
_STEP, _CHAIN_STEP, _CHAIN_WIDTH = 26.0, 14.0, 440.0
_SMALLEST = 0.72  # drawings shrink to this on narrow screens, then scroll
_GROUPS = {
    "convolution": ("conv", "Conv"),
    "separable convolution": ("separable",),
    "inverted residual": ("inverted_residual",),
    "max pooling": ("max_pool", "MaxPool"),
    "average pooling": ("average_pool", "AveragePool", "GlobalAveragePool"),
    "skip": ("skip",),
    "matrix product": ("Gemm", "MatMul"),
    "end": ("input", "output"),
}
_OTHER = "other"
# Normalisations and activations of networks drawn operator by operator: they follow nearly every layer.
_QUIET = {
    "BatchNormalization", "LayerNormalization", "Relu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Gelu",
}  # fmt: skip
_GROUP_OF = {kind: group for group, kinds in _GROUPS.items() for kind in kinds}


@dataclass(frozen=True)
class Drawing:
    """One architecture drawn.

    Attributes:
        html: An SVG, or a sentence where there is nothing to draw.
        groups: Groups of operations that occur, for the legend.
        reduced: Whether normalisations and activations are left out.
    """

    html: str
    groups: frozenset[str] = frozenset()
    reduced: bool = False


def draw(space: GeneSpace, row: NDArray[np.int64], name: str) -> Drawing:
    """Draw the architecture of one `row (genes,)`; of a joint space, the part that is a network.

    Args:
        space: Its space.
        row: The architecture.
        name: What it is called, for those who cannot see the drawing.
    """
    if isinstance(space, JointSpace):
        parts = [(part, inner) for part, inner in space.parts.items() if isinstance(inner, SearchSpace)]
        return draw(parts[0][1], row[space.part(parts[0][0])], name) if parts else Drawing("")
    if not isinstance(space, SearchSpace):
        return Drawing("")
    adjacencies, ids = space.graph(row[None])
    return draw_graph(adjacencies[0], [space.ops[i] if i >= 0 else None for i in ids[0]], name)


def draw_graph(adjacency: Mask, ops: Sequence[Op | None], name: str) -> Drawing:
    """Draw a labelled graph without what carries no signal.

    Args:
        adjacency: Shape `(v, v)`, true at `[a, b]` for an edge from a to b > a.
        ops: Operation of each vertex, None for unused ones.
        name: What it is called.
    """
    signal = prune(adjacency, np.array([op is not None and op.kind != "none" for op in ops], dtype=np.bool_))
    live = [op for v, op in enumerate(ops) if op is not None and signal[v]]
    used = [op for op in live if op.kind not in _QUIET]
    inner = [op for op in used if op.kind not in ("input", "output")]
    if len(used) < 2:
        return Drawing('<p class="note">No signal reaches the output: all paths from the input are cut.</p>')
    what = f"{name}: {_census(inner)}"
    if len(used) > MAX_VERTICES:
        return Drawing(f'<p class="note">{esc(_census(inner))}; too many to draw.</p>')
    edges = bypass(adjacency[np.ix_(signal, signal)], np.array([op.kind not in _QUIET for op in live]))
    layers = longest_paths(edges)
    chain = len(set(layers.tolist())) == len(layers) and int(edges.sum()) == len(layers) - 1
    svg = _chain(used, what) if chain else _layered(used, arrange(edges), what)
    return Drawing(svg, frozenset(_group(op) for op in inner), len(used) < len(live))


def legend(drawings: Sequence[Drawing]) -> str:
    """Return the legend of drawings."""
    order = [group for group in (*_GROUPS, _OTHER) if any(group in drawing.groups for drawing in drawings)]
    items = "".join(f'<li><span class="swatch {_css(group)}"></span>{esc(group)}</li>' for group in order)
    notes = ["stronger colour: larger kernel"]
    notes += ["without normalisations and activations"] if any(drawing.reduced for drawing in drawings) else []
    return f'<ul class="legend">{items}<li class="muted">{"; ".join(notes)}</li></ul>' if items else ""


def _census(ops: Sequence[Op]) -> str:
    """Say how often each operation occurs."""
    counted = Counter(_label(op) for op in ops)
    parts = [f"{times} × {op}" if times > 1 else op for op, times in counted.items()]
    return f"{count(len(ops), 'operation')}{': ' if parts else ''}{listing(parts)}"


def _group(op: Op) -> str:
    return _GROUP_OF.get(op.kind, _OTHER)


def _css(group: str) -> str:
    return f"op-{group.split()[0]}"


def _label(op: Op) -> str:
    """The space's name of an operation; operator and window of an ONNX operator."""
    if op.kind not in OPERATORS:
        return op.name
    return f"{op.kind} {op.kernel}x{op.kernel}" if op.kernel > 1 or op.kind == "Conv" else op.kind


def _lines(label: str) -> list[str]:
    """Break a long label in two at the separator, or the capital letter, next to its middle."""
    breaks = [match.span() for match in re.finditer(r"(?<=.)[_\-. ](?=.)|(?<=[a-z])(?=[A-Z])", label)]
    if len(label) <= 9 or not breaks:
        return [label]
    start, end = min(breaks, key=lambda span: (abs(sum(span) - len(label)), -span[0]))
    return [label[:start], label[end:]]


def _width(op: Op) -> float:
    return max(len(line) for line in _lines(_label(op))) * _LETTER + 2 * _PAD


def _vertex(op: Op, x: float, y: float, width: float) -> str:
    """A box with its label, centred at `(x, y)`."""
    lines = _lines(_label(op))
    tint = f"t{min(max(op.kernel, 1), 7) // 2}"
    radius = 15 if _group(op) == "end" else 5
    texts = "".join(
        f'<text x="{x:.1f}" y="{y + 3.8 + _LINE * (i - (len(lines) - 1) / 2):.1f}">{esc(line)}</text>'
        for i, line in enumerate(lines)
    )
    return (
        f'<g class="{_css(_group(op))} {tint}"><title>{esc(op.name)}</title><rect x="{x - width / 2:.1f}" '
        f'y="{y - _HIGH / 2:.1f}" width="{width:.1f}" height="{_HIGH:.0f}" rx="{radius}"/>{texts}</g>'
    )


def _arrow(x: float, y: float) -> str:
    """An arrow's head that points right and ends at `(x, y)`."""
    return f'<path class="head" d="M{x - 6:.1f} {y - 3.5:.1f}L{x:.1f} {y:.1f}L{x - 6:.1f} {y + 3.5:.1f}z"/>'


def _svg(parts: Sequence[str], width: float, height: float, what: str) -> str:
    size = f"width:{width:.0f}px;min-width:{_SMALLEST * width:.0f}px"
    return (
        f'<div class="scroll"><svg class="cell" role="img" viewBox="0 0 {width:.0f} {height:.0f}" style="{size}">'
        f"<title>{esc(what)}</title>{''.join(parts)}</svg></div>"
    )


def _layered(ops: Sequence[Op], layout: Layout, what: str) -> str:
    """Draw a graph in layers from left to right."""
    widths = [0.0] * (int(layout.layers.max()) + 1)
    for op, layer in zip(ops, layout.layers, strict=True):
        widths[layer] = max(widths[layer], _width(op))
    centres = [sum(widths[:i]) + _STEP * i + widths[i] / 2 + 1 for i in range(len(widths))]
    pitch = _HIGH + _GAP
    y = [height * pitch for height in layout.heights]
    parts = []
    for source, target, waypoints in layout.edges:
        first, last = int(layout.layers[source]), int(layout.layers[target])
        x = centres[first] + _width(ops[source]) / 2
        path, here = f"M{x:.1f} {y[source]:.1f}", y[source]
        end = centres[last] - _width(ops[target]) / 2
        for layer, there in zip(range(first + 1, last + 1), [*(w * pitch for w in waypoints), y[target]], strict=True):
            entry = centres[layer] - widths[layer] / 2
            path += _bend(x, here, entry if layer < last else end - 5, there)
            x, here = entry, there
            if layer < last:
                x += widths[layer]
                path += f"H{x:.1f}"
        parts.append(f'<path class="edge" d="{path}"/>{_arrow(end, y[target])}')
    x_of = [centres[layer] for layer in layout.layers]
    parts += [_vertex(op, across, down, _width(op)) for op, across, down in zip(ops, x_of, y, strict=True)]
    return _svg(parts, centres[-1] + widths[-1] / 2 + 1, layout.rows * pitch, what)


def _bend(x: float, y: float, to_x: float, to_y: float) -> str:
    """A curve that leaves and arrives horizontally."""
    middle = (x + to_x) / 2
    return f"C{middle:.1f} {y:.1f} {middle:.1f} {to_y:.1f} {to_x:.1f} {to_y:.1f}"


def _chain(ops: Sequence[Op], what: str) -> str:
    """Draw a chain in lines, like text."""
    width = max(_width(op) for op in ops)
    across = max(1, min(len(ops), int((_CHAIN_WIDTH + _CHAIN_STEP) // (width + _CHAIN_STEP))))
    pitch = _HIGH + 18
    columns = [8 + i * (width + _CHAIN_STEP) + width / 2 for i in range(across)]
    places = [(columns[i % across], 1 + _HIGH / 2 + i // across * pitch) for i in range(len(ops))]
    parts = []
    for (x, y), (to_x, to_y) in pairwise(places):
        start, end = x + width / 2, to_x - width / 2
        between = (y + to_y) / 2
        turn = f"H{start + 5:.1f}V{between:.1f}H{end - 7:.1f}V{to_y:.1f}" if to_y > y else ""
        parts.append(f'<path class="edge" d="M{start:.1f} {y:.1f}{turn}H{end - 5:.1f}"/>{_arrow(end, to_y)}')
    parts += [_vertex(op, x, y, width) for op, (x, y) in zip(ops, places, strict=True)]
    lines = -(-len(ops) // across)
    return _svg(parts, 14 + across * (width + _CHAIN_STEP) - _CHAIN_STEP, lines * pitch - 16, what)
