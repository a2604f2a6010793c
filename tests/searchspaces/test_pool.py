import csv
import gzip
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chisquare, mannwhitneyu

import searchspaces.pool
from nasflow.strategies import Deduplicate, RegularizedEvolution
from nasflow.testing import SpaceContract
from nasflow.testing.strategies import search
from searchspaces.arch import ArchBatch
from searchspaces.errors import ArchitectureError
from searchspaces.genes import Rows
from searchspaces.nb101 import NB101
from searchspaces.nb201 import NB201
from searchspaces.pool import Pool, RowIndex
from searchspaces.space import SearchSpace
from searchspaces.task import Task
from tests.registry import leaves
from tests.searchspaces.test_contract import build

ALL = np.arange(15625)


@lru_cache
def pool_of(name: str) -> Pool:
    base = build(name, "small")
    return Pool(base, np.unique(base.sample(400, np.random.default_rng(5)), axis=0))


@pytest.fixture
def base() -> NB201:
    return NB201(scale="small")


@pytest.fixture
def pool(base: NB201) -> Pool:
    return Pool(base, base.from_index(np.random.default_rng(0).choice(ALL, 700, replace=False)))


def distances(pool: Pool, row: NDArray[np.int64]) -> NDArray[np.int64]:
    """Genes in which each row of the pool differs from `row`, -1 for those of its class, one by one."""
    own = pool.base.keys(row[None])[0]
    keys = pool.base.keys(pool.rows)
    return np.array(
        [-1 if key == own else sum(a != b for a, b in zip(row, member, strict=True))
         for member, key in zip(pool.rows, keys, strict=True)]
    )


# -- contract -------------------------------------------------------------------------------------------------------


class TestPoolOfAllRows(SpaceContract):
    """Without a limit a pool moves as its base does."""

    built = 2

    @pytest.fixture
    def space(self) -> SearchSpace:
        base = NB201(scale="small")
        return Pool(base, base.from_index(ALL))

    def test_neighbors_are_those_of_the_base(self, space: Pool, rows: Rows) -> None:
        for row in rows[:20]:
            expected = space.base.neighbors(row)
            other = [key != space.keys(row[None])[0] for key in space.keys(expected)]
            np.testing.assert_array_equal(np.unique(space.neighbors(row), axis=0), np.unique(expected[other], axis=0))


@pytest.mark.parametrize("name", leaves("space"))
class TestPartialPool(SpaceContract):
    """Where a search may not go everywhere, a move changes as many genes as it has to."""

    built = 1

    @pytest.fixture
    def space(self, name: str) -> SearchSpace:
        return pool_of(name)

    @pytest.fixture
    def task(self) -> Task:
        return Task("digits", (1, 8, 8), 10)

    def test_mutation_changes_active_genes_only(self, space: Pool, rows: Rows) -> None:
        few = rows[:10]
        mutated = space.mutate(few, np.random.default_rng(2))
        assert space.is_valid(mutated).all()
        for row, changed in zip(few, mutated, strict=True):
            to = distances(space, row)
            assert (row != changed).sum() == to[to > 0].min()
            assert space.keys(row[None]) != space.keys(changed[None])

    def test_neighbors_differ_in_one_gene(self, space: Pool, rows: Rows) -> None:
        for row in rows[:5]:
            to = distances(space, row)
            np.testing.assert_array_equal(space.neighbors(row), space.rows[to == to[to > 0].min()])


# -- identity -------------------------------------------------------------------------------------------------------


def test_is_the_base_to_whatever_compares_spaces(pool: Pool, base: NB201) -> None:
    assert (pool.name, pool.genes, pool.scale, pool.ops) == (base.name, base.genes, base.scale, base.ops)
    assert pool.fingerprint == base.fingerprint == NB201(scale="small").fingerprint
    assert pool.keys(pool.rows) == base.keys(pool.rows)
    assert pool.base is base
    both = ArchBatch.concatenate([ArchBatch(base, base.from_index([0])), ArchBatch(pool, pool.rows[:2])])
    assert len(both) == 3


