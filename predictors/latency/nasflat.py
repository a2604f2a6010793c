"""NASFLAT (arXiv 2403.02446): a graph network in which every operation knows the device."""

from math import log
from typing import cast

import torch
from torch import Tensor, nn

from predictors.accuracy.layers import FlowAttention, attention_mask, mlp, split
from predictors.encodings import Encoding
from predictors.graphs import WIDTH, Graphs
from predictors.latency.neural import DeviceEmbedding, DeviceNetwork, DeviceSamples
from predictors.training import GraphNetwork, Recipe, Samples, hinge_loss

_OPS, _HARDWARE, _POSITIONS, _NODES, _HEAD = 40, 8, 48, 96, (200, 200, 200)
_TYPICAL = 8  # vertices by whose number the readout is divided
_LONGEST = 1000.0  # wave of a position, in vertices
_DROPOUT = 0.1  # of the multi-layer perceptrons


class Passes(nn.Module):
    """Layers of flow and attention, one after the other, gated by operations.

    Args:
        inputs: Features of a vertex on entry.
        ops: Entries of an operation.
        width: Features of a vertex in each layer.
        layers: Number of layers.
    """

    def __init__(self, inputs: int, ops: int, width: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(FlowAttention(width if i else inputs, width) for i in range(layers))
        self.gates = nn.ModuleList(nn.Linear(ops, 2 * width) for _ in range(layers))

    def forward(self, x: Tensor, ops: Tensor, incoming: Tensor, mask: Tensor, at: Tensor | None = None) -> Tensor:
        """Return features `(n, v, width)` of vertices with features x `(n or 1, v, inputs)` and operations.

        With `at`, shape `(n, 1, v)`, those of one vertex each, `(n, 1, width)`, and what is not needed for them is left
        out.
        """
        pairs = zip(
            cast("list[FlowAttention]", list(self.layers)), cast("list[nn.Linear]", list(self.gates)), strict=True
        )
        for i, (layer, gate) in enumerate(pairs):
            x = x.relu() if i else x
            if at is not None and i == len(self.layers) - 1:
                return layer.arriving(x, at, incoming, mask, _opened(gate, at @ ops))
            projected = [part.expand(len(ops), -1, -1) for part in split(layer.project, x, 2)]
            x = layer(projected, incoming, mask, _opened(gate, ops))
        return x


def _opened(gate: nn.Linear, ops: Tensor) -> list[Tensor]:
    return [part.sigmoid() for part in split(gate, ops, 2)]


class NasflatNetwork(DeviceNetwork):
    """The network of `NASFLAT`.

    Args:
        features: Entries of the supplementary encoding; 0 for none.
        devices: Number of devices.
        layers: Layers of the main pass.
        width: Their width.
    """

    def __init__(self, features: int, devices: int, layers: int, width: int) -> None:
        super().__init__(devices, _HARDWARE)
        self.ops = nn.Linear(WIDTH, _OPS)
        nn.init.normal_(self.ops.weight)  # as rows of a table of embeddings; smaller ones leave all gates alike
        ops = _OPS + _HARDWARE
        self.refining = Passes(ops, ops, width, 2)
        self.summary = mlp(width, [width, width], width)
        self.refined = mlp(width + ops, [width], ops)
        self.positions = nn.Linear(_POSITIONS, _NODES)
        self.passes = Passes(_NODES, ops, width, layers)
        self.supplement = mlp(features, [128, 128], _OPS + _HARDWARE, _DROPOUT) if features else None
        self.head = mlp(width + (_OPS + _HARDWARE if features else 0), _HEAD, 1, _DROPOUT)

    def embed(self, graphs: Graphs, device: Tensor | None = None) -> Tensor:
        """Return vectors `(n, width)`: the sum over used vertices, divided by a constant."""
        incoming, mask, vertices = graphs.incoming, attention_mask(graphs.incoming), graphs.used.shape[1]
        hardware = self.of(device, len(graphs))[:, None].expand(-1, vertices, -1)
        ops = torch.cat([self.ops(graphs.ops), hardware], -1)
        arrived = self.refining(ops, ops, incoming, mask, graphs.outputs[:, None])
        summary = self.summary(arrived).expand(-1, vertices, -1)
        ops = self.refined(torch.cat([ops, summary], -1))
        y = self.passes(self.positions(_waves(vertices))[None], ops, incoming, mask)
        embedding: Tensor = (graphs.used[:, None] @ y)[:, 0] / _TYPICAL
        return embedding

    def score(self, embedding: Tensor, features: Tensor, device: Tensor | None = None) -> Tensor:
        """Return the scores `(n,)`."""
        if self.supplement is not None:
            embedding = torch.cat([embedding, self.supplement(features)], 1)
        scores: Tensor = self.head(embedding)[:, 0]
        return scores


def _waves(vertices: int) -> Tensor:
    """Return sines and cosines of the vertices' positions, shape `(vertices, _POSITIONS)`."""
    half = _POSITIONS // 2
    rates = torch.exp(-log(_LONGEST) * torch.arange(half) / half)
    angles = torch.arange(vertices)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], 1)


