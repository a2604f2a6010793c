"""The graph convolutional network of BRP-NAS (arXiv 2007.08668) for latency."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from predictors.accuracy.encoded import Vector
from predictors.accuracy.gcn import Regressor
from predictors.encodings import Encoding
from predictors.latency.neural import LatencyNetwork
from predictors.training import GraphNetwork, Recipe, Samples


class LatencyGCN(LatencyNetwork):
    """The graph convolutional network of BRP-NAS (arXiv 2007.08668) on logarithms of latencies.

    Published is training on 900 samples of one device, by absolute errors, in batches of one sample. Here, logarithms
    are brought to a mean of 0 and a deviation of 1 on each device, errors are squared and batches are larger; the
    defaults are those of `GCN`. The network does not know of devices: on sources it learns what they have in common.
    In a chain of blocks it sees no more than kinds of blocks and their neighbours, not how far along the chain they
    are; an encoding given to its head tells.

    Args:
        encoding: Given to the head beside the graph; None for the graph alone.
        layers: Number of convolutions.
        width: Their width.
        dropout: Share of entries dropped after each; published for latency is 0.002.
        epochs: Passes over the sources; without any, over the samples.
        batch: Latencies per step.
        lr: Learning rate of the first step.
        weight_decay: Weight decay.
        finetune_epochs: Passes over the samples after those over sources.
        finetune_batch: Latencies per step there.
        finetune_lr: Learning rate of their first step.
        folds: Parts of the samples that are left out in turn to find the standard deviation; see `LatencyNetwork`.
        seed: Decides initial weights, order and dropout.

    Raises:
        ConfigError: If there is no epoch, or a batch is too small for a pair.
    """

    def __init__(
        self,
        encoding: Encoding | None = None,
        layers: int = 4,
        width: int = 128,
        dropout: float = 0.002,
        epochs: int = 250,
        batch: int = 128,
        lr: float = 2e-3,
        weight_decay: float = 5e-4,
        finetune_epochs: int = 50,
        finetune_batch: int = 16,
        finetune_lr: float = 1e-3,
        folds: int = 4,
        seed: int = 0,
    ) -> None:
        finetuning = Recipe(finetune_epochs, finetune_batch, finetune_lr, weight_decay)
        super().__init__(encoding, Recipe(epochs, batch, lr, weight_decay), finetuning, folds, seed)
        self.layers, self.width, self.dropout = layers, width, dropout

    def _network(self, features: int) -> GraphNetwork:
        return Regressor(features, self.layers, self.width, self.dropout)

    def _targets(self, y: Vector) -> Vector:
        logs = np.log(y)
        return np.asarray((logs - logs.mean()) / logs.std())

    def _loss(self, network: GraphNetwork, samples: Samples, generator: torch.Generator) -> Tensor:
        return functional.mse_loss(network.score(network.embed(samples.graphs), samples.features), samples.y)
