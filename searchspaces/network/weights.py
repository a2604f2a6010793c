"""Initial weights of a network: one dictionary of arrays for torch and ONNX alike."""

from collections.abc import Mapping
from math import prod, sqrt

import numpy as np
from numpy.typing import NDArray

from searchspaces.network.graph import Network

Arrays = Mapping[str, NDArray[np.float32]]

_KEPT = 1 << 22  # most numbers that are kept for other networks with the same seed

_drawn: dict[int, NDArray[np.float32]] = {}


def init_weights(network: Network, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Draw weights: He-normal by fan-in for convolutions and matrices (arXiv 1502.01852), identity normalisation.

    Returns:
        Arrays keyed `<node>.<weight>`, equal for equal seeds.
    """
    filters = [node for node in network.nodes if node.op in ("Conv", "Gemm", "MatMul") and "weight" in node.weights]
    total = sum(prod(node.weights["weight"]) for node in filters)
    noise = _noise(seed, total)
    arrays: dict[str, NDArray[np.float32]] = {}
    start = 0
    for node in filters:
        shape = node.weights["weight"]
        fan_in = shape[-2] if node.op == "MatMul" else prod(shape[1:])
        block = noise[start : start + prod(shape)] * np.float32(sqrt(2 / fan_in))
        arrays[f"{node.name}.weight"] = block.reshape(shape)
        start += prod(shape)
    for node in network.nodes:
        for name, shape in node.weights.items():
            one = name in ("weight", "running_var")
            arrays.setdefault(f"{node.name}.{name}", np.full(shape, one, dtype=np.float32))
    return arrays


def _noise(seed: int, count: int) -> NDArray[np.float32]:
    """Return the first so many normal numbers of a seed; drawing them takes longer than the rest of a small network."""
    known = _drawn.get(seed, np.empty(0, dtype=np.float32))
    if len(known) < count:
        known = np.random.default_rng(seed).standard_normal(count, dtype=np.float32)
        if count <= _KEPT:
            _drawn.clear()
            _drawn[seed] = known
    return known[:count]
