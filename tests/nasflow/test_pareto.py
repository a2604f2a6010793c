"""Dominance, sorting and hypervolume against brute force and closed forms."""

from itertools import pairwise

import numpy as np
import pytest

from nasflow.pareto import best_first, crowding, hypervolume, hypervolume_history, non_dominated, rank
from searchspaces.errors import ConfigError

INF, NAN = np.inf, np.nan


def dominates(a, b):
    return (a <= b).all() and (a < b).any()


def brute_mask(losses):
    known = losses[np.isfinite(losses).all(axis=1)]
    return np.array([np.isfinite(point).all() and not any(dominates(o, point) for o in known) for point in losses])


def brute_volume(losses, reference):
    """Count the cells of the grid that the coordinates span."""
    k = len(reference)
    points = losses[(losses < reference).all(axis=1)]
    edges = [np.append(np.unique(points[:, d]), reference[d]) for d in range(k)]
    volume = 0.0
    for cell in np.ndindex(*(len(e) - 1 for e in edges)):
        low = np.array([edges[d][i] for d, i in enumerate(cell)])
        high = np.array([edges[d][i + 1] for d, i in enumerate(cell)])
        volume += np.prod(high - low) * (points <= low).all(axis=1).any()
    return volume


def points(seed, n, k, levels):
    """Random points on a coarse grid, so that coordinates tie and points repeat; one in ten has failed."""
    rng = np.random.default_rng(seed)
    losses = rng.integers(0, levels, size=(n, k)).astype(float)
    losses[rng.random(n) < 0.1] = INF
    return losses


@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize("n", [1, 2, 7, 40])
@pytest.mark.parametrize("levels", [2, 6, 1000])
def test_non_dominated_equals_brute_force(k, n, levels):
    for seed in range(5):
        losses = points(seed, n, k, levels)
        assert (non_dominated(losses) == brute_mask(losses)).all()


def test_non_dominated_keeps_copies_and_drops_what_is_not_finite():
    losses = np.array([[0, 1], [0, 1], [1, 0], [1, 1], [-INF, -INF], [NAN, 0], [INF, -5]])
    assert non_dominated(losses).tolist() == [True, True, True, False, False, False, False]
    assert non_dominated(np.zeros((0, 2))).shape == (0,)
    assert non_dominated(np.full((3, 2), INF)).tolist() == [False] * 3


@pytest.mark.parametrize("k", [1, 2, 3])
def test_ranks_of_feasible_points_are_peeled_fronts(k):
    losses = points(k, 60, k, 8)
    ranks = rank(losses, np.zeros(60))
    left, number = np.arange(60), 0
    while np.isfinite(losses[left]).all(axis=1).any():
        front = brute_mask(losses[left])
        assert (ranks[left[front]] == number).all()
        left, number = left[~front], number + 1
    assert (ranks[left] == number).all()


def test_ranks_follow_constrained_domination():
    losses = np.array([[3.0, 3], [1, 2], [0, 0], [0, 0], [INF, INF], [INF, INF], [INF, INF], [2, 1]])
    violation = np.array([0, 0, 0.5, 0.2, 0.2, INF, 0, 0])
    assert rank(losses, violation).tolist() == [1, 0, 3, 2, 2, 4, 4, 0]


@pytest.mark.parametrize("k", [1, 2, 3])
def test_no_point_ranks_behind_one_that_it_constrain_dominates(k):
    rng = np.random.default_rng(k)
    losses = points(k, 40, k, 5)
    violation = np.where(rng.random(40) < 0.5, rng.integers(1, 4, 40), 0.0)
    ranks = rank(losses, violation)
    for i in range(40):
        for j in range(40):
            finite = np.isfinite(losses[[i, j]]).all()
            if (violation[i] < violation[j] and np.isfinite(losses[i]).all()) or (
                violation[i] == violation[j] == 0 and finite and dominates(losses[i], losses[j])
            ):
                assert ranks[i] < ranks[j]


def test_ranks_of_nothing():
    assert rank(np.zeros((0, 2)), np.zeros(0)).shape == (0,)
    assert best_first(np.zeros((0, 2)), np.zeros(0)).shape == (0,)


def test_crowding_of_a_line():
    losses = np.array([[0.0, 10], [1, 6], [4, 5], [10, 0]])
    assert crowding(losses).tolist() == pytest.approx([INF, 0.4 + 0.5, 0.9 + 0.6, INF])


