"""Every space of `conf/space` goes through the contract, at small and at published scale."""

from functools import lru_cache

import numpy as np
import pytest

from nasflow.config import composed, composer, instantiate
from nasflow.testing import SpaceContract
from searchspaces.space import SearchSpace
from searchspaces.task import Task
from tests.registry import leaves

SPACES = leaves("space")


@lru_cache
def build(name: str, scale: str) -> SearchSpace:
    space = instantiate(composed("search", [f"space={name}", f"space.scale={scale}"]).space)
    assert isinstance(space, SearchSpace)
    return space


@pytest.mark.parametrize("name", SPACES)
class TestFullScale(SpaceContract):
    built = 2

    @pytest.fixture
    def space(self, name: str) -> SearchSpace:
        return build(name, "full")


@pytest.mark.parametrize("name", SPACES)
class TestSmallScale(SpaceContract):
    built = 8

    @pytest.fixture
    def space(self, name: str) -> SearchSpace:
        return build(name, "small")

    @pytest.fixture
    def task(self) -> Task:
        return Task("digits", (1, 8, 8), 10)


def test_all_four_spaces_are_there() -> None:
    with composer():
        assert {"nb101", "nb201", "fbnet", "mobilenet"} <= set(SPACES)


@pytest.mark.parametrize("name", SPACES)
def test_scale_is_part_of_the_fingerprint_but_not_of_the_genes(name: str) -> None:
    full, small = build(name, "full"), build(name, "small")
    assert full.fingerprint != small.fingerprint
    assert full.genes == small.genes


@pytest.mark.parametrize("edits", [2, 3])
@pytest.mark.parametrize("name", SPACES)
def test_mutation_changes_several_genes_at_once(name: str, edits: int) -> None:
    space = build(name, "small")
    rows = space.sample(500, np.random.default_rng(0))
    mutated = space.mutate(rows, np.random.default_rng(1), edits)
    changed = mutated != rows
    assert space.is_valid(mutated).all()
    assert space.active(rows)[changed].all()
    expected = np.minimum(edits, space.active(rows).sum(axis=1))
    # A cell with one way from input to output can have no other valid change.
    assert np.mean(changed.sum(axis=1) == expected) > 0.99
    assert not (changed.sum(axis=1) > expected).any()
