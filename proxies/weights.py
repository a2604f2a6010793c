"""Initial weights that proxies are defined for, and the norm of a network's own."""

from collections.abc import Callable
from math import prod, sqrt
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from proxies.base import Proxy
from proxies.passes import layers
from proxies.probe import Probe
from searchspaces.network import Network, init_weights


class L2Norm(Proxy):
    """Sum over convolutions and matrices of the Euclidean norm of the initial weights (arXiv 2101.08134).

    Under random weights this counts rows: a layer of c outputs adds √(2c) up to the noise, for weights drawn by
    `init_weights`.
    """

    name = "l2_norm"
    normalisation: ClassVar[Literal["linear", "log"]] = "log"

    def score(self, probe: Probe) -> float:
        """Return the sum of the layers' norms."""
        return sum(float(torch.linalg.vector_norm(weight.double())) for weight in probe.weights.values())


def uniform_weights(network: Network, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Draw weights as torch's layers do: uniform up to 1/√fan-in, biases too.

    Published scores rest on these; the default of `score` is `init_weights`, which networks are trained from. Where
    normalisation follows a layer its scale matters little, so synflow differs most: it grows faster with depth.

    Returns:
        Arrays keyed `<node>.<weight>`, equal for equal seeds.
    """
    rng = np.random.default_rng(seed)
    return _drawn(network, lambda shape, fan_in: (2 * rng.random(shape, np.float32) - 1) / np.float32(sqrt(fan_in)))


def gaussian_weights(network: Network, rng: np.random.Generator) -> dict[str, NDArray[np.float32]]:
    """Draw weights of convolutions and matrices from the unit Gaussian; biases are zero, normalisation is identity.

    Returns:
        Arrays keyed `<node>.<weight>`.
    """
    weights = _drawn(network, lambda shape, fan_in: rng.standard_normal(shape, np.float32))
    return weights | {key: np.zeros_like(array) for key, array in weights.items() if key.endswith("bias")}


def _drawn(
    network: Network, draw: Callable[[tuple[int, ...], int], NDArray[np.float32]]
) -> dict[str, NDArray[np.float32]]:
    weights = dict(init_weights(network))
    for node in layers(network):
        shape = node.weights["weight"]
        fan_in = shape[-2] if node.op == "MatMul" else prod(shape[1:])
        for key, own in node.weights.items():
            weights[f"{node.name}.{key}"] = draw(own, fan_in)
    return weights
