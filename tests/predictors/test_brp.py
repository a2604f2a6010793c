"""The binary relation predictor."""

from typing import Any

import numpy as np
import pytest
import torch

from nasflow.testing.predictors import target
from predictors.accuracy.brp import BRP, Comparator
from predictors.graphs import Graphs
from searchspaces.nb201 import NB201
from tests.predictors.neural import Make, NeuralContract, samples


def make_brp(**arguments: Any) -> BRP:
    return BRP(**({"width": 32, "layers": 3, "epochs": 40, "batch": 16, "lr": 5e-3, "seed": 1} | arguments))


class TestBRP(NeuralContract):
    @pytest.fixture
    def make(self) -> Make:
        return make_brp


def test_comparing_is_a_linear_layer_of_both_vectors_side_by_side() -> None:
    network = Comparator(2, 1, 6, 0.0)
    a, b = torch.randn(4, 8), torch.randn(3, 8)
    layer = torch.nn.Linear(16, 1)
    layer.weight.data = torch.cat([network.first.weight, network.second.weight], 1)
    layer.bias.data = network.first.bias
    with torch.no_grad():
        pairs = torch.cat([a[:, None].expand(4, 3, 8), b[None].expand(4, 3, 8)], -1)
        torch.testing.assert_close(network.compare(a, b), layer(pairs)[..., 0])


def test_each_architecture_is_embedded_once_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    embedded = []
    embed = Comparator.embed

    def counting(self: Comparator, graphs: Graphs) -> torch.Tensor:
        embedded.append(len(graphs))
        return embed(self, graphs)

    monkeypatch.setattr(Comparator, "embed", counting)
    archs = samples(NB201(), 32)
    make_brp(epochs=3).fit(archs, target(archs))
    assert embedded == [16, 16] * 3 + [32, 32]  # the steps; then the reference, and the scores to calibrate


def test_scores_are_mean_wins_over_the_training_samples() -> None:
    archs = samples(NB201(), 40)
    fitted = make_brp().fit(archs[:30], target(archs)[:30])
    reference = fitted.network.reference
    assert reference.shape == (30, 32)
    with torch.no_grad():
        wins = []
        for vector in reference[:, None]:
            first = fitted.network.compare(vector, reference).sigmoid()
            second = 1 - fitted.network.compare(reference, vector).sigmoid()
            wins.append((first.mean() + second.mean()).item() / 2)
    order = fitted.predict(archs[:30]).mean
    assert np.corrcoef(np.argsort(np.argsort(wins)), np.argsort(np.argsort(order)))[0, 1] > 0.999
