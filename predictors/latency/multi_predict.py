"""Multi-Predict (arXiv 2306.02459): a vector of the architecture, and a learned one of the device."""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from predictors.accuracy.layers import mlp
from predictors.base import SourceSamples
from predictors.encodings import Encoding
from predictors.graphs import Graphs
from predictors.latency.neural import DeviceEmbedding, DeviceNetwork, DeviceSamples
from predictors.training import GraphNetwork, Recipe, Samples

_HARDWARE = 8


class MultiPredictNetwork(DeviceNetwork):
    """A multi-layer perceptron over the vectors of an architecture and of a device.

    Args:
        features: Entries of the encoding.
        devices: Number of devices.
        layers: Hidden layers.
        width: Their width.
    """

    def __init__(self, features: int, devices: int, layers: int, width: int) -> None:
        super().__init__(devices, _HARDWARE)
        self.head = mlp(features + _HARDWARE, [width] * layers, 1)

    def embed(self, graphs: Graphs, device: Tensor | None = None) -> Tensor:
        """Return the vectors `(n, 8)` of the devices: the graph does not matter."""
        return self.of(device, len(graphs))

    def score(self, embedding: Tensor, features: Tensor, device: Tensor | None = None) -> Tensor:
        """Return the scores `(n,)`, between 0 and 1."""
        scores: Tensor = self.head(torch.cat([features, embedding], 1))[:, 0].sigmoid()
        return scores


class Committee(GraphNetwork):
    """Networks of one device whose scores are averaged.

    Args:
        members: The networks.
    """

    def __init__(self, members: list[MultiPredictNetwork]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def embed(self, graphs: Graphs) -> Tensor:
        """Return the members' embeddings side by side, shape `(n, members * 8)`."""
        return torch.cat([member.embed(graphs) for member in self._members], 1)

    def score(self, embedding: Tensor, features: Tensor) -> Tensor:
        """Return the mean scores `(n,)`."""
        parts = embedding.chunk(len(self.members), 1)
        scores = [member.score(part, features) for member, part in zip(self._members, parts, strict=True)]
        return torch.stack(scores).mean(0)

    @property
    def _members(self) -> list[MultiPredictNetwork]:
        return cast("list[MultiPredictNetwork]", list(self.members))


class MultiPredict(DeviceEmbedding):
    """Multi-Predict (arXiv 2306.02459): a multi-layer perceptron over an encoding and a learned vector of the device.

    It learns latencies scaled to the range from 0 to 1 on each device, by absolute errors. The fine-tuning is repeated
    and its results are averaged. An encoding that has the same columns in several spaces carries over between them:
    published is a vector of zero-cost scores. Of what it is given of a graph, nothing is read.

    Args:
        encoding: What architectures are described by.
        layers: Hidden layers.
        width: Their width.
        repeats: Fine-tunings, which differ by the order of the samples.
        epochs: Passes over the sources; without any, over the samples.
        batch: Latencies per step.
        lr: Learning rate of the first step.
        weight_decay: Weight decay.
        finetune_epochs: Passes over the samples after those over sources.
        finetune_batch: Latencies per step there.
        finetune_lr: Learning rate of their first step.
        folds: Parts of the samples that are left out in turn to find the standard deviation; see `LatencyNetwork`.
        seed: Decides initial weights and order.

    Raises:
        ConfigError: If there is no epoch, or a batch is too small for a pair.
    """

    def __init__(
        self,
        encoding: Encoding,
        layers: int = 3,
        width: int = 512,
        repeats: int = 10,
        epochs: int = 150,
        batch: int = 128,
        lr: float = 4e-4,
        weight_decay: float = 5e-4,
        finetune_epochs: int = 50,
        finetune_batch: int = 16,
        finetune_lr: float = 4e-4,
        folds: int = 4,
        seed: int = 0,
    ) -> None:
        finetuning = Recipe(finetune_epochs, finetune_batch, finetune_lr, weight_decay)
        super().__init__(encoding, Recipe(epochs, batch, lr, weight_decay), finetuning, folds, seed)
        self.layers, self.width, self.repeats = layers, width, repeats

    def _network_of(self, features: int, devices: int) -> DeviceNetwork:
        return MultiPredictNetwork(features, devices, self.layers, self.width)

    def _network(self, features: int) -> GraphNetwork:
        return Committee([MultiPredictNetwork(features, 1, self.layers, self.width) for _ in range(self.repeats)])

    def _adapted(self, own: SourceSamples, seed: int) -> GraphNetwork:
        return self._committee(own, seed, self.repeats)

    def _tried(self, own: SourceSamples) -> GraphNetwork:
        return self._committee(own, self.seed, 1)  # repeated ones differ little

    def _committee(self, own: SourceSamples, seed: int, members: int) -> GraphNetwork:
        found = [super(MultiPredict, self)._adapted(own, seed + i) for i in range(members)]
        return Committee(cast("list[MultiPredictNetwork]", found)).eval()

    def _loss(self, network: GraphNetwork, samples: Samples, generator: torch.Generator) -> Tensor:
        assert isinstance(samples, DeviceSamples)
        return functional.l1_loss(network(samples), samples.y)
