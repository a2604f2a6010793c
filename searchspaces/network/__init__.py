"""`Network` and its lowerings."""

from searchspaces.network.graph import INPUT, LayerCost, Network, NetworkBuilder, Node
from searchspaces.network.operators import OPERATORS
from searchspaces.network.replicate import merge_weights, replicate, split_weights
from searchspaces.network.to_onnx import OUTPUT, to_onnx
from searchspaces.network.to_torch import NetworkModule, extract_weights, load_weights, to_torch
from searchspaces.network.weights import Arrays, init_weights

__all__ = [
    "INPUT",
    "OPERATORS",
    "OUTPUT",
    "Arrays",
    "LayerCost",
    "Network",
    "NetworkBuilder",
    "NetworkModule",
    "Node",
    "extract_weights",
    "init_weights",
    "load_weights",
    "merge_weights",
    "replicate",
    "split_weights",
    "to_onnx",
    "to_torch",
]
