"""Batches, the loss of pairs, and what all networks over graphs promise."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from predictors.training import Recipe, fast_products, hinge_loss, minibatches
from searchspaces.errors import ConfigError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def hinge(scores: list[float], y: list[float], most: int = 1000, seed: int = 0) -> float:
    return hinge_loss(torch.tensor(scores), torch.tensor(y), 0.1, most, generator(seed)).item()


def test_pairs_in_order_by_the_margin_cost_nothing() -> None:
    assert hinge([0.0, 0.2, 0.5], [1.0, 2.0, 3.0]) == 0
    assert_allclose(hinge([0.2, 0.0, 0.5], [1.0, 2.0, 3.0]), 0.3 / 3, rtol=1e-6)
    assert_allclose(hinge([0.0, 0.05], [1.0, 2.0]), 0.05, rtol=1e-6)


def test_pairs_of_equal_figures_are_dropped() -> None:
    assert_allclose(hinge([9.0, 0.0, 0.0], [1.0, 1.0, 2.0]), (9.1 + 0.1) / 2, rtol=1e-6)
    assert hinge([5.0, 0.0], [1.0, 1.0]) == 0


def test_no_more_pairs_than_asked_for_are_taken() -> None:
    rng = np.random.default_rng(0)
    scores, y = rng.normal(size=12).tolist(), np.arange(12.0).tolist()
    one_pair = {round(hinge(scores, y, most=1, seed=seed), 5) for seed in range(200)}
    each = {round(max(0.0, 0.1 + scores[a] - scores[b]), 5) for b in range(12) for a in range(b)}
    assert one_pair <= each
    assert len(one_pair) > 10


def test_a_batch_is_of_one_set_and_each_sample_comes_once_an_epoch() -> None:
    sizes = [21, 5, 40]
    seen: list[list[int]] = [[], [], []]
    order = []
    for which, places in minibatches(sizes, 8, generator()):
        assert 2 <= len(places) <= 8
        seen[which] += places.tolist()
        order.append(which)
    assert [sorted(one) for one in seen] == [list(range(size)) for size in sizes]
    assert sum(a != b for a, b in pairwise(order)) > 2  # sets take turns


@pytest.mark.parametrize(("size", "batch", "sizes"), [(2, 2, {2}), (3, 2, {3}), (9, 8, {4, 5}), (5, 100, {5})])
def test_no_batch_is_too_small_for_a_pair(size: int, batch: int, sizes: set[int]) -> None:
    assert {len(places) for _, places in minibatches([size], batch, generator())} == sizes


@pytest.mark.parametrize(("epochs", "batch"), [(0, 8), (10, 1)])
def test_training_without_steps_or_pairs_is_refused(epochs: int, batch: int) -> None:
    with pytest.raises(ConfigError, match="at least 1 epoch and batches of at least 2"):
        Recipe(epochs, batch, 1e-3, 0.0)


def test_products_are_fast_in_training_alone() -> None:
    before = torch.get_float32_matmul_precision()
    with fast_products():
        assert torch.get_float32_matmul_precision() == "medium"
    with pytest.raises(ZeroDivisionError), fast_products():
        raise ZeroDivisionError
    assert torch.get_float32_matmul_precision() == before


def test_precisions_that_were_set_for_a_backend_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    def mixed() -> str:
        raise RuntimeError("mix of the legacy and new APIs")

    monkeypatch.setattr(torch, "get_float32_matmul_precision", mixed)
    monkeypatch.setattr(torch, "set_float32_matmul_precision", pytest.fail)
    with fast_products():
        pass
