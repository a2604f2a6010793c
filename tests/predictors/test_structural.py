import numpy as np
import pytest

from predictors.encodings import (
    AdjacencyOps,
    Concatenation,
    CostFeatures,
    Encoding,
    LayerCosts,
    OneHot,
    OpCounts,
    OpPairs,
    Paths,
    Topology,
)
from predictors.encodings.graph import along_paths, live_graph
from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError
from searchspaces.fbnet import FBNet
from searchspaces.genes import GeneSpace
from searchspaces.mobilenet import MobileNet
from searchspaces.nb101 import NB101
from searchspaces.nb201 import NB201
from searchspaces.pool import Pool
from searchspaces.space import SearchSpace
from searchspaces.task import Task
from searchspaces.unreduced import Unreduced

SPACES = [NB101(), NB201(), FBNet(), MobileNet()]
ENCODINGS = [OneHot(), AdjacencyOps(), Paths(), OpPairs(), OpCounts(), Topology(), CostFeatures(), LayerCosts()]
WITHOUT_PATHS = ("fbnet", "mobilenet")
PAIRS = [(e, s) for e in ENCODINGS for s in SPACES if not (isinstance(e, Paths) and s.name in WITHOUT_PATHS)]


@pytest.mark.parametrize(("encoding", "space"), PAIRS, ids=[f"{type(e).__name__}-{s.name}" for e, s in PAIRS])
def test_every_encoding_of_every_space(encoding: Encoding, space: SearchSpace) -> None:
    archs = ArchBatch.sample(space, 60, np.random.default_rng(1))
    vectors = encoding.encode(archs)
    assert vectors.shape == (60, len(encoding.columns(space)))
    assert np.isfinite(vectors).all()
    assert 0 < np.abs(vectors).max() < 60
    assert len(np.unique(vectors, axis=0)) > 15, "architectures are told apart"
    np.testing.assert_allclose(encoding.encode(archs[7:9]), vectors[7:9], atol=1e-12, err_msg="whatever the batch")
    np.testing.assert_array_equal(encoding.encode(archs.canonical()), vectors, err_msg="one vector per class")
    pooled = ArchBatch(Pool(space, archs.unique().rows), archs.unique().rows)
    np.testing.assert_array_equal(encoding.encode(pooled), encoding.encode(archs.unique()), err_msg="as the base")


@pytest.mark.parametrize("encoding", [OneHot(), Topology(), Paths(), OpPairs()], ids=lambda e: type(e).__name__)
def test_figures_are_standardised_over_the_space(encoding: Encoding) -> None:
    space = NB201()
    vectors = encoding.encode(ArchBatch(space, space.from_index(np.arange(15625))))
    varying = vectors.std(axis=0) > 0.1
    assert varying.sum() > 20
    np.testing.assert_allclose(vectors.mean(axis=0), 0, atol=0.15)
    assert np.median(vectors.std(axis=0)[varying]) == pytest.approx(1, abs=0.1)


def test_onehot_leaves_out_what_does_not_matter() -> None:
    space = NB201()
    archs = ArchBatch.parse(space, ["|none~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|"])
    names = np.array(OneHot().columns(space))
    raw = OneHot()._figures(space, space.canonical(archs.rows))[0]
    assert len(names) == 30
    assert raw.sum() == space.active(space.canonical(archs.rows)).sum()


def test_a_cell_by_hand() -> None:
    """0→3 is a convolution; 0→1→3 a convolution and a pooling; what leads through node 2 has a dead end."""
    space = NB201()
    text = "|nor_conv_3x3~0|+|nor_conv_1x1~0|none~1|+|nor_conv_3x3~0|avg_pool_3x3~1|none~2|"
    rows = ArchBatch.parse(space, [text]).rows
    adjacency, ops = live_graph(space, rows)
    names = [space.ops[op].name for op in ops[0] if op >= 0]
    assert sorted(names) == ["avg_pool_3x3", "input", "nor_conv_3x3", "nor_conv_3x3", "output"]
    hot = np.stack([ops == i for i in range(len(space.ops))], axis=2).astype(float)
    paths, most, fewest, mean = along_paths(adjacency, hot)
    conv = [op.name for op in space.ops].index("nor_conv_3x3")
    pool = [op.name for op in space.ops].index("avg_pool_3x3")
    assert paths.tolist() == [2]
    assert (most[0, conv], fewest[0, conv], mean[0, conv]) == (1, 1, 1)
    assert (most[0, pool], fewest[0, pool], mean[0, pool]) == (1, 0, 0.5)
    counts = dict(zip(Paths().columns(space), Paths()._figures(space, rows)[0], strict=True))
    found = {name: count for name, count in counts.items() if count}
    assert found == {"nor_conv_3x3": 1, "nor_conv_3x3→avg_pool_3x3": 1}
    pairs = dict(zip(OpPairs().columns(space), OpPairs()._figures(space, rows)[0], strict=True))
    assert {name: n for name, n in pairs.items() if n} == {
        "input→nor_conv_3x3": 2,
        "nor_conv_3x3→output": 1,
        "nor_conv_3x3→avg_pool_3x3": 1,
        "avg_pool_3x3→output": 1,
    }


