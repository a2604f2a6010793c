"""Size as a proxy: hard to beat, and free."""

from math import prod
from typing import ClassVar, Literal

from proxies.base import Proxy
from proxies.probe import Probe
from searchspaces.network import Network, Node

# Operators with one operation per element of their output, beside convolutions, matrices and windows.
_PER_ELEMENT = {
    "BatchNormalization": 2,
    "LayerNormalization": 2,
    **dict.fromkeys(("Relu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Gelu", "Softmax"), 1),
}


class Params(Proxy):
    """Number of trainable parameters, those of normalisations and biases included."""

    name = "params"
    normalisation: ClassVar[Literal["linear", "log"]] = "log"

    def score(self, probe: Probe) -> float:
        """Return the number of trainable parameters."""
        return float(probe.network.params)


class Macs(Proxy):
    """Number of multiply-accumulate operations of convolutions and matrices for one image."""

    name = "macs"
    normalisation: ClassVar[Literal["linear", "log"]] = "log"

    def score(self, probe: Probe) -> float:
        """Return the multiply-accumulate operations for one image."""
        return float(probe.network.macs)


class Flops(Proxy):
    """Operations for one image, counted as in NAS-Bench-Suite-Zero (arXiv 2210.03230).

    A multiply-accumulate counts as one. To `macs` come two operations per element of a normalisation, one per element
    of an activation, and one per element of every window of a pooling. Biases, sums and products of tensors count
    nothing. (The published figures take a global pooling of 8×8 for windows of 9×9: a constant within a space.)
    """

    name = "flops"
    normalisation: ClassVar[Literal["linear", "log"]] = "log"

    def score(self, probe: Probe) -> float:
        """Return the operations for one image."""
        network = probe.network
        return float(network.macs + sum(_extra(network, node) for node in network.nodes))


def _extra(network: Network, node: Node) -> int:
    if node.op in ("MaxPool", "AveragePool"):
        return prod((*node.shape, *node.attributes["kernel_shape"]))
    if node.op == "GlobalAveragePool":
        return prod(network.shapes[node.inputs[0]])
    return _PER_ELEMENT.get(node.op, 0) * prod(node.shape)
