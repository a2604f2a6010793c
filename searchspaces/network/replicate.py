"""Several copies of a network side by side in one, as groups of channels.

Small networks leave a processor idle between operators. Copies that are trained under different seeds can share each
operator: copy j of k computes on the j-th k-th of all channels, and no number passes from one copy to another.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from searchspaces.errors import NetworkError
from searchspaces.network.graph import INPUT, Network, Node
from searchspaces.network.operators import Shape
from searchspaces.network.weights import Arrays

_CHANNELWISE = {
    "BatchNormalization",
    "Relu",
    "Clip",
    "Sigmoid",
    "HardSigmoid",
    "HardSwish",
    "Tanh",
    "Gelu",
    "Add",
    "Mul",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
}


def replicate(network: Network, copies: int) -> Network:
    """Return a network that holds `copies` of `network` side by side.

    Args:
        network: Input `(c, h, w)`, output `(classes,)`.
        copies: How many.

    Returns:
        A network with input `(copies * c, h, w)` and output `(copies * classes,)`, the first copy's channels first.

    Raises:
        NetworkError: If an operator does not work on channels alone, such as a concatenation.
    """
    if copies == 1:
        return network
    source: dict[str, str] = {INPUT: INPUT}  # names whose node falls away → the tensor that takes its place
    shapes: dict[str, Shape] = {INPUT: _wide(network.input_shape, copies)}
    nodes: list[Node] = []
    for node in network.nodes:
        inputs = tuple(source[name] for name in node.inputs)
        if node.op == "Flatten" and shapes[inputs[0]][1:] == (1, 1):
            source[node.name] = inputs[0]  # vectors stay images of one pixel, which convolutions take
            continue
        nodes.append(_wider(node, inputs, copies, network))
        source[node.name] = node.name
        shapes[node.name] = nodes[-1].shape
    output = source[network.output]
    channels, *pixel = shapes[output]
    if pixel != [1, 1]:
        raise NetworkError(f"Copies need an output of one number per class, but {network.name!r} gives {pixel}.")
    nodes.append(Node(f"{output}_flat", "Flatten", (output,), (channels,)))
    return Network(network.name, shapes[INPUT], tuple(nodes), f"{output}_flat")


def merge_weights(network: Network, weights: Sequence[Arrays]) -> dict[str, NDArray[np.float32]]:
    """Return the weights of `replicate(network, len(weights))` from those of the copies."""
    if len(weights) == 1:
        return dict(weights[0])
    return {
        f"{node.name}.{name}": np.concatenate(
            [copy[f"{node.name}.{name}"].reshape(_as_image(node, shape)) for copy in weights]
        )
        for node in network.nodes
        for name, shape in node.weights.items()
    }


def split_weights(network: Network, weights: Arrays, copies: int) -> list[dict[str, NDArray[np.float32]]]:
    """Return the weights of each copy of `network` from those of `replicate(network, copies)`."""
    shapes = {f"{node.name}.{name}": shape for node in network.nodes for name, shape in node.weights.items()}
    parts = {key: np.split(weights[key], copies) for key in shapes}
    return [{key: parts[key][j].reshape(shape).copy() for key, shape in shapes.items()} for j in range(copies)]


def _wide(shape: Shape, copies: int) -> Shape:
    channels, *rest = shape
    return (channels * copies, *(rest or (1, 1)))


def _as_image(node: Node, shape: Shape) -> Shape:
    return (*shape, 1, 1) if node.op == "Gemm" and len(shape) == 2 else shape


def _wider(node: Node, inputs: tuple[str, ...], copies: int, network: Network) -> Node:
    weights = {}
    for name, shape in node.weights.items():
        channels, *rest = _as_image(node, shape)
        weights[name] = (channels * copies, *rest)
    wide = replace(node, inputs=inputs, shape=_wide(node.shape, copies), weights=weights)
    if node.op == "Conv":
        return replace(wide, attributes={**node.attributes, "group": node.attributes.get("group", 1) * copies})
    if node.op == "Gemm":
        window = {"kernel_shape": (1, 1), "strides": (1, 1), "pads": (0, 0, 0, 0)}
        return replace(wide, op="Conv", attributes={**window, "group": copies})
    operands = [network.shapes[name] for name in node.inputs] + list(node.weights.values())
    if node.op not in _CHANNELWISE or {shape[0] for shape in operands} != {node.shape[0]}:
        raise NetworkError(
            f"Node {node.name!r} of network {network.name!r} is a {node.op} that does not keep the channels apart: "
            "train its copies one after the other."
        )
    return wide