def test_a_pool_of_a_pool_has_the_same_base(pool: Pool, base: NB201) -> None:
    smaller = Pool(pool, pool.rows[100:200])
    assert smaller.base is base
    assert len(smaller) == 100
    with pytest.raises(ArchitectureError, match="outside the pool of 100"):
        Pool(smaller, pool.rows[:200])


def test_rows_are_kept_in_order_and_cannot_be_changed(base: NB201) -> None:
    rows = base.from_index([7, 3, 5000])
    pool = Pool(base, rows)
    rows[:] = 0
    np.testing.assert_array_equal(base.index(pool.rows), [7, 3, 5000])
    with pytest.raises(ValueError, match="read-only"):
        pool.rows[0] = 0


def test_repeated_rows_single_classes_and_foreign_rows_are_refused(base: NB201) -> None:
    with pytest.raises(ArchitectureError, match="2 stand twice"):
        Pool(base, base.from_index([1, 2, 2, 1]))
    everything = base.from_index(ALL)
    one_class = everything[(base.canonical(everything) == 0).all(axis=1)]
    assert len(one_class) > 100
    for rows in (one_class, one_class[:1], one_class[:0]):
        with pytest.raises(ArchitectureError, match="at least two canonical classes"):
            Pool(base, rows)
    with pytest.raises(ArchitectureError, match="choices 0 to 4"):
        Pool(base, [[9] * 6, [0] * 6])


# -- rows -----------------------------------------------------------------------------------------------------------


def test_valid_is_what_was_given(pool: Pool, base: NB201) -> None:
    inside = {row.tobytes() for row in pool.rows}
    rows = base.from_index(ALL)
    np.testing.assert_array_equal(pool.is_valid(rows), [row.tobytes() in inside for row in rows])
    outside = rows[~pool.is_valid(rows)]
    with pytest.raises(ArchitectureError, match=r"1 of 2 architectures are outside the pool of 700 .* first is \|"):
        ArchBatch(pool, np.stack([pool.rows[0], outside[0]]))


def test_canonical_is_the_first_row_of_the_class_in_the_pool(pool: Pool, base: NB201) -> None:
    first: dict[bytes, NDArray[np.int64]] = {}
    for row, key in zip(pool.rows, base.keys(pool.rows), strict=True):
        first.setdefault(key, row)
    assert len(first) < len(pool), "no class has two rows, so nothing is tested"
    rows = base.from_index(ALL)
    own = base.canonical(rows)
    expected = [first.get(key, row) for key, row in zip(base.keys(rows), own, strict=True)]
    np.testing.assert_array_equal(pool.canonical(rows), expected)
    listed = pool.enumerate_classes()
    np.testing.assert_array_equal(listed, np.unique(list(first.values()), axis=0))


def test_row_index_gives_first_places(base: NB201) -> None:
    index = RowIndex(base.from_index([4, 9, 4, 2]))
    assert index.repeated == 1
    assert index.positions(base.from_index([2, 4, 9, 5])).tolist() == [3, 0, 1, -1]
    assert index.positions(base.from_index([2])[:0]).tolist() == []
    empty = RowIndex(np.zeros((0, 6), dtype=np.int64))
    assert empty.positions(base.from_index([2])).tolist() == [-1]


# -- moving about ---------------------------------------------------------------------------------------------------


def test_samples_are_uniform_over_rows(base: NB201) -> None:
    pool = Pool(base, base.from_index(np.arange(40)))
    found = base.index(pool.sample(8000, np.random.default_rng(1)))
    assert chisquare(np.bincount(found, minlength=40)).pvalue > 0.001


