"""The closed set of operators a `Network` is made of: a subset of ONNX's, with its names and attributes.

Shapes leave out the batch axis: an image tensor is `(c, h, w)`, a vector `(f,)`. Each operator knows the shape of
its output and its multiply-accumulate operations; what the numbers mean is the ONNX operator's definition
(opset 20). Constant operands (`Clip`'s bounds, `Reshape`'s shape, `Slice`'s ranges, a scalar factor of `Mul`) are
attributes here, as in ONNX's first opsets, and become initializers when lowered. `Add` and `Mul` take two tensors, or
one tensor and either a scalar `value` or a learned array (`bias` of `Add`, `weight` of `Mul`). `Reshape`, `Transpose`,
`Slice`, `Concat` and `Softmax` count their axes without the batch axis. `pads` are the same on opposite sides.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

from searchspaces.errors import NetworkError
from searchspaces.network.attributes import (
    AXES,
    BOUND,
    EPSILON,
    FLAG,
    GROUP,
    NUMBER,
    PADS,
    PAIR,
    SHAPE,
    WHOLE,
    Attribute,
    one_of,
)

Shape = tuple[int, ...]
Attributes = Mapping[str, Any]
Weights = Mapping[str, Shape]


@dataclass(frozen=True)
class Operator:
    """One operator.

    Attributes:
        shape: Gives the output's shape from the inputs' shapes, the attributes and the weights' shapes.
        macs: Gives the multiply-accumulate operations from the inputs' and the output's shapes and the
            weights' shapes.
        arity: Smallest and largest number of inputs.
        attributes: The attributes that it may have, by name.
        weights: Names of the weights that it may have, in the order of ONNX's inputs.
        image: Whether its inputs must be images `(c, h, w)`.
    """

    shape: Callable[[Sequence[Shape], Attributes, Weights], Shape]
    macs: Callable[[Sequence[Shape], Shape, Weights], int] = lambda inputs, output, weights: 0
    arity: tuple[int, int] = (1, 1)
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    weights: tuple[str, ...] = ()
    image: bool = False


def _same(inputs: Sequence[Shape], attributes: Attributes, weights: Weights) -> Shape:
    return inputs[0]


def _axis(shape: Shape, axis: int) -> int:
    """Return `axis` counted from the front."""
    if not -len(shape) <= axis < len(shape):
        raise NetworkError(f"A tensor of shape {shape} without the batch axis has no axis {axis}.")
    return axis % len(shape)


def _elementwise(inputs: Sequence[Shape], attributes: Attributes, weights: Weights) -> Shape:
    operands = [*inputs, *weights.values()]
    if len(operands) + ("value" in attributes) != 2:
        raise NetworkError(
            "Add and Mul take two operands: two tensors, or one tensor and either a scalar `value` or a learned array; "
            f"but got tensors {list(inputs)}, arrays {dict(weights)} and attributes {dict(attributes)}."
        )
    rank = max(len(shape) for shape in operands)
    if any(len(shape) != rank for shape in operands):
        raise NetworkError(f"Operands of one rank are needed, but got the shapes {operands}.")
    result = tuple(max(sides) for sides in zip(*operands, strict=True))
    if any(side not in (1, full) for shape in operands for side, full in zip(shape, result, strict=True)):
        raise NetworkError(f"Shapes {operands} cannot be combined element by element.")
    return result


def _batch_norm(inputs: Sequence[Shape], attributes: Attributes, weights: Weights) -> Shape:
    wrong = {name: shape for name, shape in weights.items() if shape != inputs[0][:1]}
    if wrong or set(weights) != {"weight", "bias", "running_mean", "running_var"}:
        raise NetworkError(
            "Batch normalisation has weight, bias, running_mean and running_var, each with one number a channel, but "
            f"for a tensor of shape {inputs[0]} got {dict(weights)}."
        )
    return inputs[0]


def _layer_norm(inputs: Sequence[Shape], attributes: Attributes, weights: Weights) -> Shape:
    sides = weights["weight"]
    if weights["bias"] != sides or not sides or inputs[0][-len(sides) :] != sides:
        raise NetworkError(
            f"Layer normalisation of a tensor of shape {inputs[0]} has weight and bias in the shape of its last axes, "
            f"but got {dict(weights)}."
        )
    return inputs[0]


def _softmax(inputs: Sequence[Shape], attributes: Attributes, weights: Weights) -> Shape:
    _axis(inputs[0], attributes.get("axis", 0))
    return inputs[0]


def _clip(inputs: Sequence[Shape], attributes: Attributes, weights: Weights) -> Shape:
    if not attributes["min"] < attributes["max"]:
        raise NetworkError(f"Clip needs min < max, but got {dict(attributes)}.")
    return inputs[0]


def windows(shape: Shape, attributes: Attributes) -> tuple[int, int]:
    """Return height and width of what a sliding window gives on an image of `shape`."""
    sides = []
    pads = attributes.get("pads", (0, 0, 0, 0))
    dilations = attributes.get("dilations", (1, 1))
    for axis in range(2):
        extent = dilations[axis] * (attributes["kernel_shape"][axis] - 1) + 1
        padded = shape[1 + axis] + pads[axis] + pads[axis + 2]
        if padded < extent:
            raise NetworkError(
                f"A window of {extent} does not fit an image of {shape[1:]} with padding {list(pads)}: use larger "
                "inputs, or a scale of the space with fewer reductions."
            )
        sides.append((padded - extent) // attributes.get("strides", (1, 1))[axis] + 1)
    return sides[0], sides[1]


def _has_shapes(weights: Weights, rank: int) -> bool:
    """Tell whether a filter has `rank` axes, and the bias, if any, a number for each of its outputs."""
    weight = weights["weight"]
    return len(weight) == rank and weights.get("bias", weight[:1]) == weight[:1]


def _conv(inputs: Sequence[Shape], attributes: Attributes, weights: Weights) -> Shape:
    if not _has_shapes(weights, 4):
        raise NetworkError(
            "A convolution has a weight (out, in / group, height, width) and at most a bias (out,), but got "
            f"{dict(weights)}."
        )
    channels, per_group = inputs[0][0], weights["weight"][1]
    group = attributes.get("group", 1)
    if channels != per_group * group or weights["weight"][0] % group:
        raise NetworkError(
            f"A convolution with weights {weights['weight']} in {group} groups cannot take {channels} channels."
        )
    if tuple(attributes["kernel_shape"]) != weights["weight"][2:]:
        raise NetworkError(
            f"A convolution with weights {weights['weight']} cannot have the kernel {attributes['kernel_shape']}."
        )
    return (weights["weight"][0], *windows(inputs[0], attributes))


def _pool(inputs: Sequence[Shape], attributes: Attributes, weights: Weights) -> Shape:
    pads = attributes.get("pads", (0, 0, 0, 0))
    if any(2 * pad > side for pad, side in zip(pads, 2 * tuple(attributes["kernel_shape"]), strict=True)):
        raise NetworkError(f"Pooling pads by half its window at most, but got {dict(attributes)}.")
    dilations = attributes.get("dilations", (1, 1))
    if any(pad and step > side for pad, step, side in zip(pads[:2], dilations, inputs[0][1:], strict=True)):
        # A window could have all its entries in the padding, whose maximum the frameworks do not agree on.
        raise NetworkError(f"Dilated pooling cannot step over an image of {inputs[0][1:]}, but got {dict(attributes)}.")
    return (inputs[0][0], *windows(inputs[0], attributes))


def _concat(inputs: Sequence[Shape], attributes: Attributes, weights: Weights) -> Shape:
    axis = _axis(inputs[0], attributes.get("axis", 0))
    rest = {shape[:axis] + shape[axis + 1 :] for shape in inputs}
    if len(rest) != 1 or len({len(shape) for shape in inputs}) != 1:
        raise NetworkError(f"Shapes {list(inputs)} cannot be concatenated along axis {axis}.")
    return (*inputs[0][:axis], sum(shape[axis] for shape in inputs), *inputs[0][axis + 1 :])


def _gemm(inputs: Sequence[Shape], attributes: Attributes, weights: Weights) -> Shape:
    if not _has_shapes(weights, 2) or inputs[0] != weights["weight"][1:]:
        raise NetworkError(f"Gemm with weights {dict(weights)} cannot take a tensor of shape {inputs[0]}.")
    return (weights["weight"][0],)


def _matmul(inputs: Sequence[Shape], attributes: Attributes, weights: Weights) -> Shape:
    if len(inputs) == 2 and weights:
        raise NetworkError(f"MatMul takes two tensors, or one and a learned matrix, but got {inputs} and {weights}.")
    left, right = inputs[0], inputs[1] if len(inputs) == 2 else weights["weight"]
    # A learned matrix is shared by all leading axes; two tensors are multiplied matrix by matrix.
    fits = left[:-2] == right[:-2] and len(left) >= 2 if len(inputs) == 2 else len(right) == 2
    if not fits or left[-1] != right[-2]:
        raise NetworkError(f"MatMul cannot combine the shapes {left} and {right}.")
    return (*left[:-1], right[-1])


def _reshape(inputs: Sequence[Shape], attributes: Attributes, weights: Weights) -> Shape:
    shape: Shape = attributes["shape"]
    if prod(shape) != prod(inputs[0]):
        raise NetworkError(f"{inputs[0]} cannot be reshaped to {shape}.")
    return shape


def _transpose(inputs: Sequence[Shape], attributes: Attributes, weights: Weights) -> Shape:
    if sorted(attributes["perm"]) != list(range(len(inputs[0]))):
        raise NetworkError(f"{attributes['perm']} does not reorder the axes of a tensor of shape {inputs[0]}.")
    return tuple(inputs[0][axis] for axis in attributes["perm"])


def _slice(inputs: Sequence[Shape], attributes: Attributes, weights: Weights) -> Shape:
    axis, start, end = _axis(inputs[0], attributes["axis"]), attributes["start"], attributes["end"]
    if not 0 <= start < end <= inputs[0][axis]:
        raise NetworkError(f"Slice {start}:{end} leaves axis {axis} of a tensor of shape {inputs[0]}.")
    return (*inputs[0][:axis], end - start, *inputs[0][axis + 1 :])


def _weight_macs(inputs: Sequence[Shape], output: Shape, weights: Weights) -> int:
    """Every output element takes as many multiplications as the filter that makes it has weights."""
    return prod(weights["weight"][1:]) * prod(output)


def _matmul_macs(inputs: Sequence[Shape], output: Shape, weights: Weights) -> int:
    return inputs[0][-1] * prod(output)


_WINDOW = {"kernel_shape": PAIR, "strides": PAIR, "pads": PADS}
_AFFINE = ("weight", "bias")

OPERATORS: Mapping[str, Operator] = {
    "Conv": Operator(
        _conv, _weight_macs, attributes={**_WINDOW, "dilations": PAIR, "group": GROUP}, weights=_AFFINE, image=True
    ),
    "BatchNormalization": Operator(
        _batch_norm,
        attributes={"epsilon": EPSILON},
        weights=("weight", "bias", "running_mean", "running_var"),
        image=True,
    ),
    "LayerNormalization": Operator(_layer_norm, attributes={"epsilon": EPSILON}, weights=_AFFINE),
    "Relu": Operator(_same),
    "Clip": Operator(_clip, attributes={"min": BOUND, "max": BOUND}),
    "Sigmoid": Operator(_same),
    "HardSigmoid": Operator(_same, attributes={"alpha": NUMBER, "beta": NUMBER}),
    "HardSwish": Operator(_same),
    "Tanh": Operator(_same),
    "Gelu": Operator(_same, attributes={"approximate": one_of("none", "tanh")}),
    "Softmax": Operator(_softmax, attributes={"axis": WHOLE}),
    "Add": Operator(_elementwise, arity=(1, 2), attributes={"value": NUMBER}, weights=("bias",)),
    "Mul": Operator(_elementwise, arity=(1, 2), attributes={"value": NUMBER}, weights=("weight",)),
    "Concat": Operator(_concat, arity=(1, 64), attributes={"axis": WHOLE}),
    "MaxPool": Operator(_pool, attributes={**_WINDOW, "dilations": PAIR}, image=True),
    "AveragePool": Operator(_pool, attributes={**_WINDOW, "count_include_pad": FLAG}, image=True),
    "GlobalAveragePool": Operator(lambda inputs, attributes, weights: (inputs[0][0], 1, 1), image=True),
    "Gemm": Operator(_gemm, _weight_macs, weights=_AFFINE),
    "MatMul": Operator(_matmul, _matmul_macs, arity=(1, 2), weights=("weight",)),
    "Flatten": Operator(lambda inputs, attributes, weights: (prod(inputs[0]),)),
    "Reshape": Operator(_reshape, attributes={"shape": SHAPE}),
    "Transpose": Operator(_transpose, attributes={"perm": AXES}),
    "Slice": Operator(_slice, attributes={"axis": WHOLE, "start": WHOLE, "end": WHOLE}),
}