def test_layer_costs_are_what_the_network_counts() -> None:
    space = FBNet("small")
    archs = ArchBatch.sample(space, 40, np.random.default_rng(2))
    encoding = LayerCosts((1, 8, 8), 10)
    networks = [space.network(row, Task("t", (1, 8, 8), 10)) for row in archs.rows]
    columns = dict(zip(encoding.columns(space), encoding.encode(archs).T, strict=True))
    depthwise = [
        sum(node.attributes.get("group", 1) == node.shape[0] for node in network.nodes if node.op == "Conv")
        for network in networks
    ]
    expected = {
        "log macs": [network.macs for network in networks],
        "log bytes": [network.bytes_moved for network in networks],
        "log nodes": [len(network.nodes) for network in networks],
        "log number of Relu": [sum(node.op == "Relu" for node in network.nodes) for network in networks],
        "log number of depthwise Conv": depthwise,
    }
    for name, counts in expected.items():
        correlation = np.corrcoef(columns[name], np.log1p(counts))[0, 1]
        assert correlation == pytest.approx(1), name
    assert (columns["log number of MaxPool"] == 0).all(), "the space has none"
    assert [part.columns(space) for part in encoding.parts[:2]] == [["log macs"], ["log params"]]


def test_rows_taken_as_they_are_differ_in_what_has_no_effect_but_not_in_the_network() -> None:
    space = NB201("small")
    texts = [f"|nor_conv_3x3~0|+|none~0|none~1|+|nor_conv_1x1~0|none~1|{op}~2|" for op in ("none", "avg_pool_3x3")]
    archs = ArchBatch(Unreduced(space), space.parse(texts))
    assert len(archs.unique()) == 2
    assert len(ArchBatch(space, archs.rows).unique()) == 1
    for encoding, differ in ((OneHot(), True), (OpCounts(), True), (LayerCosts(), False), (Topology(), False)):
        first, second = encoding.encode(archs)
        assert (first != second).any() == differ
    assert archs.space.fingerprint != space.fingerprint
    np.testing.assert_array_equal(archs.space.parse(archs.format()), archs.rows)


def test_a_cell_through_which_nothing_goes() -> None:
    space = NB201()
    archs = ArchBatch(space, np.zeros((2, 6), dtype=np.int64))
    paths, most, fewest, mean = along_paths(live_graph(space, archs.rows)[0], np.ones((2, 8, 1)))
    assert (paths == 0).all()
    assert (most == 0).all()
    assert (fewest == 0).all()
    assert (mean == 0).all()
    for encoding in ENCODINGS:
        assert np.isfinite(encoding.encode(archs)).all()


@pytest.mark.parametrize("space", [FBNet(), MobileNet()], ids=lambda space: space.name)
def test_paths_of_long_chains_are_refused(space: SearchSpace) -> None:
    with pytest.raises(ConfigError, match="too many different paths.*encoding=onehot"):
        Paths().encode(ArchBatch.sample(space, 2, np.random.default_rng(0)))


def test_a_sum_of_encodings_stands_side_by_side() -> None:
    space = NB201()
    archs = ArchBatch.sample(space, 5, np.random.default_rng(0))
    both = OneHot() + Topology()
    nested = both + Concatenation({"paths": Paths()})
    assert [type(part) for part in nested.parts] == [OneHot, Topology, Paths]
    np.testing.assert_array_equal(both.encode(archs)[:, :30], OneHot().encode(archs))
    assert nested.encode(archs).shape[1] == len(nested.columns(space))
    with pytest.raises(ConfigError, match="at least one encoding"):
        Concatenation([])


def test_only_search_spaces_can_be_encoded() -> None:
    class Plain(GeneSpace):
        name = "plain"
        genes = NB201().genes

    with pytest.raises(ConfigError, match="'plain' is none"):
        OneHot().encode(ArchBatch(Plain(), [[0] * 6]))


def test_a_large_batch_is_remembered_and_never_mixed_up() -> None:
    encoding, space = Topology(), NB201()
    archs = ArchBatch.sample(space, 600, np.random.default_rng(0))
    first = encoding.encode(archs)
    assert encoding.encode(archs) is first
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 0
    other = encoding.encode(archs[::-1])
    np.testing.assert_allclose(other, first[::-1])
    small = ArchBatch(NB201("small"), archs.rows)
    np.testing.assert_allclose(encoding.encode(small), first)