class NASFLAT(DeviceEmbedding):
    """NASFLAT (arXiv 2403.02446): a graph network trained to rank latencies on many devices, then on a new one.

    A learned vector of the device is joined to the embedding of every operation. A small network of two layers over
    these refines the embeddings of operations by what arrives at the output, and three layers gated by them make
    features of vertices. Their sum and the encoding, through a multi-layer perceptron, are scored by another. The loss
    is the pairwise hinge, on at most four pairs per sample of the batch. Batches mix devices, and pairs, too:
    latencies are scaled to the range from 0 to 1 on each.

    Different from the published code: operations are embedded from descriptors in place of a table, so sources may be
    of other spaces; attention is masked; chains of blocks have their edges; positions of vertices are waves in place
    of a table; and the mean over vertices is a sum divided by a constant, so that it does not depend on the batch.

    Args:
        encoding: Given to the head, through a multi-layer perceptron, beside the graph; None for the graph alone.
        layers: Layers of the main network.
        width: Their width.
        margin: By how much scores of a pair should differ.
        across: Whether pairs may be of two devices.
        epochs: Passes over the sources; without any, over the samples.
        batch: Latencies per step.
        lr: Learning rate of the first step.
        weight_decay: Weight decay.
        finetune_epochs: Passes over the samples after those over sources; published are 40 for cells, 30 for chains.
        finetune_batch: Latencies per step there.
        finetune_lr: Learning rate of their first step; published are 3e-3 for cells, 1e-3 for chains.
        folds: Parts of the samples that are left out in turn to find the standard deviation; see `LatencyNetwork`.
        seed: Decides initial weights, order and dropout.

    Raises:
        ConfigError: If there is no epoch, or a batch is too small for a pair.
    """

    def __init__(
        self,
        encoding: Encoding | None = None,
        layers: int = 3,
        width: int = 128,
        margin: float = 0.1,
        across: bool = True,
        epochs: int = 150,
        batch: int = 128,
        lr: float = 1e-3,
        weight_decay: float = 1e-5,
        finetune_epochs: int = 40,
        finetune_batch: int = 16,
        finetune_lr: float = 3e-3,
        folds: int = 4,
        seed: int = 0,
    ) -> None:
        finetuning = Recipe(finetune_epochs, finetune_batch, finetune_lr, weight_decay)
        super().__init__(encoding, Recipe(epochs, batch, lr, weight_decay), finetuning, folds, seed)
        self.layers, self.width, self.margin, self.across = layers, width, margin, across

    def _network_of(self, features: int, devices: int) -> DeviceNetwork:
        return NasflatNetwork(features, devices, self.layers, self.width)

    def _loss(self, network: GraphNetwork, samples: Samples, generator: torch.Generator) -> Tensor:
        assert isinstance(samples, DeviceSamples)
        group = None if self.across else samples.device
        return hinge_loss(network(samples), samples.y, self.margin, 4 * len(samples), generator, group)
