"""Pareto dominance, non-dominated sorting and hypervolume.

All functions take `losses (n, k)`, values to minimise. A row that holds anything but finite numbers stands for a
trial without a result: it dominates nothing and adds no volume.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from searchspaces.errors import ConfigError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


def non_dominated(losses: Floats) -> Mask:
    """Tell which points no other point dominates.

    A point dominates another when it is nowhere worse and somewhere better, so copies of a non-dominated point are
    all non-dominated.

    Args:
        losses: Values to minimise, shape `(n, k)`.

    Returns:
        Mask of shape `(n,)`; false for points that are not finite.
    """
    mask = np.zeros(len(losses), dtype=np.bool_)
    known = np.flatnonzero(np.isfinite(losses).all(axis=1))
    if len(known):
        order, group = _distinct(losses[known])
        mask[known] = _front(losses[known][order])[group]
    return mask


def rank(losses: Floats, violation: Floats) -> Ints:
    """Sort by constrained domination (NSGA-II, doi 10.1109/4235.996017).

    Feasible points come in non-dominated fronts, numbered from 0. Infeasible points, also those without finite
    losses, follow by increasing violation, equal violations sharing a rank. Points without any result (infinite
    violation, or feasible but not finite) share the last rank.

    Args:
        losses: Values to minimise, shape `(n, k)`.
        violation: By how much bounds are missed, shape `(n,)`; 0 is feasible.

    Returns:
        Ranks from 0, without gaps, shape `(n,)`.
    """
    finite = np.isfinite(losses).all(axis=1)
    feasible = finite & (violation <= 0)
    infeasible = (violation > 0) & (violation < np.inf)
    ranks = np.full(len(losses), -1, dtype=np.int64)
    ranks[feasible] = _fronts(losses[feasible])
    ranks[infeasible] = ranks.max(initial=-1) + 1 + np.unique(violation[infeasible], return_inverse=True)[1]
    ranks[~feasible & ~infeasible] = ranks.max(initial=-1) + 1
    return ranks


def crowding(losses: Floats) -> Floats:
    """Return the crowding distance of each point of one front (NSGA-II, doi 10.1109/4235.996017).

    Args:
        losses: Values to minimise, shape `(n, k)`.

    Returns:
        Distances of shape `(n,)`: infinite at the ends of each objective; 0 for the second and further copies of a
        point, so that copies go first, and for points that are not finite.
    """
    distance = np.zeros(len(losses))
    known = np.flatnonzero(np.isfinite(losses).all(axis=1))
    if len(known) == 0:
        return distance
    order, _ = _distinct(losses[known])
    points = losses[known][order]
    total = np.zeros(len(points))
    for values in points.T:
        by_value = np.argsort(values, kind="stable")
        extent = values[by_value[-1]] - values[by_value[0]]
        if extent > 0:
            total[by_value[1:-1]] += (values[by_value[2:]] - values[by_value[:-2]]) / extent
        total[by_value[[0, -1]]] = np.inf
    distance[known[order]] = total
    return distance


def best_first(losses: Floats, violation: Floats) -> Ints:
    """Return the positions of all points, best first: by rank, then by decreasing crowding distance in the rank.

    Args:
        losses: Values to minimise, shape `(n, k)`.
        violation: By how much bounds are missed, shape `(n,)`.

    Returns:
        A permutation of shape `(n,)`; equal points keep their order.
    """
    ranks = rank(losses, violation)
    distance = np.zeros(len(losses))
    for front in np.flatnonzero(np.bincount(ranks) > 2):  # one or two points keep their order either way
        inside = ranks == front
        distance[inside] = crowding(losses[inside])
    return np.lexsort((-distance, ranks))


def hypervolume(losses: Floats, reference: Sequence[float] | Floats) -> float:
    """Return the volume that the points dominate within the box below a reference point, exactly.

    A sweep in two dimensions; above, slices along the last objective, so the cost grows as `n^(k-1)`.

    Args:
        losses: Values to minimise, shape `(n, k)`.
        reference: Upper corner of the box, shape `(k,)`; points that do not lie strictly below it add nothing.

    Raises:
        ConfigError: If the reference has another number of objectives or is not finite.
    """
    corner = _corner(losses, reference)
    return _volume(losses[_inside(losses, corner)], corner)


def hypervolume_history(losses: Floats, reference: Sequence[float] | Floats) -> Floats:
    """Return the hypervolume of the first 1, 2, …, n points.

    Args:
        losses: Values to minimise, in the order of the trials, shape `(n, k)`.
        reference: Upper corner of the box, shape `(k,)`.

    Returns:
        A non-decreasing series of shape `(n,)`.

    Raises:
        ConfigError: If the reference has another number of objectives or is not finite.
    """
    corner = _corner(losses, reference)
    gains = np.zeros(len(losses))
    front = np.zeros((0, len(corner)))
    for i in np.flatnonzero(_inside(losses, corner)):
        point = losses[i]
        if (front <= point).all(axis=1).any():
            continue
        # What the point adds is its own box less what the front already covers of it.
        covered = _volume(np.maximum(front, point), corner)
        gains[i] = max(float(np.prod(corner - point)) - covered, 0.0)
        front = np.concatenate([front[(front < point).any(axis=1)], point[None]])
    return np.cumsum(gains)


def _distinct(points: Floats) -> tuple[Ints, Ints]:
    """Positions of the first copy of each distinct point, in lexicographic order, and each point's group."""
    order = np.lexsort(points.T[::-1])
    ordered = points[order]
    new = np.ones(len(points), dtype=np.bool_)
    new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    group = np.empty(len(points), dtype=np.int64)
    group[order] = np.cumsum(new) - 1
    return order[new], group


