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
        return _attention(mask, h * self.attend, h)

    def forward(self, projected: Sequence[Tensor], incoming: Tensor, mask: Tensor, gates: Sequence[Tensor]) -> Tensor:
        """Return new features `(n, v, outputs)`.

        Args:
            projected: `split(project, x, 2)` of features x, each `(n, v, outputs)`.
            incoming: Shape `(n, v, v)`: 1 at `[i, b, a]` for an edge from a to b.
            mask: As `attention_mask` returns it.
            gates: Of the flow and of the attention, each `(n, v, outputs)`.
        """
        flow, h = projected
        return self._average(_flow(flow, self.bias, incoming, gates[0]), self.weights(h, mask) @ h, gates[1])

    def arriving(self, x: Tensor, at: Tensor, incoming: Tensor, mask: Tensor, gates: Sequence[Tensor]) -> Tensor:
        """Return the new features `(n, 1, outputs)` of one vertex each: its neighbours are taken in, then projected.

        Args:
            x: Features `(n, v, inputs)`.
            at: Shape `(n, 1, v)`: 1 for that vertex, else 0.
            incoming: As for `forward`.
            mask: As for `forward`.
            gates: Of that vertex, each `(n, 1, outputs)`.
        """
        flow, h = self.project.weight.chunk(2)
        own, before = at @ x, (at @ incoming) @ x
        of_vertex = mask.gather(1, at.argmax(-1, keepdim=True).expand(-1, 1, mask.shape[-1]))
        attention = _attention(of_vertex, functional.linear(own, h) * self.attend @ h, x)
        carried = torch.addcmul(functional.linear(own, flow) + self.bias, gates[0], functional.linear(before, flow))
        return self._average(carried, functional.linear(attention @ x, h), gates[1])

    def _average(self, flow: Tensor, attended: Tensor, gate: Tensor) -> Tensor:
        return flow.lerp(self.norm(gate * attended), 0.5)


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


def split(linear: nn.Linear, x: Tensor, parts: int) -> list[Tensor]:
    """Return the parts of `linear(x)`, each in memory of its own: the gradients of views take a copy to be joined."""
    biases = [None] * parts if linear.bias is None else linear.bias.chunk(parts)
    return [functional.linear(x, *pair) for pair in zip(linear.weight.chunk(parts), biases, strict=True)]


def _attention(mask: Tensor, queries: Tensor, keys: Tensor) -> Tensor:
    return functional.leaky_relu(torch.baddbmm(mask, queries, keys.mT), 0.2).softmax(-1)


def _flow(projected: Tensor, bias: Tensor, incoming: Tensor, gate: Tensor) -> Tensor:
    return torch.addcmul(projected + bias, gate, incoming @ projected)
