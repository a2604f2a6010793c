"""Tools to hold a network's lowerings against each other."""

from math import prod

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from searchspaces.network import Arrays, Network, extract_weights, to_onnx, to_torch

_IMAGES = 64  # few images of few pixels give variances near zero, and networks that amplify rounding errors


def calibrated_weights(network: Network, seed: int = 0) -> Arrays:
    """Draw weights and set the batch normalisations to the statistics of random images.

    Random networks without it blow their outputs up, and differences with them.
    """
    module = to_torch(network, seed=seed).train()
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d):
            child.momentum = 1.0
    images = np.random.default_rng(seed).standard_normal((_IMAGES, *network.input_shape), dtype=np.float32)
    with torch.no_grad():
        module(torch.from_numpy(images))
    return extract_weights(module)


def outputs(network: Network, weights: Arrays, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Run a random image through the torch module and through ONNX Runtime; each result has shape `(1, classes)`."""
    image = np.random.default_rng(seed + 1).standard_normal((1, *network.input_shape), dtype=np.float32)
    with torch.no_grad():
        from_torch = to_torch(network, weights).eval()(torch.from_numpy(image)).numpy()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    model = to_onnx(network, weights).SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return from_torch, session.run(None, {"input": image})[0]


def counted(network: Network) -> tuple[int, int]:
    """Count parameters and multiply-accumulates of the built module, by looking at what its layers really compute."""
    module = to_torch(network).eval()
    macs = 0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal macs
        if isinstance(layer, nn.Conv2d):
            macs += output[0].numel() * layer.in_channels // layer.groups * prod(layer.kernel_size)
        elif isinstance(layer, nn.Linear):
            macs += layer.in_features * layer.out_features
        elif list(layer.parameters(recurse=False)) and not isinstance(layer, (nn.BatchNorm2d, nn.LayerNorm)):
            macs += inputs[0].shape[-1] * output[0].numel()  # a product with a learned matrix

    for child in module.modules():
        child.register_forward_hook(count)
    with torch.no_grad():
        module(torch.zeros(1, *network.input_shape))
    return sum(parameter.numel() for parameter in module.parameters()), macs