def test_crowding_counts_copies_once():
    line = np.array([[0.0, 10], [1, 6], [4, 5], [10, 0]])
    losses = np.concatenate([line[[1]], line, [[INF, INF]], line[[0]]])
    assert crowding(losses).tolist() == pytest.approx([0.9, INF, 0, 1.5, INF, 0, 0])


def test_crowding_ignores_an_objective_that_is_the_same_everywhere():
    losses = np.array([[0.0, 3], [1, 3], [4, 3], [10, 3]])
    assert crowding(losses)[1:3].tolist() == pytest.approx([0.4, 0.9])


def test_best_first_puts_the_ends_of_a_front_of_three_first():
    assert best_first(np.array([[1.0, 1], [2, 0], [0, 2]]), np.zeros(3)).tolist() == [1, 2, 0]


def test_best_first_orders_by_rank_then_crowding_then_place():
    losses = np.array([[9.0, 9], [1, 6], [4, 5], [0, 10], [10, 0], [1, 6], [INF, INF]])
    order = best_first(losses, np.array([0, 0, 0, 0, 0, 0, INF]))
    assert order.tolist() == [3, 4, 2, 1, 5, 0, 6]
    ranks = rank(losses, np.zeros(7))[order]
    assert all(a <= b for a, b in pairwise(ranks))


@pytest.mark.parametrize(("k", "n"), [(1, 12), (2, 15), (3, 9), (4, 6)])
@pytest.mark.parametrize("levels", [3, 1000])
def test_hypervolume_equals_a_count_of_cells(k, n, levels):
    for seed in range(6):
        losses = points(seed, n, k, levels)
        reference = np.full(k, 0.9 * levels)
        assert hypervolume(losses, reference) == pytest.approx(brute_volume(losses, reference), rel=1e-12)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_hypervolume_of_a_staircase(k):
    """m points on the plane sum(x) = m - 1 of the integer grid dominate all cells on and above it."""
    m = 6
    grid = np.array(list(np.ndindex(*[m] * k)), dtype=float)
    front = grid[grid.sum(axis=1) == m - 1]
    cells = (grid.sum(axis=1) >= m - 1).sum()
    assert hypervolume(front, np.full(k, float(m))) == pytest.approx(cells)


def test_hypervolume_of_a_curve_converges():
    x = np.linspace(0, 1, 20001)
    assert hypervolume(np.stack([x, 1 - np.sqrt(x)], axis=1), (1.0, 1.0)) == pytest.approx(2 / 3, abs=1e-4)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_hypervolume_does_not_depend_on_order_copies_or_dominated_points(k):
    rng = np.random.default_rng(k)
    losses = rng.random((30, k))
    reference = np.ones(k)
    volume = hypervolume(losses, reference)
    assert hypervolume(losses[::-1], reference) == pytest.approx(volume)
    assert hypervolume(losses[non_dominated(losses)], reference) == pytest.approx(volume)
    more = np.concatenate([losses, losses, losses + 0.1, np.full((1, k), INF), np.full((1, k), NAN), -losses + INF])
    assert hypervolume(more, reference) == pytest.approx(volume)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_history_ends_in_the_hypervolume_at_each_step(k):
    losses = points(k, 25, k, 7)
    reference = np.full(k, 6.0)
    history = hypervolume_history(losses, reference)
    assert history == pytest.approx([hypervolume(losses[: i + 1], reference) for i in range(25)])
    assert (np.diff(history) >= 0).all()
    assert hypervolume_history(losses[:0], reference).shape == (0,)


def test_points_on_or_beyond_the_reference_add_nothing():
    assert hypervolume(np.array([[1.0, 0], [0, 2], [INF, 0], [-INF, 0]]), (1.0, 1.0)) == 0


@pytest.mark.parametrize("reference", [(1.0,), (1.0, 2.0, 3.0), (1.0, INF), (NAN, 1.0)])
def test_a_wrong_reference_is_refused(reference):
    with pytest.raises(ConfigError, match="one finite number per objective"):
        hypervolume(np.zeros((3, 2)), reference)
    with pytest.raises(ConfigError, match="one finite number per objective"):
        hypervolume_history(np.zeros((3, 2)), reference)