def _front(points: Floats) -> Mask:
    """Non-dominated ones among distinct points in lexicographic order, where none dominates an earlier one."""
    mask = np.zeros(len(points), dtype=np.bool_)
    if points.shape[1] == 1:
        mask[:1] = True
        return mask
    if points.shape[1] == 2:
        mask[0] = True
        mask[1:] = points[1:, 1] < np.minimum.accumulate(points[:-1, 1])
        return mask
    left = np.arange(len(points))
    while len(left):
        mask[left[0]] = True
        left = left[1:][(points[left[1:]] < points[left[0]]).any(axis=1)]
    return mask


def _fronts(points: Floats) -> Ints:
    """Number of the front of each finite point."""
    ranks = np.zeros(len(points), dtype=np.int64)
    if points.shape[1] == 1:
        return np.asarray(np.unique(points[:, 0], return_inverse=True)[1], dtype=np.int64)
    order, group = _distinct(points) if len(points) else (ranks, ranks)
    left, number = np.arange(len(order)), 0
    of_distinct = np.zeros(len(order), dtype=np.int64)
    while len(left):
        front = _front(points[order[left]])
        of_distinct[left[front]] = number
        left, number = left[~front], number + 1
    return of_distinct[group]


def _corner(losses: Floats, reference: Sequence[float] | Floats) -> Floats:
    corner = np.asarray(reference, dtype=np.float64)
    if corner.shape != (losses.shape[1],) or not np.isfinite(corner).all():
        raise ConfigError(
            "The reference point of a hypervolume is one finite number per objective, but there are "
            f"{losses.shape[1]} objectives and the reference is {np.asarray(reference).tolist()}."
        )
    return corner


def _inside(losses: Floats, corner: Floats) -> Mask:
    return np.asarray((np.isfinite(losses) & (losses < corner)).all(axis=1))


def _volume(points: Floats, corner: Floats) -> float:
    """Hypervolume of points of which none exceeds the corner."""
    if len(points) == 0:
        return 0.0
    if len(corner) == 1:
        return float(corner[0] - points.min())
    if len(corner) == 2:
        x, y = points[np.argsort(points[:, 0])].T
        widths = np.diff(x, append=corner[0])
        return float(widths @ (corner[1] - np.minimum.accumulate(y)))
    points = points[non_dominated(points)]
    points = points[np.argsort(points[:, -1], kind="stable")]
    depths = np.diff(points[:, -1], append=corner[-1])
    return float(sum(depths[i] * _volume(points[: i + 1, :-1], corner[:-1]) for i in np.flatnonzero(depths > 0)))
