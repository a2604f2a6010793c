"""Lowering of a `Network` to a torch module with the same node names."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from searchspaces.errors import NetworkError
from searchspaces.network.graph import INPUT, Network, Node
from searchspaces.network.weights import Arrays, init_weights


class Apply(nn.Module):
    """Runs a function without weights as a module, so that hooks can be set on it."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *tensors: Tensor) -> Tensor:
        """Apply the function."""
        return self.function(*tensors)


class MatMulWeight(nn.Module):
    """Product with a learned matrix `(in, out)` on the right."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Multiply `x` of shape `(..., in)` by the matrix."""
        return x @ self.weight


class Learned(nn.Module):
    """Sum or product with a learned array that is the same for all images.

    Args:
        function: `torch.add` or `torch.mul`.
        name: What the array is called.
        shape: Its shape, without the batch axis.
    """

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], name: str, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.function = function
        self.name = name
        self.register_parameter(name, nn.Parameter(torch.empty(shape)))

    def forward(self, x: Tensor) -> Tensor:
        """Combine `x` of shape `(n, ...)` with the array."""
        return self.function(x, self.get_parameter(self.name))


class NetworkModule(nn.Module):
    """A network as a torch module: one child per node, under the node's name.

    Its `state_dict` holds the network's weights under the keys `<node>.<weight>`.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        last_use = {name: i for i, node in enumerate(network.nodes) for name in node.inputs}
        self._steps: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = []
        for i, node in enumerate(network.nodes):
            self.add_module(node.name, _module(node, [network.shapes[name] for name in node.inputs]))
            spent = tuple({name for name in node.inputs if last_use[name] == i and name != network.output})
            self._steps.append((node.name, node.inputs, spent))

    def forward(self, x: Tensor) -> Tensor:
        """Map images `(n, c, h, w)` to the network's output."""
        values = {INPUT: x}
        for name, inputs, spent in self._steps:
            values[name] = self._modules[name](*(values[key] for key in inputs))  # type: ignore[misc]
            for key in spent:
                del values[key]
        return values[self.network.output]


def to_torch(network: Network, weights: Arrays | None = None, seed: int = 0) -> NetworkModule:
    """Build the torch module of `network`.

    Args:
        network: What to build.
        weights: Arrays keyed `<node>.<weight>`; drawn by `init_weights` when absent.
        seed: Seed of the drawn weights.

    Raises:
        NetworkError: If weights are missing or have other shapes.
    """
    with torch.device("meta"):
        module = NetworkModule(network)
    module.to_empty(device="cpu")
    load_weights(module, init_weights(network, seed) if weights is None else weights)
    for name, buffer in module.named_buffers():
        if name.endswith("num_batches_tracked"):
            buffer.zero_()
    return module


def load_weights(module: NetworkModule, weights: Arrays) -> None:
    """Copy `weights` into `module`.

    Raises:
        NetworkError: If weights are missing or have other shapes.
    """
    state = {key: torch.from_numpy(np.array(value, dtype=np.float32)) for key, value in weights.items()}
    expected = {f"{node.name}.{key}": shape for node in module.network.nodes for key, shape in node.weights.items()}
    wrong = sorted(key for key, shape in expected.items() if key not in state or tuple(state[key].shape) != shape)
    if wrong:
        raise NetworkError(
            f"The weights do not belong to network {module.network.name!r}: {len(wrong)} arrays are missing or have "
            f"another shape, the first is {wrong[0]!r}. Load the weights that were saved with this architecture."
        )
    module.load_state_dict({key: state[key] for key in expected}, strict=False)


def extract_weights(module: NetworkModule) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    """Return a copy of the module's weights, keyed `<node>.<weight>`."""
    return {
        key: value.detach().cpu().numpy().astype(np.float32, order="C", copy=True)
        for key, value in module.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }


def _pads(node: Node) -> tuple[int, int]:
    top, left, _, _ = node.attributes.get("pads", (0, 0, 0, 0))  # opposite sides are padded alike
    return top, left


def _conv(node: Node, shapes: list[tuple[int, ...]]) -> nn.Module:
    return nn.Conv2d(
        shapes[0][0],
        node.shape[0],
        tuple(node.attributes["kernel_shape"]),
        tuple(node.attributes.get("strides", (1, 1))),
        _pads(node),
        tuple(node.attributes.get("dilations", (1, 1))),
        node.attributes.get("group", 1),
        bias="bias" in node.weights,
    )


