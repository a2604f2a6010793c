"""Lowering of a `Network` to an ONNX model, node by node, in milliseconds.

No torch is involved: nodes map one to one to ONNX operators of opset 20, batch normalisation stays unfused, and
constant operands become initializers.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper

from searchspaces.errors import NetworkError
from searchspaces.network.graph import INPUT, Network, Node
from searchspaces.network.operators import OPERATORS
from searchspaces.network.weights import Arrays, init_weights

OPSET = 20
IR_VERSION = 10
OUTPUT = "output"


def to_onnx(network: Network, weights: Arrays | None = None, batch: int = 1, seed: int = 0) -> ModelProto:
    """Build the ONNX model of `network` with inputs `input (batch, c, h, w)` and output `output`.

    Args:
        network: What to build.
        weights: Arrays keyed `<node>.<weight>`; drawn by `init_weights` when absent.
        batch: Fixed batch size.
        seed: Seed of the drawn weights.

    Raises:
        NetworkError: If weights are missing or have other shapes.
    """
    weights = init_weights(network, seed) if weights is None else weights
    graph = onnx.GraphProto(name=network.name)
    for node in network.nodes:
        _add_node(graph, network, node, batch)
        for key, shape in node.weights.items():
            _add_weight(graph, f"{node.name}.{key}", shape, weights, network)
    shapes = network.shapes
    graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, (batch, *shapes[INPUT])))
    graph.output.append(
        helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, (batch, *shapes[network.output]))
    )
    if network.output == INPUT:
        raise NetworkError(f"Network {network.name!r} has no nodes: its output is its input.")
    return helper.make_model(
        graph, producer_name="nasflow", ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)]
    )


def _add_weight(graph: onnx.GraphProto, key: str, shape: tuple[int, ...], weights: Arrays, network: Network) -> None:
    array = weights.get(key)
    if array is None or array.shape != shape:
        found = "missing" if array is None else f"of shape {array.shape}"
        raise NetworkError(
            f"The weights do not belong to network {network.name!r}: {key!r} must have shape {shape} but is {found}. "
            "Use the weights that were saved with this architecture."
        )
    _add_initializer(graph, key, np.ascontiguousarray(array, dtype=np.float32))


def _add_initializer(graph: onnx.GraphProto, name: str, array: np.ndarray[Any, Any]) -> str:
    tensor = graph.initializer.add()
    tensor.name = name
    tensor.data_type = TensorProto.FLOAT if array.dtype == np.float32 else TensorProto.INT64
    tensor.dims.extend(array.shape)
    tensor.raw_data = array.tobytes()
    return name


def _add_node(graph: onnx.GraphProto, network: Network, node: Node, batch: int) -> None:
    constants, attributes = _LOWERINGS.get(node.op, _plain)(node, batch)
    proto = graph.node.add()
    proto.name = node.name
    proto.op_type = node.op
    proto.input.extend(node.inputs)
    proto.input.extend(f"{node.name}.{key}" for key in OPERATORS[node.op].weights if key in node.weights)
    proto.input.extend(
        _add_initializer(graph, f"{node.name}.{key}", np.asarray(value)) for key, value in constants.items()
    )
    proto.output.append(OUTPUT if node.name == network.output else node.name)
    for key, value in attributes.items():
        _add_attribute(proto, key, value)


def _add_attribute(proto: NodeProto, key: str, value: Any) -> None:
    attribute = proto.attribute.add()
    attribute.name = key
    if isinstance(value, (tuple, list)):
        attribute.type = AttributeProto.INTS
        attribute.ints.extend(value)
    elif isinstance(value, float):
        attribute.type = AttributeProto.FLOAT
        attribute.f = value
    elif isinstance(value, str):
        attribute.type = AttributeProto.STRING
        attribute.s = value.encode()
    else:
        attribute.type = AttributeProto.INT
        attribute.i = value


Lowered = tuple[dict[str, Any], dict[str, Any]]


def _plain(node: Node, batch: int) -> Lowered:
    return {}, dict(node.attributes)


def _clip(node: Node, batch: int) -> Lowered:
    return {key: np.float32(node.attributes[key]) for key in ("min", "max")}, {}


def _scalar(node: Node, batch: int) -> Lowered:
    return ({"value": np.float32(node.attributes["value"])}, {}) if "value" in node.attributes else ({}, {})


def _reshape(node: Node, batch: int) -> Lowered:
    return {"shape": np.array((batch, *node.attributes["shape"]), dtype=np.int64)}, {}


def _transpose(node: Node, batch: int) -> Lowered:
    return {}, {"perm": (0, *(axis + 1 for axis in node.attributes["perm"]))}


def _batched(axis: int) -> int:
    """Count the batch axis in."""
    return axis + 1 if axis >= 0 else axis


def _axis(node: Node, batch: int) -> Lowered:
    return {}, {"axis": _batched(node.attributes.get("axis", 0))}


def _slice(node: Node, batch: int) -> Lowered:
    start, end, axis = (node.attributes[key] for key in ("start", "end", "axis"))
    ranges = {"starts": start, "ends": end, "axes": _batched(axis)}
    return {key: np.array([value], dtype=np.int64) for key, value in ranges.items()}, {}


def _gemm(node: Node, batch: int) -> Lowered:
    return {}, {"transB": 1}


def _layer_norm(node: Node, batch: int) -> Lowered:
    return {}, {"axis": -len(node.weights["weight"]), **node.attributes}


_LOWERINGS: dict[str, Callable[[Node, int], Lowered]] = {
    "Clip": _clip,
    "Add": _scalar,
    "Mul": _scalar,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Concat": _axis,
    "Softmax": _axis,
    "Slice": _slice,
    "Gemm": _gemm,
    "LayerNormalization": _layer_norm,
}
