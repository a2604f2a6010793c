"""CATE: pairs of similar cost, hidden operations, attention along paths."""

import numpy as np
import pytest
import torch

from predictors.encodings.cate import CATE, _choose, _leading, _partners
from predictors.encodings.corpus import Corpus, corpus
from predictors.graphs import Graphs, graphs
from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError
from searchspaces.nb101 import NB101
from searchspaces.nb201 import NB201
from searchspaces.task import Task
from tests.predictors.learned import Repeats, chance, classes, nearness, quality, split_classes

SPACE = NB201("small")


SEEN, UNSEEN = split_classes(SPACE, 600, 400)


@pytest.fixture(scope="module")
def known() -> Corpus:
    return corpus(UNSEEN, CATE()._costs(UNSEEN))


def test_hidden_operations_are_filled_in() -> None:
    seen, unseen = split_classes(Repeats(), 44, 12)
    encoding = CATE(latent=8, hidden=16, heads=2, layers=1, cross_layers=1, epochs=40, batch=8, lr=3e-3).fit([seen])
    known = corpus(unseen, encoding._costs(unseen))
    assert chance(known) < 0.5
    assert quality(encoding, known)["operations"] > 0.8


def test_near_cells_have_near_vectors() -> None:
    encoding = CATE(latent=16, hidden=32, heads=4, layers=2, cross_layers=1, epochs=5, batch=32, lr=3e-3).fit([SEEN])
    assert nearness(encoding, SPACE) < 0.8


def test_costs_are_parameters_of_networks_for_any_images(known: Corpus) -> None:
    params = [SPACE.network(row, Task("t", (3, 32, 32), 10)).params for row in UNSEEN[:5].rows]
    np.testing.assert_array_equal(known.costs[:5], params)


def test_partners_are_others_of_about_the_same_cost(known: Corpus) -> None:
    rng = np.random.default_rng(0)
    picks = np.repeat(np.arange(len(known)), 5)
    partners = _partners(known, picks, rng)
    assert (partners != picks).all()
    apart = abs(known.costs[partners] - known.costs[picks])
    at_random = abs(known.costs[rng.permutation(picks)] - known.costs[picks])
    assert apart.mean() < 0.1 * at_random.mean()
    ranks = np.sort(known.costs).searchsorted([known.costs[partners], known.costs[picks]], side="left")
    ties = np.unique(known.costs, return_counts=True)[1].max()
    assert abs(ranks[0] - ranks[1]).max() <= 4 + ties
    assert len(np.unique(partners)) > 0.9 * len(known)


def test_some_operations_of_each_architecture_are_chosen(known: Corpus) -> None:
    inner = known.inner
    chosen = torch.stack([_choose(inner, 0.2, np.random.default_rng(seed)) for seed in range(20)])
    assert not (chosen & ~inner).any()
    assert chosen.any(-1)[:, inner.any(-1)].all()
    assert 0.2 <= chosen[:, inner].double().mean() < 0.4
    everything = chosen.any(0)
    assert everything[inner].double().mean() > 0.95


def test_leading_vertices_are_those_with_a_path() -> None:
    batch = graphs(classes(NB101("small"), 60))
    leading = _leading(batch.incoming).numpy()
    for edges, found in zip(batch.incoming.numpy() > 0, leading, strict=True):
        expected = np.eye(len(edges), dtype=bool)
        for b in range(len(edges)):  # vertices are in topological order
            for a in np.flatnonzero(edges[b]):
                expected[b] |= expected[a]
        np.testing.assert_array_equal(found, expected)


def test_a_vertex_sees_only_what_leads_to_it() -> None:
    batch = graphs(classes(NB101("small"), 20))
    leading = _leading(batch.incoming)
    torch.manual_seed(0)
    network = CATE()._build().eval()
    before = network.vertices(batch, batch.ops)
    for vertex in range(1, 6):
        ops = batch.ops.clone()
        ops[:, vertex] += 1
        changed = (network.vertices(batch, ops) - before).abs().amax(-1) > 1e-6
        assert torch.equal(changed, leading[:, :, vertex])


def test_direct_edges_show() -> None:
    """An edge beside a path between the same vertices does not change what leads to what."""
    incoming = torch.zeros(2, 4, 4)
    incoming[:, [1, 2, 3], [0, 1, 2]] = 1
    incoming[1, 3, 0] = 1
    assert torch.equal(*_leading(incoming))
    ops = graphs(ArchBatch(SPACE, [[3, 0, 3, 0, 0, 3]])).ops[:, [0, 1, 3, 7]].repeat(2, 1, 1)
    both = Graphs(incoming, ops, torch.ones(2, 4))
    network = CATE()._build()
    torch.nn.init.ones_(network.direct)
    first, second = network.latents(both)
    assert not torch.allclose(first, second, atol=1e-4)


def test_settings_that_do_not_fit_are_told() -> None:
    with pytest.raises(ConfigError, match="hidden=64 is no multiple of heads=7"):
        CATE(heads=7)
    with pytest.raises(ConfigError, match="below 1, but is 1.5"):
        CATE(masked=1.5)
