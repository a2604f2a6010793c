"""Genes, gene spaces, batches of architectures and joint spaces, on a toy space with every complication."""

from itertools import product
from typing import Any, ClassVar

import numpy as np
import pytest
from scipy.stats import chisquare

from searchspaces import genes
from searchspaces.arch import ArchBatch
from searchspaces.errors import ArchitectureError, ConfigError, NasflowError
from searchspaces.genes import Gene, GeneSpace, JointSpace, Mask, Rows, choice_index
from searchspaces.network import INPUT, Network, NetworkBuilder
from searchspaces.space import SearchSpace
from searchspaces.task import Task


class Toy(GeneSpace):
    """A chain of 1 to 3 layers: kernels beyond the depth do not matter, and deep wide chains are not allowed."""

    name = "toy"
    genes = (
        Gene("width", (8, 16, 32), ordered=True),
        Gene("depth", (1, 2, 3), ordered=True),
        Gene("kernel0", ("a", "b")),
        Gene("kernel1", ("a", "b", "c")),
        Gene("kernel2", ("a", "b")),
        Gene("constant", ("only",)),
    )

    def is_valid(self, rows: Rows) -> Mask:
        return np.asarray(rows[:, 0] + rows[:, 1] < 4)

    def active(self, rows: Rows) -> Mask:
        mask = np.ones(rows.shape, dtype=np.bool_)
        mask[:, 3] = rows[:, 1] >= 1
        mask[:, 4] = rows[:, 1] >= 2
        return mask

    def canonical(self, rows: Rows) -> Rows:
        return np.where(self.active(rows), rows, 0)


class Coin(GeneSpace):
    name = "coin"
    genes = (Gene("side", ("head", "tail")), Gene("toss", (0, 1, 2)))


class Pair(GeneSpace):
    """Two valid rows that are two edits apart, so that no single edit leads from one to the other."""

    name = "pair"
    genes = (Gene("a", (0, 1)), Gene("b", (0, 1)))

    def is_valid(self, rows: Rows) -> Mask:
        return np.asarray(rows[:, 0] == rows[:, 1])


class Nothing(GeneSpace):
    name = "nothing"
    genes = (Gene("a", (0, 1)),)

    def is_valid(self, rows: Rows) -> Mask:
        return np.zeros(len(rows), dtype=np.bool_)


def _all(space: GeneSpace) -> Rows:
    rows = np.array(list(product(*(range(size) for size in space.sizes))), dtype=np.int64)
    return rows[space.is_valid(rows)]


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# -- genes and rows ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("choices", [(), ("a", "a")])
def test_gene_needs_distinct_choices(choices: tuple[str, ...]) -> None:
    with pytest.raises(ArchitectureError, match="at least one choice"):
        Gene("g", choices)


def test_choice_index() -> None:
    assert choice_index(Gene("width", (8, 16)), "16") == 1
    with pytest.raises(ArchitectureError, match=r"choice of gene 'width' '61'.*16.*8"):
        choice_index(Gene("width", (8, 16)), "61")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[0, 0, 0]], r"shape \(n, 6\)"),
        ([[0.0] * 6], "float64"),
        ([[[0] * 6]], "shape"),
        ([[0] * 6, [0, 3, 0, 0, 0, 0]], r"'depth'.*choices 0 to 2 \(1, 2, 3\), but row 1 has 3"),
        ([[0, 0, 0, 0, 0, -1]], "has -1"),
        ([[0] * 6, [2, 2, 0, 0, 0, 0]], "Row 1, .*not a valid"),
    ],
)
def test_check_refuses(rows: Any, message: str) -> None:
    with pytest.raises(ArchitectureError, match=message):
        Toy().check(rows)


def test_check_takes_one_row_none_and_copies() -> None:
    assert Toy().check([1, 1, 0, 0, 0, 0]).shape == (1, 6)
    assert Toy().check([]).shape == (0, 6)
    given = np.zeros((2, 6), dtype=np.int8)
    checked = Toy().check(given)
    checked[0, 0] = 1
    assert checked.dtype == np.int64 and given[0, 0] == 0


# -- moving about -----------------------------------------------------------------------------------------------


def test_sample_is_uniform_over_valid_rows() -> None:
    space, everything = Toy(), _all(Toy())
    rows = space.sample(200 * len(everything), _rng())
    _, counts = np.unique(rows, axis=0, return_counts=True)
    assert len(counts) == len(everything)
    assert chisquare(counts).pvalue > 1e-3


