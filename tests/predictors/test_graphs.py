"""Architectures as graphs of descriptors."""

import numpy as np
import pytest
import torch

from nasflow.testing.proxies import WidthsSpace
from predictors.graphs import INPUT, OUTPUT, WIDTH, graphs, op_vectors
from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError
from searchspaces.fbnet import FBNet
from searchspaces.genes import JointSpace
from searchspaces.nb101 import NB101
from searchspaces.nb201 import NB201
from searchspaces.space import Op


def test_an_operation_has_one_vector_whatever_the_space_calls_it() -> None:
    ours, theirs = op_vectors([Op("nor_conv_3x3", "conv", kernel=3), Op("conv3x3-bn-relu", "conv", kernel=3)])
    np.testing.assert_array_equal(ours, theirs)
    of_cells = {op.name: vector for op, vector in zip(NB201().ops, op_vectors(NB201().ops), strict=True)}
    of_others = {op.kind: vector for op, vector in zip(NB101().ops, op_vectors(NB101().ops), strict=True)}
    np.testing.assert_array_equal(of_cells["output"], of_others["output"])


def test_onnx_and_our_names_of_one_kind_are_one() -> None:
    ours, onnx = op_vectors([Op("p", "max_pool", kernel=3, stride=2), Op("q", "MaxPool", kernel=3, stride=2)])
    np.testing.assert_array_equal(ours, onnx)


@pytest.mark.parametrize(
    "other",
    [
        Op("x", "conv", kernel=5),
        Op("x", "separable", kernel=3),
        Op("x", "conv", kernel=3, groups=2),
        Op("x", "conv", kernel=3, groups=0),
        Op("x", "conv", kernel=3, stride=2),
        Op("x", "conv", kernel=3, expansion=6),
        Op("x", "Conv", kernel=3),
        Op("x", "never heard of", kernel=3),
    ],
)
def test_different_operations_have_different_vectors(other: Op) -> None:
    one, two = op_vectors([Op("x", "conv", kernel=3), other])
    assert one.shape == (WIDTH,)
    assert (one != two).any()
    assert np.isfinite(two).all()


def test_unknown_kinds_are_marked_outside_the_vocabulary() -> None:
    known, first, again = op_vectors([Op("a", "conv"), Op("b", "fourier_mixing"), Op("c", "fourier_mixing")])
    assert first.sum() == 1
    assert first @ known == 0
    np.testing.assert_array_equal(first, again)


def test_edges_point_from_the_second_index_to_the_first() -> None:
    space = NB101()
    archs = ArchBatch.parse(space, ["input|conv3x3-bn-relu~0|maxpool3x3~1|output~0~2"])
    batch = graphs(archs)
    adjacency, _ = space.graph(space.canonical(archs.rows))
    np.testing.assert_array_equal(batch.incoming[0].numpy(), adjacency[0].T)
    assert batch.used.sum() == 4
    assert batch.incoming.sum() == 4
    assert batch.inputs[0].nonzero().flatten().tolist() == [0]
    assert batch.outputs[0].nonzero().flatten().tolist() == [6]


def test_vertices_that_pass_nothing_on_are_unused_and_have_no_edges() -> None:
    space = NB201()
    archs = ArchBatch.parse(space, ["|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"])
    batch = graphs(archs)
    # The convolution leads nowhere: what is left is input, skip connection and output.
    assert batch.used.sum() == 3
    assert batch.incoming.sum() == 2
    assert (batch.ops[batch.used == 0] == 0).all()
    assert (batch.incoming.sum(1)[batch.used == 0] == 0).all()
    assert (batch.incoming.sum(2)[batch.used == 0] == 0).all()


def test_rows_of_one_class_are_one_graph() -> None:
    space = NB201()
    archs = ArchBatch.sample(space, 300, np.random.default_rng(0))
    raw, canonical = graphs(archs), graphs(archs.canonical())
    assert torch.equal(raw.incoming, canonical.incoming)
    assert torch.equal(raw.ops, canonical.ops)


def test_a_part_of_a_batch() -> None:
    batch = graphs(ArchBatch.sample(FBNet(), 5, np.random.default_rng(0)))
    part = batch[torch.tensor([3, 1])]
    assert len(part) == 2
    assert torch.equal(part.ops[0], batch.ops[3])
    assert torch.equal(part.used[1], batch.used[1])


def test_a_space_that_only_describes_networks_has_graphs() -> None:
    archs = ArchBatch(WidthsSpace(), [[0, 1], [2, 2]])
    batch = graphs(archs)
    assert (batch.ops[..., INPUT].sum(1) == 1).all()
    assert (batch.ops[..., OUTPUT].sum(1) == 1).all()
    assert torch.equal(batch.incoming.tril(-1), batch.incoming)  # vertices come after those that they read


def test_rows_that_are_no_networks_have_none() -> None:
    space = JointSpace(architecture=NB201())
    with pytest.raises(ConfigError, match="Only architectures of search spaces"):
        graphs(ArchBatch.sample(space, 2, np.random.default_rng(0)))
