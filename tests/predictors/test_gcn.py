"""Graph convolutional networks."""

from typing import Any

import numpy as np
import pytest
import torch
from torch_geometric.nn import GCNConv

from predictors.accuracy.gcn import GCN, GraphConvolutions
from predictors.graphs import graphs
from searchspaces.arch import ArchBatch
from searchspaces.nb101 import NB101
from tests.predictors.neural import Make, NeuralContract


class TestGCN(NeuralContract):
    @pytest.fixture
    def make(self) -> Make:
        def new(**arguments: Any) -> GCN:
            return GCN(**({"width": 32, "layers": 3, "epochs": 40, "batch": 16, "lr": 5e-3, "seed": 1} | arguments))

        return new


def test_a_layer_is_the_symmetrically_normalised_convolution_of_the_edge_list() -> None:
    torch.manual_seed(0)
    network = GraphConvolutions(1, 16, 0.0)
    dense = network.convolutions[0]
    sparse = GCNConv(dense.lin.in_channels, 16)
    sparse.load_state_dict(dense.state_dict())
    archs = ArchBatch.sample(NB101(), 20, np.random.default_rng(0))
    for i in range(len(archs)):
        batch = graphs(archs[i])
        there = batch.used[0].nonzero().flatten()
        to, start = batch.incoming[0].nonzero().T
        read_out = torch.full_like(there, batch.used.shape[1])
        edges = torch.stack([torch.cat([start, to, there]), torch.cat([to, start, read_out])])
        x = torch.cat([batch.ops[0], torch.zeros(1, batch.ops.shape[-1])])
        expected = network.norms[0](sparse(x, edges)).relu()[-1]
        torch.testing.assert_close(network.embed(batch)[0], expected, atol=1e-5, rtol=1e-4)


def test_dropout_ends_with_training() -> None:
    network = GraphConvolutions(2, 16, 0.5)
    batch = graphs(ArchBatch.sample(NB101(), 4, np.random.default_rng(0)))
    assert not torch.equal(network.embed(batch), network.embed(batch))
    network.eval()
    assert torch.equal(network.embed(batch), network.embed(batch))
