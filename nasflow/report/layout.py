"""Layered layout of directed acyclic graphs, left to right (Sugiyama's scheme).

Vertices stand in the layer of their longest path from a source. An edge that skips layers runs through a *waypoint*
in each, so that it bends around vertices; waypoints and vertices are ordered by the mean place of their neighbours.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from searchspaces.genes import Mask

SWEEPS = 8
WAYPOINT = 0.55  # height of a waypoint, where a vertex has 1


@dataclass(frozen=True)
class Layout:
    """Where everything stands.

    Attributes:
        layers: Layer of each vertex, shape `(v,)`.
        heights: Vertical centre of each vertex in units of a vertex's height and gap, from 0 up, shape `(v,)`.
        edges: Per edge its source, its target and the heights of its waypoints, one per skipped layer.
        rows: Height of the whole drawing in the same units.
    """

    layers: NDArray[np.int64]
    heights: NDArray[np.float64]
    edges: tuple[tuple[int, int, tuple[float, ...]], ...]
    rows: float


def prune(adjacency: Mask, keep: Mask) -> Mask:
    """Tell which vertices carry the signal: those in `keep` on a path from the first vertex to the last; shape `(v,)`.

    Args:
        adjacency: Shape `(v, v)`, true at `[a, b]` for an edge from a to b > a.
        keep: Shape `(v,)`; the first entry is the input, the last true one the output.
    """
    if not keep.any():
        return keep
    edges = adjacency & keep[:, None] & keep[None, :]
    output = int(np.flatnonzero(keep)[-1])
    reached, used = np.zeros(len(keep), dtype=np.bool_), np.zeros(len(keep), dtype=np.bool_)
    reached[0] = used[output] = True
    for v in range(len(keep)):
        reached[v] |= bool((edges[:, v] & reached).any())
    for v in reversed(range(len(keep))):
        used[v] |= bool((edges[v] & used).any())
    return np.asarray(reached & used)


def bypass(adjacency: Mask, kept: Mask) -> Mask:
    """Remove vertices, joining the sources of each to its targets.

    Args:
        adjacency: Shape `(v, v)`.
        kept: Vertices to keep, shape `(v,)`.

    Returns:
        Adjacency of the kept vertices only.
    """
    edges = adjacency.copy()
    for v in np.flatnonzero(~kept):
        edges |= np.outer(edges[:, v], edges[v])
        edges[v] = edges[:, v] = False
    return edges[np.ix_(kept, kept)]


def longest_paths(adjacency: Mask) -> NDArray[np.int64]:
    """Return the number of edges on the longest path to each vertex, shape `(v,)`."""
    layers = np.zeros(len(adjacency), dtype=np.int64)
    for v in range(len(adjacency)):
        sources = np.flatnonzero(adjacency[:, v])
        if len(sources):
            layers[v] = layers[sources].max() + 1
    return layers


def arrange(adjacency: Mask) -> Layout:
    """Lay out a graph of `adjacency (v, v)` with edges from lower to higher vertices."""
    layers = longest_paths(adjacency)
    members: list[list[int]] = [[] for _ in range(int(layers.max()) + 1)]
    for v, layer in enumerate(layers):
        members[layer].append(v)
    sizes = [1.0] * len(layers)
    links: list[tuple[int, int]] = []
    chains: list[tuple[int, int, list[int]]] = []
    for source, target in np.argwhere(adjacency).tolist():
        points = []
        for layer in range(layers[source] + 1, layers[target]):
            points.append(len(sizes))
            members[layer].append(len(sizes))
            sizes.append(WAYPOINT)
        chains.append((source, target, points))
        path = [source, *points, target]
        links += pairwise(path)
    heights = _place(members, links, sizes)
    top = min(height - size / 2 for height, size in zip(heights, sizes, strict=True))
    bottom = max(height + size / 2 for height, size in zip(heights, sizes, strict=True))
    centred = np.array(heights) - top
    edges = tuple((a, b, tuple(centred[points].tolist())) for a, b, points in chains)
    return Layout(layers, centred[: len(layers)], edges, bottom - top)


def _place(members: Sequence[list[int]], links: Sequence[tuple[int, int]], sizes: Sequence[float]) -> list[float]:
    """Order each layer by the mean height of its neighbours, sweeping forwards and backwards, and place it there."""
    before: list[list[int]] = [[] for _ in sizes]
    after: list[list[int]] = [[] for _ in sizes]
    for a, b in links:
        before[b].append(a)
        after[a].append(b)
    heights = [0.0] * len(sizes)
    for layer in members:
        _stack(layer, heights, sizes, {})
    for sweep in range(SWEEPS):
        forwards = sweep % 2 == 0
        for layer in members if forwards else list(reversed(members)):
            near = before if forwards else after
            wanted = {v: sum(heights[u] for u in near[v]) / len(near[v]) for v in layer if near[v]}
            layer.sort(key=lambda v: wanted.get(v, heights[v]))
            _stack(layer, heights, sizes, wanted)
    return heights


def _stack(layer: Sequence[int], heights: list[float], sizes: Sequence[float], wanted: dict[int, float]) -> None:
    """Place a layer in its order without overlaps, as near as that allows to where its members want to be."""
    ends: list[float] = []
    place = -np.inf
    for v in layer:
        place = max(place + sizes[v] / 2, wanted.get(v, heights[v]))
        ends.append(place)
        place += sizes[v] / 2
    # Pushing apart only moves down: move the layer back up by what it was moved on average.
    shift = sum(end - wanted.get(v, heights[v]) for v, end in zip(layer, ends, strict=True)) / max(len(layer), 1)
    for v, end in zip(layer, ends, strict=True):
        heights[v] = end - shift
