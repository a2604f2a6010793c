"""What the tests of learned encodings share: small ones, and what they learn from."""

from copy import deepcopy
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from predictors.encodings.arch2vec import Arch2Vec
from predictors.encodings.cate import CATE
from predictors.encodings.corpus import Corpus
from predictors.encodings.learned import LearnedEncoding
from searchspaces.arch import ArchBatch
from searchspaces.genes import Gene, Mask, Rows
from searchspaces.network import INPUT, Network, NetworkBuilder
from searchspaces.space import Op, SearchSpace
from searchspaces.task import Task

TINY: dict[type[LearnedEncoding], dict[str, Any]] = {
    Arch2Vec: {"latent": 8, "hidden": 16, "layers": 2, "epochs": 2, "batch": 32},
    CATE: {"latent": 8, "hidden": 16, "heads": 2, "layers": 2, "cross_layers": 1, "epochs": 2, "batch": 32},
}


class Repeats(SearchSpace):
    """Chains of two to fifteen equal convolutions, so that each tells what the others are."""

    name = "repeats"
    genes = (Gene("kernel", (1, 3, 5, 7)), Gene("depth", tuple(range(2, 16)), ordered=True))

    @cached_property
    def ops(self) -> tuple[Op, ...]:
        """Input, output and four convolutions."""
        convs = (Op(f"conv{kernel}", "conv", kernel) for kernel in (1, 3, 5, 7))
        return (Op("input", "input"), Op("output", "output"), *convs)

    def network(self, row: NDArray[np.int64], task: Task) -> Network:
        """The chain and a classifier."""
        builder = NetworkBuilder(self.name, task.input_shape)
        x = INPUT
        for _ in range(row[1] + 2):
            x = builder.conv_bn(x, 4, (1, 3, 5, 7)[row[0]])
        return builder.build(builder.classifier(x, task.classes))

    def graph(self, rows: Rows) -> tuple[Mask, NDArray[np.int64]]:
        """Input, the convolutions in use, output."""
        place, last = np.arange(17), rows[:, 1:] + 3
        ops = np.where(place < last, rows[:, :1] + 2, np.where(place == last, 1, -1))
        ops[:, 0] = 0
        return np.eye(17, k=1, dtype=np.bool_) & (place <= last)[:, None, :], ops


def classes(space: SearchSpace, n: int, seed: int = 0) -> ArchBatch:
    """Architectures of different classes; at most `n`."""
    return ArchBatch.sample(space, n, np.random.default_rng(seed)).canonical().unique()


def split_classes(space: SearchSpace, seen: int, unseen: int) -> tuple[ArchBatch, ArchBatch]:
    """Architectures of different classes, uniformly over classes: some to learn from, others to test on."""
    rows = space.enumerate_classes()
    drawn = rows[np.random.default_rng(0).permutation(len(rows))[: seen + unseen]]
    return ArchBatch(space, drawn[:seen]), ArchBatch(space, drawn[seen:])


def chance(known: Corpus) -> float:
    """Share of the most frequent operation."""
    counts = torch.bincount(known.labels[known.inner])
    return float(counts.max() / counts.sum())


def quality(encoding: LearnedEncoding, known: Corpus) -> dict[str, float]:
    """How well the encoding's network does what it has learned, on a corpus."""
    assert encoding._network is not None
    return deepcopy(encoding._network).float().quality(known, np.random.default_rng(0))


def nearness(encoding: LearnedEncoding, space: SearchSpace, seed: int = 1) -> float:
    """Mean distance of architectures one edit apart, over that of any two of them."""
    rng = np.random.default_rng(seed)
    archs = classes(space, 200, seed)
    near = ArchBatch(space, space.mutate(archs.rows, rng))
    x, y = encoding.encode(archs), encoding.encode(near)
    far = x[rng.permutation(len(x))]
    return float(np.linalg.norm(x - y, axis=1).mean() / np.linalg.norm(x - far, axis=1).mean())
