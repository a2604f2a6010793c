"""The contract of search spaces, as tests to inherit.

Example:
    >>> class TestMySpace(SpaceContract):
    ...     @pytest.fixture
    ...     def space(self):
    ...         return MySpace()
"""

import numpy as np
import pytest

from nasflow.testing.networks import calibrated_weights, counted, outputs
from searchspaces.arch import ArchBatch
from searchspaces.errors import ArchitectureError
from searchspaces.genes import Rows
from searchspaces.space import SearchSpace
from searchspaces.task import Task


class SpaceContract:
    """What every search space must fulfil; a subclass gives the fixture `space`.

    Attributes:
        samples: Random architectures for the checks on rows.
        built: Random architectures for the checks that build networks.
    """

    samples = 200
    built = 4

    @pytest.fixture
    def space(self) -> SearchSpace:
        """The space under test."""
        raise NotImplementedError("A subclass of SpaceContract gives the fixture `space`.")

    @pytest.fixture
    def task(self) -> Task:
        """The task that networks are built for."""
        return Task("contract", (3, 32, 32), 10)

    @pytest.fixture
    def rows(self, space: SearchSpace) -> Rows:
        """Random rows, shape `(samples, genes)`."""
        return space.sample(self.samples, np.random.default_rng(0))

    def test_is_named_and_its_genes_are_distinct(self, space: SearchSpace) -> None:
        """A space has a name, genes, and no two genes of one name."""
        assert space.name
        names = [gene.name for gene in space.genes]
        assert names
        assert len(set(names)) == len(names)

    def test_samples_are_valid_and_repeat_with_the_seed(self, space: SearchSpace, rows: Rows) -> None:
        """Samples are valid rows, vary, and follow from the generator alone."""
        assert rows.shape == (self.samples, len(space.genes))
        assert space.is_valid(rows).all()
        assert (space.check(rows) == rows).all()
        assert len(np.unique(rows, axis=0)) > 1
        assert (space.sample(self.samples, np.random.default_rng(0)) == rows).all()

    def test_canonical_rows_are_valid_and_their_own_representatives(self, space: SearchSpace, rows: Rows) -> None:
        """Canonicalising twice is canonicalising once, and nothing is changed in place."""
        before = rows.copy()
        canonical = space.canonical(rows)
        assert (rows == before).all()
        assert space.is_valid(canonical).all()
        assert (space.canonical(canonical) == canonical).all()
        assert space.keys(rows) == space.keys(canonical)

    def test_batches_agree_with_single_rows(self, space: SearchSpace, rows: Rows) -> None:
        """Working on a batch gives what working row by row gives."""
        few = rows[:10]
        assert (space.canonical(few) == np.concatenate([space.canonical(row[None]) for row in few])).all()
        assert (space.active(few) == np.concatenate([space.active(row[None]) for row in few])).all()

    def test_inactive_genes_do_not_matter(self, space: SearchSpace, rows: Rows) -> None:
        """Changing an inactive gene leaves the canonical class as it is."""
        active, rng = space.active(rows), np.random.default_rng(1)
        for gene in range(rows.shape[1]):
            changed = rows.copy()
            idle = ~active[:, gene]
            changed[idle, gene] = rng.integers(0, space.sizes[gene], idle.sum())
            valid = space.is_valid(changed)
            assert (space.canonical(changed[valid]) == space.canonical(rows[valid])).all()

    def test_mutation_changes_active_genes_only(self, space: SearchSpace, rows: Rows) -> None:
        """A mutation gives a valid row that differs in one active gene."""
        mutated = space.mutate(rows, np.random.default_rng(2))
        assert space.is_valid(mutated).all()
        changed = mutated != rows
        assert (changed.sum(axis=1) <= 1).all()
        assert changed.any(axis=1).mean() > 0.9
        assert (changed <= space.active(rows)).all()

    def test_neighbors_differ_in_one_gene(self, space: SearchSpace, rows: Rows) -> None:
        """Neighbours are valid, distinct and one edit away."""
        neighbors = space.neighbors(rows[0])
        assert len(neighbors) > 0
        assert space.is_valid(neighbors).all()
        assert ((neighbors != rows[0]).sum(axis=1) == 1).all()
        assert len(np.unique(neighbors, axis=0)) == len(neighbors)

    def test_crossover_is_valid(self, space: SearchSpace, rows: Rows) -> None:
        """Children are valid and of the parents' shape."""
        children = space.crossover(rows, rows[::-1], np.random.default_rng(3))
        assert children.shape == rows.shape
        assert space.is_valid(children).all()

    def test_text_round_trip(self, space: SearchSpace, rows: Rows) -> None:
        """What `format` writes, `parse` reads as an architecture of the same class."""
        parsed = space.parse(space.format(rows))
        assert (space.canonical(parsed) == space.canonical(rows)).all()
        assert space.format(parsed) == space.format(space.parse(space.format(parsed)))

    def test_foreign_text_is_refused(self, space: SearchSpace) -> None:
        """A text that is no architecture raises an error that is not empty."""
        with pytest.raises(ArchitectureError, match=r"\w+ \w+"):
            space.parse(["definitely not an architecture"])

    def test_wrong_rows_are_refused(self, space: SearchSpace, rows: Rows) -> None:
        """Rows of another width or with unknown choices raise."""
        with pytest.raises(ArchitectureError):
            ArchBatch(space, rows[:, :-1])
        with pytest.raises(ArchitectureError):
            ArchBatch(space, np.where(rows == rows, space.sizes, rows))

    def test_torch_and_onnx_agree(self, space: SearchSpace, task: Task, rows: Rows) -> None:
        """Both lowerings compute the same, within 1e-4, from the same weights."""
        for row in rows[: self.built]:
            network = space.network(row, task)
            by_torch, by_onnx = outputs(network, calibrated_weights(network))
            assert by_torch.shape == (1, task.classes)
            np.testing.assert_allclose(by_onnx, by_torch, atol=1e-4, rtol=1e-4)

    def test_costs_are_those_of_the_built_module(self, space: SearchSpace, task: Task, rows: Rows) -> None:
        """Parameters and multiply-accumulates equal what the module has and does."""
        for row in rows[: self.built]:
            network = space.network(row, task)
            assert counted(network) == (network.params, network.macs)

    def test_graphs_are_labelled_and_acyclic(self, space: SearchSpace, rows: Rows) -> None:
        """Edges lead forward, ids name operations, and unused vertices have no edges."""
        few = rows[: self.built]
        adjacency, ops = space.graph(few)
        assert adjacency.shape == (len(few), ops.shape[1], ops.shape[1])
        assert not np.tril(adjacency).any()
        assert ops.min() >= -1
        assert ops.max() < len(space.ops)
        unused = ops == -1
        assert not adjacency[unused].any()
        assert not adjacency.transpose(0, 2, 1)[unused].any()
        assert [space.ops[i].kind for i in (0, 1)] == ["input", "output"]
        assert ((ops == 0).sum(axis=1) == 1).all()
        assert ((ops == 1).sum(axis=1) == 1).all()

    def test_fingerprint_names_the_space(self, space: SearchSpace) -> None:
        """Equal spaces have equal fingerprints that begin with the name."""
        assert space.fingerprint.startswith(space.name)