def test_random_moves_depend_on_the_generator_alone() -> None:
    space = Toy()
    rows = space.sample(50, _rng(1))
    np.testing.assert_array_equal(rows, space.sample(50, _rng(1)))
    assert (rows != space.sample(50, _rng(2))).any()
    np.testing.assert_array_equal(space.mutate(rows, _rng(1)), space.mutate(rows, _rng(1)))
    other = rows[::-1]
    np.testing.assert_array_equal(space.crossover(rows, other, _rng(1)), space.crossover(rows, other, _rng(1)))


def test_sample_of_nothing_valid_raises() -> None:
    with pytest.raises(ArchitectureError, match="must override `sample`"):
        Nothing().sample(3, _rng())


def test_mutate_changes_one_active_gene() -> None:
    space = Toy()
    rows = np.repeat(_all(space), 20, axis=0)
    before = rows.copy()
    mutants = space.mutate(rows, _rng())
    np.testing.assert_array_equal(rows, before)
    changed = mutants != rows
    assert space.is_valid(mutants).all()
    assert (changed.sum(axis=1) == 1).all()
    assert space.active(rows)[changed].all()


def test_mutate_reaches_exactly_the_neighbors() -> None:
    space = Toy()
    for row in _all(space):
        reached = {tuple(mutant) for mutant in space.mutate(np.repeat(row[None], 300, axis=0), _rng())}
        assert reached == {tuple(neighbor) for neighbor in space.neighbors(row)}


@pytest.mark.parametrize("edits", [2, 3])
def test_mutate_changes_as_many_different_genes_as_it_is_told(edits: int) -> None:
    space = Toy()
    rows = np.repeat(_all(space), 20, axis=0)
    mutants = space.mutate(rows, _rng(), edits=edits)
    changed = mutants != rows
    assert space.is_valid(mutants).all()
    assert (changed.sum(axis=1) == edits).all()
    assert space.active(rows)[changed].all()


def test_mutate_reaches_all_that_differs_in_two_genes() -> None:
    space, everything = Toy(), _all(Toy())
    for row in everything[::7]:
        differ = everything != row
        wanted = everything[(differ.sum(axis=1) == 2) & (differ <= space.active(row[None])).all(axis=1)]
        reached = {tuple(mutant) for mutant in space.mutate(np.repeat(row[None], 2000, axis=0), _rng(), edits=2)}
        assert reached == {tuple(other) for other in wanted}


def test_mutate_changes_all_genes_where_it_is_told_more() -> None:
    space, rows = Coin(), Coin().sample(50, _rng())
    assert (space.mutate(rows, _rng(), edits=5) != rows).all()
    np.testing.assert_array_equal(space.mutate(rows, _rng(), edits=0), rows)


def test_mutate_may_pass_what_is_not_valid() -> None:
    rows = np.array([[0, 0], [1, 1]])
    np.testing.assert_array_equal(Pair().mutate(rows, _rng(), edits=2), 1 - rows)


def test_mutate_keeps_rows_without_valid_neighbor() -> None:
    rows = np.array([[0, 0], [1, 1]])
    np.testing.assert_array_equal(Pair().mutate(rows, _rng()), rows)
    assert Pair().neighbors(rows[0]).shape == (0, 2)


def test_moves_on_no_rows() -> None:
    space, none = Toy(), np.zeros((0, 6), dtype=np.int64)
    assert space.sample(0, _rng()).shape == (0, 6)
    assert space.mutate(none, _rng()).shape == (0, 6)
    assert space.crossover(none, none, _rng()).shape == (0, 6)
    assert space.keys(none) == [] and space.format(none) == []


def test_crossover_mixes_parents() -> None:
    space = Toy()
    first, second = space.sample(400, _rng(1)), space.sample(400, _rng(2))
    children = space.crossover(first, second, _rng(3))
    assert space.is_valid(children).all()
    assert ((children == first) | (children == second)).all()
    differ = first != second
    share = (children == second)[differ].mean()
    assert 0.35 < share < 0.55  # half, less the children that fell back to the first parent


def test_crossover_falls_back_to_the_first_parent() -> None:
    first, second = np.array([[0, 0]] * 100), np.array([[1, 1]] * 100)
    children = Pair().crossover(first, second, _rng())
    assert {tuple(child) for child in children} == {(0, 0), (1, 1)}


def test_neighbors_are_all_single_edits_of_active_genes() -> None:
    space, everything = Toy(), _all(Toy())
    for row in everything:
        single = (everything != row).sum(axis=1) == 1
        single &= ((everything != row) <= space.active(row[None])).all(axis=1)
        assert {tuple(n) for n in space.neighbors(row)} == {tuple(n) for n in everything[single]}


