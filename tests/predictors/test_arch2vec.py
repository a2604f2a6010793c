"""Arch2Vec: what its latent vectors tell of an architecture."""

import numpy as np
import pytest
import torch

from predictors.encodings.arch2vec import Arch2Vec
from predictors.encodings.corpus import corpus, mean_over_vertices
from predictors.graphs import graphs
from searchspaces.arch import ArchBatch
from searchspaces.nb201 import NB201
from tests.predictors.learned import chance, classes, nearness, quality, split_classes

SPACE = NB201("small")


SEEN, UNSEEN = split_classes(SPACE, 600, 400)


@pytest.fixture(scope="module")
def trained() -> Arch2Vec:
    encoding = Arch2Vec(latent=16, hidden=64, layers=3, epochs=12, batch=32, lr=3e-3)
    encoding.fit([SEEN])
    return encoding


def test_architectures_that_were_not_seen_are_decoded(trained: Arch2Vec) -> None:
    known = corpus(UNSEEN)
    found = quality(trained, known)
    assert found["operations"] > chance(known) + 0.3
    used = known.graphs.used > 0
    pairs = (used[:, :, None] & used[:, None, :]).triu(1)
    edges = float(known.graphs.incoming.mT[pairs].mean())
    assert found["edges"] > max(edges, 1 - edges) + 0.1
    assert 0 < found["architectures"] <= found["operations"]
    assert set(trained.facts["quality"][SPACE.fingerprint]) == set(found)


def test_near_cells_have_near_vectors(trained: Arch2Vec) -> None:
    assert nearness(trained, SPACE) < 0.8


def test_unused_vertices_do_not_count() -> None:
    batch = graphs(ArchBatch(SPACE, [[1, 0, 0, 0, 2, 0], [2, 3, 4, 1, 2, 3]]))
    x = torch.ones(2, 8, 3) * (batch.used[..., None] * 2 - 1)  # -1 where unused
    assert batch.used.sum() < 16
    np.testing.assert_array_equal(mean_over_vertices(x, batch), np.ones((2, 3)))


def test_the_order_of_vertices_makes_no_difference(trained: Arch2Vec) -> None:
    batch = graphs(classes(SPACE, 30))
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    network = Arch2Vec(latent=16, hidden=64, layers=3)._build()
    moved = type(batch)(batch.incoming[:, order][:, :, order], batch.ops[:, order], batch.used[:, order])
    torch.testing.assert_close(network.latents(moved), network.latents(batch), rtol=1e-4, atol=1e-5)
