"""Architectures as batches of graphs, in terms that hold across search spaces."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import Any
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from predictors.encodings.base import search_space
from searchspaces.arch import ArchBatch
from searchspaces.network import OPERATORS
from searchspaces.space import Op

_SAME = {"MaxPool": "max_pool", "AveragePool": "average_pool"}  # ONNX's names of kinds that have one of our own
_NONE = "none"
_KINDS = (
    *("input", "output", _NONE, "skip", "conv", "separable", "inverted_residual", "max_pool", "average_pool"),
    *(operator for operator in OPERATORS if operator not in _SAME),
)
_BUCKETS = 8
_NUMBERS = 5
WIDTH = len(_KINDS) + _BUCKETS + _NUMBERS
INPUT, OUTPUT = 0, 1  # entries of a descriptor vector, and ids of these operations in every space


def op_vectors(ops: Sequence[Op]) -> NDArray[np.float32]:
    """Return the descriptor vectors of operations, shape `(len(ops), WIDTH)`; entries are of the order of 1.

    A vector holds the kind (one-hot; kinds that are not in the vocabulary share a few hashed entries), the logarithms
    of kernel, expansion, groups and stride, and a flag for depthwise convolutions. It is the same in every space.
    """
    vectors = np.zeros((len(ops), WIDTH), dtype=np.float32)
    for vector, op in zip(vectors, ops, strict=True):
        kind = _SAME.get(op.kind, op.kind)
        place = _KINDS.index(kind) if kind in _KINDS else len(_KINDS) + crc32(kind.encode()) % _BUCKETS
        vector[place] = 1
        numbers = (op.kernel, op.expansion, max(op.groups, 1), op.stride)
        vector[-_NUMBERS:] = [*map(log, numbers), op.groups == 0]
    return vectors


@dataclass(frozen=True)
class Graphs:
    """Architectures as dense graphs of `v` vertices; smaller ones have unused vertices, which have no edges.

    Attributes:
        incoming: Shape `(n, v, v)`: 1 at `[i, b, a]` for an edge from vertex a to vertex b, else 0.
        ops: Descriptor vectors `(n, v, WIDTH)`; 0 for unused vertices.
        used: Shape `(n, v)`: 1 for vertices in use, else 0.
    """

    incoming: Tensor
    ops: Tensor
    used: Tensor

    def __len__(self) -> int:
        return len(self.used)

    def __getitem__(self, index: Any) -> "Graphs":
        return Graphs(self.incoming[index], self.ops[index], self.used[index])

    @property
    def inputs(self) -> Tensor:
        """Shape `(n, v)`: 1 for the input vertex."""
        return self.ops[..., INPUT]

    @property
    def outputs(self) -> Tensor:
        """Shape `(n, v)`: 1 for the output vertex."""
        return self.ops[..., OUTPUT]


def graphs(archs: ArchBatch) -> Graphs:
    """Return the graphs of the architectures' canonical rows, so that those of one class are the same.

    A vertex of kind `none` passes nothing on: it counts as unused.

    Raises:
        ConfigError: If the rows are no networks.
    """
    space = search_space(archs)
    adjacency, ops = space.graph(space.canonical(archs.rows))
    idle = np.array([op.kind == _NONE for op in space.ops] + [True])  # id -1, no operation, finds the last
    used = ~idle[ops]
    edges = adjacency.transpose(0, 2, 1) & used[:, :, None] & used[:, None, :]
    vectors = np.concatenate([op_vectors(space.ops), np.zeros((1, WIDTH), dtype=np.float32)])
    vectors[idle] = 0
    return Graphs(
        torch.from_numpy(edges.astype(np.float32)),
        torch.from_numpy(vectors[ops]),
        torch.from_numpy(used.astype(np.float32)),
    )
