"""Layers over dense graphs (arXiv 2403.02484): flow along edges and attention to them, gated by operations.

A message along an edge is gated by the operation at its end, entry by entry.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class GraphFlow(nn.Module):
    """Dense graph flow: a vertex's own features plus the gated sum of those of the vertices before it.

    Args:
        inputs: Features of a vertex on entry.
        outputs: Features on exit.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.project = nn.Linear(inputs, outputs, bias=False)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor, incoming: Tensor, gate: Tensor) -> Tensor:
        """Return new features `(n, v, outputs)`.

        Args:
            x: Features `(n, v, inputs)`.
            incoming: Shape `(n, v, v)`: 1 at `[i, b, a]` for an edge from a to b.
            gate: Shape `(n, v, outputs)`.
        """
        return _flow(self.project(x), self.bias, incoming, gate)


class FlowAttention(nn.Module):
    """The average of dense graph flow and graph attention.

    The attention of vertex b to a is the softmax, over b itself and the vertices before it, of
    `LeakyReLU(w · (h_a * h_b))` with projected features h. All other pairs of vertices are masked, so they have a
    weight of exactly 0 (the published code multiplies their logits by 0, which leaves them a share).

    Args:
        inputs: Features of a vertex on entry.
        outputs: Features on exit.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.project = nn.Linear(inputs, 2 * outputs, bias=False)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.attend = nn.Parameter(torch.empty(outputs).uniform_(-(outputs**-0.5), outputs**-0.5))
        self.norm = nn.LayerNorm(outputs)

    def weights(self, h: Tensor, mask: Tensor) -> Tensor:
        """Return the attention `(n, v, v)` of projected features `(n, v, outputs)`; `mask` is as for `forward`."""
        return functional.leaky_relu(torch.baddbmm(mask, h * self.attend, h.mT), 0.2).softmax(-1)

    def forward(self, projected: Tensor, incoming: Tensor, mask: Tensor, gates: Tensor) -> Tensor:
        """Return new features `(n, v, outputs)`.

        Args:
            projected: `project(x)` of features x, shape `(n, v, 2 * outputs)`.
            incoming: Shape `(n, v, v)`: 1 at `[i, b, a]` for an edge from a to b.
            mask: As `attention_mask` returns it.
            gates: Of the flow and of the attention, shape `(n, v, 2 * outputs)`.
        """
        flow, h = projected.chunk(2, -1)
        flow_gate, gate = gates.chunk(2, -1)
        attended: Tensor = self.norm(gate * (self.weights(h, mask) @ h))
        return (_flow(flow, self.bias, incoming, flow_gate) + attended) / 2


def attention_mask(incoming: Tensor) -> Tensor:
    """Return 0 for edges and from each vertex to itself, -inf elsewhere, shape `(n, v, v)`."""
    closed = (incoming + torch.eye(incoming.shape[-1])) == 0
    return torch.zeros_like(incoming).masked_fill_(closed, -torch.inf)


def mlp(inputs: int, hidden: Sequence[int], outputs: int, dropout: float = 0.0) -> nn.Sequential:
    """Return linear layers with ReLU and dropout between them."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(inputs, width), nn.ReLU(), nn.Dropout(dropout)]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


def _flow(projected: Tensor, bias: Tensor, incoming: Tensor, gate: Tensor) -> Tensor:
    return torch.addcmul(projected + bias, gate, incoming @ projected)
