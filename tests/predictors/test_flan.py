"""FLAN: its layers, its passes, its training."""

from typing import Any

import numpy as np
import pytest
import torch

from nasflow.testing.predictors import target
from predictors.accuracy.flan import FLAN, FlanNetwork
from predictors.accuracy.layers import FlowAttention, GraphFlow, attention_mask, split
from predictors.graphs import graphs
from searchspaces.arch import ArchBatch
from searchspaces.nb101 import NB101
from searchspaces.nb201 import NB201
from tests.predictors.neural import Make, NeuralContract, samples


def make_flan(**arguments: Any) -> FLAN:
    return FLAN(**({"width": 32, "layers": 2, "epochs": 15, "batch": 20, "lr": 5e-3, "seed": 1} | arguments))


class TestFLAN(NeuralContract):
    @pytest.fixture
    def make(self) -> Make:
        return make_flan


def test_where_there_is_no_edge_there_is_no_attention() -> None:
    torch.manual_seed(0)
    batch = graphs(ArchBatch.sample(NB101(), 30, np.random.default_rng(0)))
    layer = FlowAttention(4, 8)
    h = (30 * torch.randn(*batch.used.shape, 8)).requires_grad_()  # large logits of either sign
    weights = layer.weights(h, attention_mask(batch.incoming))
    open_ = (batch.incoming > 0) | torch.eye(7, dtype=torch.bool)
    assert (weights[~open_] == 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(30, 7))
    (weights * torch.randn_like(weights)).sum().backward()
    assert h.grad is not None
    assert torch.isfinite(h.grad).all()


def test_what_follows_in_a_graph_does_not_reach_back_in_a_forward_layer() -> None:
    torch.manual_seed(0)
    incoming = torch.zeros(1, 4, 4)
    incoming[0, 1, 0] = incoming[0, 2, 1] = incoming[0, 3, 1] = 1
    layer, flow = FlowAttention(5, 6), GraphFlow(5, 6)
    x, gates = torch.randn(1, 4, 5), torch.rand(2, 1, 4, 6)
    changed = x.clone()
    changed[0, 2] += 1
    for run in (
        lambda x: layer(split(layer.project, x, 2), incoming, attention_mask(incoming), gates),
        lambda x: flow(x, incoming, gates[0]),
    ):
        moved = (run(x) != run(changed)).any(-1)[0]
        assert moved.tolist() == [False, False, True, False]


def test_features_of_one_vertex_are_those_among_all() -> None:
    torch.manual_seed(0)
    batch = graphs(ArchBatch.sample(NB101(), 30, np.random.default_rng(0)))
    layer, mask, at = FlowAttention(5, 6), attention_mask(batch.incoming), batch.outputs[:, None]
    x, gates = torch.randn(*batch.used.shape, 5), torch.rand(2, *batch.used.shape, 6)
    everywhere = layer(split(layer.project, x, 2), batch.incoming, mask, gates)
    torch.testing.assert_close(layer.arriving(x, at, batch.incoming, mask, at @ gates), at @ everywhere)


def test_a_closed_gate_leaves_a_vertex_its_own_features() -> None:
    flow = GraphFlow(5, 6)
    x, incoming = torch.randn(1, 3, 5), torch.ones(1, 3, 3).tril(-1)
    torch.testing.assert_close(flow(x, incoming, torch.zeros(1, 3, 6)), flow.project(x) + flow.bias)


def test_a_backward_pass_tells_operations_what_arrived_at_the_output() -> None:
    torch.manual_seed(0)
    batch = graphs(samples(NB201(), 6))
    once, twice = FlanNetwork(0, 2, 16, 1), FlanNetwork(0, 2, 16, 2)
    once.load_state_dict({name: value for name, value in twice.state_dict().items() if name in once.state_dict()})
    assert not torch.allclose(once.embed(batch), twice.embed(batch))
    with torch.no_grad():
        for parameter in twice.update[-1].parameters():
            parameter.zero_()  # an update of 0 changes nothing
    torch.testing.assert_close(once.embed(batch), twice.embed(batch))


def test_gradients_do_not_go_through_what_the_update_is_told_directly() -> None:
    torch.manual_seed(0)
    batch = graphs(samples(NB201(), 6))
    network = FlanNetwork(0, 2, 16, 2)
    told: list[torch.Tensor] = []
    network.update.register_forward_pre_hook(lambda _, inputs: told.append(inputs[0].detach()))
    ops, y = network.ops(batch.ops).requires_grad_(), torch.randn(6, 8, 16, requires_grad=True)
    back = network._backward_pass(y, batch, ops)
    network.embed(batch).sum().backward()
    assert told[0].shape == (6, 8, 48 + 16 + 16)
    assert back.requires_grad  # but what was sent back does carry gradients, and so the conversion learns
    assert network.convert[0].weight.grad is not None
    assert network.convert[0].weight.grad.abs().sum() > 0


def test_every_weight_learns() -> None:
    archs = samples(NB201(), 16)
    network = FlanNetwork(3, 2, 16, 2)
    network.score(network.embed(graphs(archs)), torch.randn(16, 3)).pow(2).sum().backward()
    idle = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert idle == []


def test_the_margin_is_kept_between_samples() -> None:
    archs = samples(NB201(), 12)
    y = target(archs)
    fitted = make_flan(epochs=150, margin=0.5).fit(archs, y)
    with torch.no_grad():
        scores = fitted._scores(archs)
    order = np.argsort(y)
    apart = y[order[:-1]] < y[order[1:]]
    steps = np.diff(scores[order])[apart]
    assert np.mean(steps > 0.2) > 0.9
