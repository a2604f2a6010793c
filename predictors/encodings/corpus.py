"""Architectures as learned encodings see them in training, and what their networks have in common."""

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from predictors.graphs import WIDTH, Graphs, graphs
from searchspaces.arch import ArchBatch

Picks = NDArray[np.int64]


@dataclass(frozen=True)
class Corpus:
    """Architectures of one space to learn from.

    Attributes:
        graphs: Their graphs.
        words: The distinct descriptor vectors of their operations, shape `(k, WIDTH)`.
        labels: Which of `words` each vertex has, shape `(n, v)`; of no meaning for unused vertices.
        costs: What each computes, in any unit, shape `(n,)`; None where nobody asks.
    """

    graphs: Graphs
    words: Tensor
    labels: Tensor
    costs: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.graphs)

    def __getitem__(self, picks: Picks) -> "Corpus":
        costs = None if self.costs is None else self.costs[picks]
        return Corpus(self.graphs[picks], self.words, self.labels[picks], costs)

    @property
    def inner(self) -> Tensor:
        """Tells of each vertex whether it is in use, and neither input nor output; shape `(n, v)`, bool."""
        return (self.graphs.used - self.graphs.inputs - self.graphs.outputs) > 0


def corpus(archs: ArchBatch, costs: NDArray[np.float64] | None = None) -> Corpus:
    """Return a corpus of architectures.

    Raises:
        ConfigError: If their space gives no graphs.
    """
    batch = graphs(archs)
    used = batch.used > 0
    words, found = torch.unique(batch.ops[used], dim=0, return_inverse=True)
    labels = torch.zeros(used.shape, dtype=torch.int64)
    labels[used] = found
    return Corpus(batch, words, labels, costs)


class GraphEncoder(nn.Module):
    """A network that turns graphs into vectors, and learns without figures."""

    @abstractmethod
    def latents(self, graphs: Graphs) -> Tensor:
        """Return one vector per graph, shape `(n, latent)`."""

    @abstractmethod
    def loss(self, corpus: Corpus, picks: Picks, rng: np.random.Generator) -> Tensor:
        """Return the loss `()` on some architectures of a corpus."""

    @abstractmethod
    def quality(self, corpus: Corpus, rng: np.random.Generator) -> dict[str, float]:
        """Return how well the network does what it learns, on a corpus it has not seen."""


def mean_over_vertices(x: Tensor, graphs: Graphs) -> Tensor:
    """Return the mean over used vertices of `x (n, v, d)`, shape `(n, d)`."""
    used = graphs.used[..., None]
    return (x * used).sum(1) / used.sum(1)


class OpDecoder(nn.Module):
    """Tells operations from vectors, by comparing these with vectors that a small network gives to descriptors.

    So operations that were never seen can be told, too.

    Args:
        inputs: Entries of a vector.
        width: Entries of the vectors that are compared.
    """

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.point = nn.Linear(inputs, width)
        self.word = nn.Sequential(nn.Linear(WIDTH, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, x: Tensor, words: Tensor) -> Tensor:
        """Return how well vectors `(…, inputs)` fit the operations `words (k, WIDTH)`: logits `(…, k)`."""
        logits: Tensor = self.point(x) @ self.word(words).T
        return logits