# -- classes ----------------------------------------------------------------------------------------------------


def test_canonical_and_keys() -> None:
    space, everything = Toy(), _all(Toy())
    canonical = space.canonical(everything)
    np.testing.assert_array_equal(space.canonical(canonical), canonical)
    assert space.is_valid(canonical).all()
    keys = space.keys(everything)
    classes = {tuple(row) for row in canonical}
    assert len(set(keys)) == len(classes) < len(everything)
    assert [keys.index(key) for key in keys] == [
        next(i for i, other in enumerate(canonical) if (other == row).all()) for row in canonical
    ]


def test_inactive_genes_leave_the_class() -> None:
    space, everything = Toy(), _all(Toy())
    for row, active in zip(everything, space.active(everything), strict=True):
        for gene in np.flatnonzero(~active):
            changed = row.copy()
            changed[gene] = (row[gene] + 1) % space.sizes[gene]
            assert space.keys(changed[None]) == space.keys(row[None])


class Odd(GeneSpace):
    """A thousand rows in 25 classes, more than one chunk of 64."""

    name = "odd"
    genes = tuple(Gene(f"g{i}", tuple(range(10))) for i in range(3))

    def is_valid(self, rows: Rows) -> Mask:
        return np.asarray(rows[:, 0] % 2 == 1)

    def canonical(self, rows: Rows) -> Rows:
        return np.stack([rows[:, 0], 0 * rows[:, 1], rows[:, 2] // 2], axis=1)


def test_enumerate_classes_gives_each_canonical_row_once_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(genes, "_CHUNK", 64)
    for space in (Toy(), Coin(), Pair(), Nothing(), Odd()):
        classes = space.enumerate_classes()
        expected = sorted({tuple(row) for row in space.canonical(_all(space)).tolist()})
        assert classes.tolist() == [list(row) for row in expected]
        assert classes.shape == (len(expected), len(space.genes)) and classes.dtype == np.int64
    assert len(Odd().enumerate_classes()) == 25


def test_enumerate_classes_refuses_large_spaces() -> None:
    class Large(GeneSpace):
        name = "large"
        genes = tuple(Gene(f"g{i}", tuple(range(10))) for i in range(30))

    with pytest.raises(ArchitectureError, match=r"'large' are not listed.* 1e\+30 rows, and at most 10,000,000"):
        Large().enumerate_classes()
    with pytest.raises(ArchitectureError, match="not listed"):
        Large().sample_classes(3, _rng())
    joint = JointSpace(architecture=Large(), accelerator=Coin())
    with pytest.raises(ArchitectureError, match="not listed"):
        joint.enumerate_classes()
    assert joint.freeze("architecture", [3] * 30).enumerate_classes().shape == (6, 32)


def test_classes_of_a_joint_space_are_combinations(monkeypatch: pytest.MonkeyPatch) -> None:
    frozen = [1, 2]
    space = JointSpace(architecture=Toy(), accelerator=Coin())
    expected = sorted({tuple(row) for row in space.canonical(_all(space)).tolist()})
    assert space.enumerate_classes().tolist() == [list(row) for row in expected]
    rest = space.freeze("accelerator", frozen).enumerate_classes()
    assert rest.tolist() == [list(row) for row in expected if list(row[6:]) == frozen]
    monkeypatch.setattr(genes, "MAX_LISTED", len(expected) - 1)
    with pytest.raises(ArchitectureError, match=f"take {len(expected)} rows"):
        space.enumerate_classes()


def test_sample_classes_is_uniform_over_classes() -> None:
    space = Toy()
    classes = space.enumerate_classes()
    rows = space.sample_classes(200 * len(classes), _rng())
    found, counts = np.unique(rows, axis=0, return_counts=True)
    np.testing.assert_array_equal(found, classes)
    assert chisquare(counts).pvalue > 1e-3
    _, by_row = np.unique(space.canonical(space.sample(len(rows), _rng())), axis=0, return_counts=True)
    assert chisquare(by_row).pvalue < 1e-6
    np.testing.assert_array_equal(rows, space.sample_classes(len(rows), _rng()))


# -- text and identity ------------------------------------------------------------------------------------------


def test_format_and_parse() -> None:
    space, everything = Toy(), _all(Toy())
    texts = space.format(everything)
    assert texts[0] == "8,1,a,a,a,only"
    np.testing.assert_array_equal(space.parse(texts), everything)
    np.testing.assert_array_equal(space.parse(["16, 2, b, c, a, only"]), [[1, 1, 1, 2, 0, 0]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("8,1,a", "6 comma-separated parts"),
        ("8,1,a,a,z,only", "choice of gene 'kernel2' 'z'"),
        ("32,3,a,a,a,only", "not a valid"),
    ],
)
def test_parse_refuses(text: str, message: str) -> None:
    with pytest.raises(ArchitectureError, match=message):
        Toy().parse([text])


class Chain(SearchSpace):
    """A chain of convolutions, as a search space with two scales."""

    name = "chain"
    genes = (Gene("kernel", (1, 3)), Gene("act", ("Relu", "Sigmoid")))
    scales: ClassVar[dict[str, dict[str, Any]]] = {"full": {"width": 8}, "small": {"width": 4}}

    def network(self, row: Any, task: Task) -> Network:
        b = NetworkBuilder(self.name, task.input_shape)
        x = b.conv_bn(INPUT, self.scale["width"], (1, 3)[row[0]], act=("Relu", "Sigmoid")[row[1]])
        return b.build(b.classifier(b.sum([x, b.pool(x, "MaxPool", 3)]), task.classes))


def test_fingerprint_tells_spaces_apart() -> None:
    class OtherToy(Toy):
        genes = (*Toy.genes[:-1], Gene("constant", ("other",)))

    assert Toy().fingerprint == Toy().fingerprint
    assert len({Toy().fingerprint, OtherToy().fingerprint, Coin().fingerprint}) == 3
    assert len({Chain().fingerprint, Chain("small").fingerprint, Chain(width=6).fingerprint}) == 3
    assert Chain("small").fingerprint == Chain(width=4).fingerprint == Chain("small", width=None).fingerprint


def test_unknown_scale_and_argument() -> None:
    with pytest.raises(ConfigError, match=r"scale of space 'chain' 'smal'\. Did you mean 'small'"):
        Chain("smal")
    with pytest.raises(ConfigError, match=r"'widht'\. Did you mean 'width'"):
        Chain(widht=3)


def test_default_graph_follows_the_network() -> None:
    space = Chain()
    adjacency, ops = space.graph(np.array([[0, 0], [1, 1]]))
    names = [[space.ops[op].name for op in row if op >= 0] for row in ops]
    assert names[0] == [
        *("input", "Conv1g1s1", "BatchNormalization1g1s1", "Relu1g1s1", "MaxPool3g1s1", "Add1g1s1"),
        *("GlobalAveragePool1g1s1", "Flatten1g1s1", "Gemm1g1s1", "output"),
    ]
    assert names[1][1] == "Conv3g1s1" and names[1][3] == "Sigmoid1g1s1"
    assert not np.tril(adjacency).any()
    assert adjacency[0].sum() == 10
    assert adjacency[0, 3, 4] and adjacency[0, 3, 5] and adjacency[0, 4, 5]


# -- batches ----------------------------------------------------------------------------------------------------


def test_batch_is_checked_copied_and_frozen() -> None:
    rows = Toy().sample(5, _rng())
    batch = ArchBatch(Toy(), rows)
    rows[:] = 0
    assert batch.rows.any()
    with pytest.raises(ValueError, match="read-only"):
        batch.rows[0, 0] = 1
    with pytest.raises(ArchitectureError):
        ArchBatch(Toy(), [[9] * 6])


def test_batch_indexing() -> None:
    batch = ArchBatch.sample(Toy(), 6, _rng())
    assert len(batch) == 6 and repr(batch) == "ArchBatch(toy, 6 architectures)"
    np.testing.assert_array_equal(batch[2].rows, batch.rows[2:3])
    np.testing.assert_array_equal(batch[-1].rows, batch.rows[5:])
    np.testing.assert_array_equal(batch[1:4].rows, batch.rows[1:4])
    np.testing.assert_array_equal(batch[[4, 0]].rows, batch.rows[[4, 0]])
    np.testing.assert_array_equal(batch[batch.rows[:, 0] == 0].rows, batch.rows[batch.rows[:, 0] == 0])
    assert len(batch[np.zeros(6, dtype=bool)]) == 0
    np.testing.assert_array_equal(np.concatenate([one.rows for one in batch]), batch.rows)


def test_batch_unique_keeps_the_first_of_each_class() -> None:
    batch = ArchBatch(Toy(), [[0, 0, 0, 2, 1, 0], [0, 1, 0, 2, 1, 0], [0, 0, 0, 1, 0, 0], [0, 1, 0, 2, 0, 0]])
    np.testing.assert_array_equal(batch.unique().rows, batch.rows[:2])
    np.testing.assert_array_equal(batch.canonical().rows[0], [0] * 6)
    assert batch.keys()[0] == batch.keys()[2] != batch.keys()[1]


def test_batch_text_and_concatenation() -> None:
    batch = ArchBatch.sample(Toy(), 4, _rng())
    np.testing.assert_array_equal(ArchBatch.parse(Toy(), batch.format()).rows, batch.rows)
    both = ArchBatch.concatenate([batch[:1], batch[1:]])
    np.testing.assert_array_equal(both.rows, batch.rows)
    with pytest.raises(ArchitectureError, match="coin-"):
        ArchBatch.concatenate([batch, ArchBatch.sample(Coin(), 1, _rng())])


# -- joint spaces -----------------------------------------------------------------------------------------------


def _joint() -> JointSpace:
    return JointSpace(architecture=Toy(), accelerator=Coin())


def test_joint_space_puts_parts_side_by_side() -> None:
    space = _joint()
    assert space.name == "toy+coin"
    assert [gene.name for gene in space.genes][:2] == ["architecture.width", "architecture.depth"]
    assert space.part("architecture") == slice(0, 6) and space.part("accelerator") == slice(6, 8)
    rows = space.sample(100, _rng())
    assert rows.shape == (100, 8) and space.is_valid(rows).all()
    np.testing.assert_array_equal(space.active(rows)[:, :6], Toy().active(rows[:, :6]))
    np.testing.assert_array_equal(space.canonical(rows)[:, :6], Toy().canonical(rows[:, :6]))
    assert not space.is_valid(np.array([[2, 2, 0, 0, 0, 0, 0, 0]]))[0]


def test_joint_space_text() -> None:
    space = _joint()
    rows = space.sample(20, _rng())
    np.testing.assert_array_equal(space.parse(space.format(rows)), rows)
    assert space.format(np.zeros((1, 8), dtype=np.int64)) == ["8,1,a,a,a,only ; head,0"]
    with pytest.raises(ArchitectureError, match=r"2 parts \(architecture, accelerator\)"):
        space.parse(["8,1,a,a,a,only"])


def test_joint_space_refuses() -> None:
    with pytest.raises(ArchitectureError, match="at least one part"):
        JointSpace()
    with pytest.raises(ArchitectureError, match=r"part 'acelerator'\. Did you mean 'accelerator'"):
        _joint().part("acelerator")
    with pytest.raises(NasflowError, match="Unknown part"):
        _joint().freeze("device", [0, 0])
    with pytest.raises(ArchitectureError, match="'toss'"):
        _joint().freeze("accelerator", [0, 3])
    with pytest.raises(ArchitectureError, match="frozen to one row, but got 2"):
        _joint().freeze("accelerator", [[0, 1], [0, 2]])


def test_frozen_part_stays() -> None:
    space, frozen = _joint(), _joint().freeze("accelerator", [1, 2])
    rows = frozen.sample(100, _rng())
    mutants = frozen.mutate(rows, _rng(), edits=2)
    children = frozen.crossover(rows, mutants, _rng())
    for batch in (rows, mutants, children, frozen.neighbors(rows[0])):
        assert (batch[:, 6:] == [1, 2]).all() and frozen.is_valid(batch).all()
    assert (mutants != rows).any()
    assert not frozen.active(rows)[:, 6:].any()
    assert not frozen.is_valid(np.zeros((1, 8), dtype=np.int64))[0]
    assert space.is_valid(np.zeros((1, 8), dtype=np.int64))[0], "freezing must not change the space it came from"
    assert len({space.fingerprint, frozen.fingerprint, _joint().freeze("accelerator", [1, 1]).fingerprint}) == 3


def test_frozen_row_need_not_be_canonical() -> None:
    """The class of a frozen part is fixed, so canonical rows keep it as frozen and stay valid."""
    space = _joint().freeze("architecture", [0, 0, 0, 2, 1, 0])
    batch = ArchBatch.sample(space, 10, _rng())
    np.testing.assert_array_equal(batch.canonical().rows[:, :6], batch.rows[:, :6])


def test_all_parts_can_be_frozen() -> None:
    space = _joint().freeze("architecture", [0] * 6).freeze("accelerator", [1, 2])
    rows = space.sample(3, _rng())
    np.testing.assert_array_equal(rows, [[0] * 6 + [1, 2]] * 3)
    np.testing.assert_array_equal(space.mutate(rows, _rng()), rows)
