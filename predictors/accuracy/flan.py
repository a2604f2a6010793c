"""FLAN (arXiv 2403.02484): graph flow and attention, gated by embeddings of operations."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from predictors.accuracy.layers import FlowAttention, GraphFlow, attention_mask, mlp, split
from predictors.encodings import Encoding
from predictors.graphs import WIDTH, Graphs
from predictors.training import GraphNetwork, NeuralPredictor, Samples, hinge_loss

_OPS, _NODES, _HEAD = 48, 96, (200, 200, 200)
_UPDATE = 0.1  # step by which a backward pass changes embeddings of operations
_DROPOUT = 0.1  # of the multi-layer perceptrons


class FlanNetwork(GraphNetwork):
    """The network of `FLAN`.

    Args:
        features: Entries of the supplementary encoding; 0 for none.
        layers: Layers of a pass.
        width: Their width.
        timesteps: Forward passes.
    """

    def __init__(self, features: int, layers: int, width: int, timesteps: int) -> None:
        super().__init__()
        self.timesteps = timesteps
        self.ops = nn.Linear(WIDTH, _OPS)
        nn.init.normal_(self.ops.weight)  # as rows of a table of embeddings; smaller ones leave all gates alike
        self.nodes = nn.Parameter(torch.randn(2, _NODES))
        self.forward_layers = nn.ModuleList(FlowAttention(width if i else _NODES, width) for i in range(layers))
        self.forward_gates = nn.Linear(_OPS, 2 * layers * width)
        if timesteps > 1:
            self.convert = mlp(width, [width], width)
            self.backward_layers = nn.ModuleList(GraphFlow(width, width) for _ in range(layers))
            self.backward_gates = nn.Linear(_OPS, layers * width)
            self.update = mlp(_OPS + 2 * width, [width], _OPS)
        self.supplement = mlp(features, [128, 128], _OPS, _DROPOUT) if features else None
        self.head = mlp(width + (_OPS if features else 0), _HEAD, 1, _DROPOUT)

    def embed(self, graphs: Graphs) -> Tensor:
        """Return vectors `(n, width)`: the sum over used vertices but the input, by the root of their number."""
        ops, mask, inputs = self.ops(graphs.ops), attention_mask(graphs.incoming), graphs.inputs[..., None]
        nodes = inputs * self.nodes[0] + (1 - inputs) * self.nodes[1]
        first = split(self._attentions[0].project, nodes, 2)  # operations enter by the gates alone: one for all passes
        y = self._forward_pass(first, graphs.incoming, mask, ops)
        for _ in range(self.timesteps - 1):
            back = self._backward_pass(y, graphs, ops)
            ops = ops + _UPDATE * self.update(torch.cat([ops.detach(), y.detach(), back], -1))
            y = self._forward_pass(first, graphs.incoming, mask, ops)
        read = graphs.used - graphs.inputs
        return (read[:, None] @ y)[:, 0] / read.sum(1, keepdim=True).sqrt()

    @property
    def _attentions(self) -> list[FlowAttention]:
        return cast("list[FlowAttention]", list(self.forward_layers))

    def _forward_pass(self, first: Sequence[Tensor], incoming: Tensor, mask: Tensor, ops: Tensor) -> Tensor:
        gates = [gate.sigmoid() for gate in split(self.forward_gates, ops, 2 * len(self.forward_layers))]
        y: Tensor = self._attentions[0](first, incoming, mask, gates[:2])
        for i, layer in enumerate(self._attentions[1:], 1):
            y = layer(split(layer.project, y.relu(), 2), incoming, mask, gates[2 * i : 2 * i + 2])
        return y

    def _backward_pass(self, y: Tensor, graphs: Graphs, ops: Tensor) -> Tensor:
        """Send what arrived at the output back along the edges."""
        outputs, outgoing = graphs.outputs[:, None], graphs.incoming.mT
        gates = [gate.sigmoid() for gate in split(self.backward_gates, ops, len(self.backward_layers))]
        back: Tensor = outputs.mT * self.convert(outputs @ y)
        for i, (layer, gate) in enumerate(zip(self.backward_layers, gates, strict=True)):
            back = layer(back.relu() if i else back, outgoing, gate)
        return back

    def score(self, embedding: Tensor, features: Tensor) -> Tensor:
        """Return the scores `(n,)`."""
        if self.supplement is not None:
            embedding = torch.cat([embedding, self.supplement(features)], 1)
        scores: Tensor = self.head(embedding)[:, 0]
        return scores


class FLAN(NeuralPredictor):
    """FLAN (arXiv 2403.02484): a graph network that is trained to rank.

    Vertices pass features along the edges, and their operations open gates for them. A layer is the average of dense
    graph flow and graph attention. After a forward pass, what arrived at the output is sent back along the edges and
    changes the embedding of each operation by a tenth of what it tells; gradients do not go through the embedding and
    the forward features that are asked. Then follows another forward pass. The loss is the pairwise hinge, on at most
    four pairs per sample of the batch.

    Different from the published code: operations are embedded from descriptors in place of tables by space, attention
    is masked, the backward pass is graph flow alone (there an option), and the readout divides by the root of the
    number of vertices in place of the largest number in the space, so that it does not depend on the batch. Two-cell
    spaces have no merging network.

    With the published `batch=8 lr=1e-3`, a fit takes a third to a half more time, and ranks as well (NAS-Bench-201,
    three seeds, Kendall tau 0.69 to 0.68 at 40 samples, 0.77 to 0.77 at 78).

    Args:
        encoding: Given to the head, through a multi-layer perceptron, beside the graph; None for the graph alone.
        layers: Layers of a pass.
        width: Their width.
        timesteps: Forward passes; 1 for no backward pass.
        margin: By how much scores of a pair should differ.
        epochs: Passes over the samples; with sources, over these.
        batch: Samples per step.
        lr: Learning rate of the first step.
        weight_decay: Weight decay.
        finetune_epochs: Passes over the samples after those over sources.
        finetune_lr: Learning rate of their first step.
        seed: Decides initial weights, order and dropout.

    Raises:
        ConfigError: If there is no epoch, or a batch is too small for a pair.
    """

    def __init__(
        self,
        encoding: Encoding | None = None,
        layers: int = 3,
        width: int = 128,
        timesteps: int = 2,
        margin: float = 0.1,
        epochs: int = 150,
        batch: int = 16,
        lr: float = 2e-3,
        weight_decay: float = 1e-5,
        finetune_epochs: int = 30,
        finetune_lr: float = 1e-3,
        seed: int = 0,
    ) -> None:
        super().__init__(encoding, epochs, batch, lr, weight_decay, finetune_epochs, finetune_lr, seed)
        self.layers, self.width, self.timesteps, self.margin = layers, width, timesteps, margin

    def _network(self, features: int) -> GraphNetwork:
        return FlanNetwork(features, self.layers, self.width, self.timesteps)

    def _loss(self, network: GraphNetwork, samples: Samples, generator: torch.Generator) -> Tensor:
        scores = network.score(network.embed(samples.graphs), samples.features)
        return hinge_loss(scores, samples.y, self.margin, 4 * len(samples), generator)