@pytest.mark.parametrize("edits", [1, 2, 3, 5])
def test_mutants_are_drawn_uniformly_from_the_nearest_that_are_far_enough(pool: Pool, edits: int) -> None:
    rng = np.random.default_rng(2)
    outside = pool.base.sample(5, rng)
    for row in np.concatenate([pool.rows[:5], outside]):
        to = distances(pool, row)
        wanted = np.flatnonzero(to == to[to >= edits].min())
        mutants = pool.mutate(np.repeat(row[None], 30 * len(wanted), axis=0), rng, edits)
        places = RowIndex(pool.rows[wanted]).positions(mutants)
        assert places.min() >= 0
        assert chisquare(np.bincount(places, minlength=len(wanted))).pvalue > 1e-5 or len(wanted) == 1


def test_without_edits_rows_stay_and_with_too_many_the_farthest_are_drawn(base: NB201) -> None:
    pool = Pool(base, [[3] * 6, [3, 3, 3, 3, 3, 2], [3, 3, 3, 3, 2, 2], [3, 3, 3, 3, 2, 3]])
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(pool.mutate(pool.rows, rng, 0), pool.rows)
    np.testing.assert_array_equal(pool.mutate(pool.rows, rng, 4), pool.rows[[2, 3, 0, 1]])
    assert pool.mutate(pool.rows[:0], rng).shape == (0, 6)


def test_what_is_drawn_does_not_depend_on_how_much_fits_into_memory(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = pool.sample(60, np.random.default_rng(3))
    at_once = pool.mutate(rows, np.random.default_rng(4), 2)
    monkeypatch.setattr(searchspaces.pool, "_ENTRIES", 7 * len(pool) + 1)
    np.testing.assert_array_equal(pool.mutate(rows, np.random.default_rng(4), 2), at_once)


def test_children_are_the_nearest_to_those_of_the_base(pool: Pool) -> None:
    first, second = pool.rows[:50], pool.rows[50:100]
    children = pool.crossover(first, second, np.random.default_rng(6))
    assert pool.is_valid(children).all()
    of_base = pool.base.crossover(first, second, np.random.default_rng(6))
    for child, wanted in zip(children, of_base, strict=True):
        assert (child != wanted).sum() == (pool.rows != wanted).sum(axis=1).min()
    np.testing.assert_array_equal(pool.nearest(pool.rows, np.random.default_rng(0)), pool.rows)


# -- a published partial table --------------------------------------------------------------------------------------


@lru_cache
def published(folder: Path) -> tuple[Pool, NDArray[np.float64]]:
    """20,000 cells of NAS-Bench-101 and their validation accuracy after 108 epochs."""
    with gzip.open(folder / "nb101" / "cifar10_accuracy_20k.csv.gz", "rt") as file:
        records = list(csv.DictReader(file))
    space = NB101()
    bits, sizes = [int(record["edge_bits"]) for record in records], [int(record["V"]) for record in records]
    rows = space.from_table(bits, sizes, [record["ops"] for record in records])
    return Pool(space, rows), np.array([float(record["val108"]) for record in records])


@pytest.mark.data
def test_half_of_a_published_sample_has_no_neighbour_at_one_edit(data_dir: Path) -> None:
    pool, _ = published(data_dir)
    rows = pool.rows[::10]
    moved = (pool.mutate(rows, np.random.default_rng(0)) != rows).sum(axis=1)
    assert (moved > 1).mean() == pytest.approx(0.528, abs=0.03)  # of all 20,000
    assert moved.max() <= 4


@pytest.mark.data
def test_evolution_beats_random_search_on_a_published_sample(data_dir: Path) -> None:
    pool, accuracy = published(data_dir)
    index = RowIndex(pool.rows)

    def error(rows: Rows) -> NDArray[np.float64]:
        return 1 - accuracy[index.positions(rows)]

    budget, seeds = 120, 8
    strategies = [Deduplicate(RegularizedEvolution(population=20, tournament=5)) for _ in range(seeds)]
    found = [search(strategy, pool, [error], budget, seed).losses.min() for seed, strategy in enumerate(strategies)]
    drawn = [error(pool.sample(budget, np.random.default_rng([1, seed]))).min() for seed in range(100)]
    assert mannwhitneyu(found, drawn, alternative="less").pvalue < 0.05
