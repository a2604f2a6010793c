"""The binary relation predictor of BRP-NAS (arXiv 2007.08668)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from predictors.accuracy.gcn import GCN, GraphConvolutions
from predictors.base import Arrays
from predictors.training import GraphNetwork, Samples
from searchspaces.genes import GeneSpace

_SURE = 1e-9  # probability below which a win counts as impossible
_CHUNK = 1024  # architectures compared with the reference at a time


class Comparator(GraphConvolutions):
    """Graph convolutions with a linear head on pairs of embeddings.

    Args:
        features: Entries of the supplementary encoding; 0 for none.
        layers: Number of convolutions.
        width: Their width.
        dropout: Share of entries dropped after each.

    Attributes:
        reference: What architectures are compared with to score them, shape `(m, width + features)`.
    """

    def __init__(self, features: int, layers: int, width: int, dropout: float) -> None:
        super().__init__(layers, width, dropout)
        self.first = nn.Linear(width + features, 1)
        self.second = nn.Linear(width + features, 1, bias=False)
        self.reference = torch.zeros(0, width + features)

    def compare(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the log odds `(n, m)` that each of `a (n, d)` is better than each of `b (m, d)`.

        A linear layer of two concatenated vectors is the sum of one of each: per pair, there is a sum to compute.
        """
        odds: Tensor = self.first(a) + self.second(b)[:, 0]
        return odds

    def score(self, embedding: Tensor, features: Tensor) -> Tensor:
        """Return the normal score `(n,)` of the mean probability to be better than one of the reference.

        Each pair is asked in both orders, as the answers may contradict each other.
        """
        vectors = torch.cat([embedding, features], 1)
        wins = [
            self.compare(part, self.reference).double().sigmoid().mean(1)
            + 1
            - self.compare(self.reference, part).double().sigmoid().mean(0)
            for part in torch.split(vectors, _CHUNK)
        ]
        scores: Tensor = torch.special.ndtri((torch.cat(wins) / 2).clamp(_SURE, 1 - _SURE))
        return scores


class BRP(GCN):
    """The binary relation predictor of BRP-NAS (arXiv 2007.08668): tells which of two architectures is better.

    All ordered pairs of a batch are compared with the softmax of their two targets, by the cross-entropy (which differs
    from the published divergence by a constant); published are 64 pairs per step. Each architecture is embedded once
    per step, not once per pair. Arguments are those of `GCN`.

    A comparator need not be transitive. So architectures are scored by their mean probability to be better than a
    fixed reference, the training samples, which makes an order in any case.
    """

    network: Comparator

    def _network(self, features: int) -> GraphNetwork:
        return Comparator(features, self.layers, self.width, self.dropout)

    def _loss(self, network: GraphNetwork, samples: Samples, generator: torch.Generator) -> Tensor:
        assert isinstance(network, Comparator)
        vectors = _vectors(network, samples)
        truth = (samples.y[:, None] - samples.y).sigmoid()
        return functional.binary_cross_entropy_with_logits(network.compare(vectors, vectors), truth)

    @torch.no_grad()
    def _finish(self, samples: Samples) -> None:
        self.network.reference = _vectors(self.network, samples)

    def _state(self) -> tuple[Arrays, dict[str, Any]]:
        arrays, facts = super()._state()
        return arrays | {"reference": self.network.reference.numpy()}, facts

    def _restore(self, space: GeneSpace, arrays: Arrays, facts: Mapping[str, Any]) -> None:
        super()._restore(space, arrays, facts)
        self.network.reference = torch.from_numpy(arrays["reference"])


def _vectors(network: Comparator, samples: Samples) -> Tensor:
    return torch.cat([network.embed(samples.graphs), samples.features], 1)