def _max_pool(node: Node, shapes: list[tuple[int, ...]]) -> nn.Module:
    strides, dilations = (tuple(node.attributes.get(key, (1, 1))) for key in ("strides", "dilations"))
    return nn.MaxPool2d(node.attributes["kernel_shape"], strides, _pads(node), dilations)


def _average_pool(node: Node, shapes: list[tuple[int, ...]]) -> nn.Module:
    counted = bool(node.attributes.get("count_include_pad", 0))
    strides = node.attributes.get("strides", (1, 1))
    return nn.AvgPool2d(node.attributes["kernel_shape"], strides, _pads(node), count_include_pad=counted)


def _hard_sigmoid(node: Node, shapes: list[tuple[int, ...]]) -> nn.Module:
    alpha, beta = node.attributes.get("alpha", 0.2), node.attributes.get("beta", 0.5)
    return Apply(lambda x: torch.clamp(alpha * x + beta, 0.0, 1.0))


def _elementwise(function: Callable[..., Tensor], node: Node) -> nn.Module:
    if len(node.inputs) == 2:
        return Apply(function)
    if node.weights:
        ((name, shape),) = node.weights.items()
        return Learned(function, name, shape)
    scalar = node.attributes["value"]
    return Apply(lambda x: function(x, scalar))


def _slice(node: Node, shapes: list[tuple[int, ...]]) -> nn.Module:
    axis, start, end = _axis(node), node.attributes["start"], node.attributes["end"]
    return Apply(lambda x: x.narrow(axis, start, end - start))


def _transpose(node: Node, shapes: list[tuple[int, ...]]) -> nn.Module:
    axes = (0, *(axis + 1 for axis in node.attributes["perm"]))
    return Apply(lambda x: x.permute(axes))


def _matmul(node: Node, shapes: list[tuple[int, ...]]) -> nn.Module:
    return MatMulWeight(*node.weights["weight"]) if node.weights else Apply(torch.matmul)


def _axis(node: Node) -> int:
    axis = int(node.attributes.get("axis", 0))
    return axis + 1 if axis >= 0 else axis


_MODULES: Mapping[str, Callable[[Node, list[tuple[int, ...]]], nn.Module]] = {
    "Conv": _conv,
    "BatchNormalization": lambda node, shapes: nn.BatchNorm2d(
        shapes[0][0], eps=node.attributes.get("epsilon", 1e-5)
    ),
    "LayerNormalization": lambda node, shapes: nn.LayerNorm(
        node.weights["weight"], eps=node.attributes.get("epsilon", 1e-5)
    ),
    "Relu": lambda node, shapes: nn.ReLU(),
    "Clip": lambda node, shapes: nn.Hardtanh(node.attributes["min"], node.attributes["max"]),
    "Sigmoid": lambda node, shapes: nn.Sigmoid(),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": lambda node, shapes: nn.Hardswish(),
    "Tanh": lambda node, shapes: nn.Tanh(),
    "Gelu": lambda node, shapes: nn.GELU(approximate=node.attributes.get("approximate", "none")),
    "Softmax": lambda node, shapes: nn.Softmax(dim=_axis(node)),
    "Add": lambda node, shapes: _elementwise(torch.add, node),
    "Mul": lambda node, shapes: _elementwise(torch.mul, node),
    "Concat": lambda node, shapes: Apply(lambda *tensors: torch.cat(tensors, dim=_axis(node))),
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": lambda node, shapes: Apply(lambda x: functional.adaptive_avg_pool2d(x, 1)),
    "Gemm": lambda node, shapes: nn.Linear(shapes[0][0], node.shape[0], bias="bias" in node.weights),
    "MatMul": _matmul,
    "Flatten": lambda node, shapes: nn.Flatten(),
    "Reshape": lambda node, shapes: Apply(lambda x: x.reshape(x.shape[0], *node.attributes["shape"])),
    "Transpose": _transpose,
    "Slice": _slice,
}


def _module(node: Node, shapes: list[tuple[int, ...]]) -> nn.Module:
    return _MODULES[node.op](node, shapes)
