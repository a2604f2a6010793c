"""Initial weights of a network: one dictionary of arrays for torch and ONNX alike."""

from collections.abc import Mapping
from math import prod, sqrt

import numpy as np
from numpy.typing import NDArray

from searchspaces.network.graph import Network

Arrays = Mapping[str, NDArray[np.float32]]


def init_weights(network: Network, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Draw weights: He-normal by fan-in for convolutions and matrices (arXiv 1502.01852), identity normalisation.

    Returns:
        Arrays keyed `<node>.<weight>`, equal for equal seeds.
    """
    filters = [node for node in network.nodes if node.op in ("Conv", "Gemm", "MatMul") and "weight" in node.weights]
    total = sum(prod(node.weights["weight"]) for node in filters)
    noise = np.random.default_rng(seed).standard_normal(total, dtype=np.float32)
    arrays: dict[str, NDArray[np.float32]] = {}
    start = 0
    for node in filters:
        shape = node.weights["weight"]
        fan_in = shape[-2] if node.op == "MatMul" else prod(shape[1:])
        block = noise[start : start + prod(shape)]
        block *= np.float32(sqrt(2 / fan_in))
        arrays[f"{node.name}.weight"] = block.reshape(shape)
        start += prod(shape)
    for node in network.nodes:
        for name, shape in node.weights.items():
            one = name in ("weight", "running_var")
            arrays.setdefault(f"{node.name}.{name}", np.full(shape, one, dtype=np.float32))
    return arrays
