"""`Network`: the one description of a model, from which torch, ONNX, costs and text are derived."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any

from searchspaces.errors import NetworkError, unknown
from searchspaces.network.attributes import wholes
from searchspaces.network.operators import OPERATORS, Operator, Shape

INPUT = "input"
TRAINABLE = ("weight", "bias")


@dataclass(frozen=True)
class Node:
    """One operator application; its name is also the name of its output.

    Attributes:
        name: Unique within the network; letters, digits and underscores.
        op: ONNX operator type, one of `OPERATORS`.
        inputs: Names of the nodes (or `input`) whose outputs it takes.
        shape: Shape of its output without the batch axis.
        attributes: ONNX attributes (see `searchspaces.network.operators`).
        weights: Shapes of its weights by torch's names (`weight`, `bias`, `running_mean`, `running_var`);
            the array itself is keyed `<node>.<weight>` wherever weights are stored.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    shape: Shape
    attributes: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, Shape] = field(default_factory=dict)


@dataclass(frozen=True)
class LayerCost:
    """What one node costs for one image.

    Attributes:
        name: The node's name.
        op: The node's operator.
        macs: Multiply-accumulate operations of convolutions and matrix products.
        params: Trainable numbers.
        bytes_moved: Bytes of inputs read, weights read and output written, at 4 bytes a number.
    """

    name: str
    op: str
    macs: int
    params: int
    bytes_moved: int


@dataclass(frozen=True)
class Network:
    """A static graph of operators, in topological order, for images of a fixed shape.

    Attributes:
        name: For people and file names.
        input_shape: Channels, height and width of the input.
        nodes: The operators.
        output: Name of the node whose output is the network's.
    """

    name: str
    input_shape: Shape
    nodes: tuple[Node, ...]
    output: str

    @cached_property
    def shapes(self) -> Mapping[str, Shape]:
        """Shape of every tensor by name, the input included."""
        return {INPUT: self.input_shape} | {node.name: node.shape for node in self.nodes}

    @cached_property
    def costs(self) -> tuple[LayerCost, ...]:
        """Costs per node, in the order of `nodes`."""
        return tuple(self._cost(node) for node in self.nodes)

    def _cost(self, node: Node) -> LayerCost:
        inputs = [self.shapes[name] for name in node.inputs]
        moved = sum(map(prod, inputs)) + prod(node.shape) + sum(map(prod, node.weights.values()))
        return LayerCost(
            node.name,
            node.op,
            OPERATORS[node.op].macs(inputs, node.shape, node.weights),
            sum(prod(shape) for name, shape in node.weights.items() if name in TRAINABLE),
            4 * moved,
        )

    @property
    def macs(self) -> int:
        """Multiply-accumulate operations for one image."""
        return sum(cost.macs for cost in self.costs)

    @property
    def params(self) -> int:
        """Trainable parameters."""
        return sum(cost.params for cost in self.costs)

    @property
    def bytes_moved(self) -> int:
        """Bytes read and written by all nodes for one image, nothing cached."""
        return sum(cost.bytes_moved for cost in self.costs)

    @property
    def depth(self) -> int:
        """Largest number of convolutions and matrix products on a path from input to output."""
        depth = {INPUT: 0}
        for node in self.nodes:
            own = node.op in ("Conv", "Gemm", "MatMul")
            depth[node.name] = own + max(depth[name] for name in node.inputs)
        return depth[self.output]

    def text(self) -> str:
        """Return one line per node: name, operator, inputs, attributes, output shape."""
        lines = [f"{INPUT}: {_size(self.input_shape)}"]
        for node in self.nodes:
            attributes = "".join(f", {key}={_value(value)}" for key, value in sorted(node.attributes.items()))
            lines.append(f"{node.name} = {node.op}({', '.join(node.inputs)}{attributes}): {_size(node.shape)}")
        return "\n".join([*lines, f"return {self.output}"])


def _size(shape: Shape) -> str:
    return "x".join(map(str, shape))


def _value(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return _size(tuple(value))
    return f"{value:g}" if isinstance(value, float) else str(value)


class _Shapes(dict[str, Shape]):
    """Shapes of tensors by name, which asks for a tensor that exists."""

    def __missing__(self, name: str) -> Shape:
        raise NetworkError(unknown("tensor", name, self))


class NetworkBuilder:
    """Writes a `Network` node by node; every method returns the name of the tensor it made.

    Args:
        name: The network's name.
        input_shape: Channels, height and width of the input.

    Raises:
        NetworkError: If the input is no image.
    """

    def __init__(self, name: str, input_shape: Shape) -> None:
        self.name = name
        try:
            shape = wholes(input_shape, least=1, count=3)
        except (TypeError, ValueError) as error:
            raise NetworkError(
                f"Network {name!r} takes images of (channels, height, width), each at least 1, but got {input_shape!r}."
            ) from error
        self.shapes: dict[str, Shape] = _Shapes({INPUT: shape})
        self._nodes: list[Node] = []
        self._prefix = ""

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Prefix the names of the nodes made inside with `name_`."""
        outer = self._prefix
        self._prefix = f"{outer}{name}_"
        try:
            yield
        finally:
            self._prefix = outer

    def add(self, op: str, *inputs: str, weights: Mapping[str, Shape] | None = None, **attributes: Any) -> str:
        """Append operator `op` (see `OPERATORS`) and return the name of its output.

        Raises:
            NetworkError: If the operator, an attribute or a weight is unknown, an attribute's value is not what it
                may be, an input does not exist, or the shapes do not fit.
        """
        operator = OPERATORS.get(op)
        if operator is None:
            raise NetworkError(unknown("operator", op, OPERATORS))
        missing = [name for name in inputs if name not in self.shapes]
        if missing:
            raise NetworkError(f"{op} in network {self.name!r} takes {missing}, which no earlier node gives.")
        if not operator.arity[0] <= len(inputs) <= operator.arity[1]:
            raise NetworkError(f"{op} takes {operator.arity[0]} to {operator.arity[1]} inputs, not {len(inputs)}.")
        attributes = _read_attributes(op, operator, attributes)
        arrays = _read_weights(op, operator, weights or {})
        shape = self._shape(op, operator, [self.shapes[name] for name in inputs], attributes, arrays)
        name = f"{self._prefix}{op.lower()}"
        if name in self.shapes:
            name = f"{name}{len(self._nodes)}"
        self.shapes[name] = shape
        self._nodes.append(Node(name, op, inputs, shape, attributes, arrays))
        return name

    def _shape(
        self, op: str, operator: Operator, inputs: list[Shape], attributes: dict[str, Any], weights: Mapping[str, Shape]
    ) -> Shape:
        if operator.image and len(inputs[0]) != 3:
            raise NetworkError(f"{op} takes images (channels, height, width), but got the shape {inputs[0]}.")
        try:
            return operator.shape(inputs, attributes, weights)
        except KeyError as error:
            raise NetworkError(f"{op} in network {self.name!r} lacks its attribute or weight {error}.") from error

    def conv(
        self, x: str, channels: int, kernel: int, stride: int = 1, groups: int = 1, bias: bool = False
    ) -> str:
        """Square convolution with padding `kernel // 2`."""
        per_group = self.shapes[x][0] // max(groups, 1)  # what is less than 1 is refused by `add`
        weights: dict[str, Shape] = {"weight": (channels, per_group, kernel, kernel)}
        if bias:
            weights["bias"] = (channels,)
        return self.add(
            "Conv", x, weights=weights, **window(kernel, stride), **({"group": groups} if groups != 1 else {})
        )

    def batch_norm(self, x: str) -> str:
        """Batch normalisation over channels."""
        sizes = (self.shapes[x][0],)
        names = ("weight", "bias", "running_mean", "running_var")
        return self.add("BatchNormalization", x, weights=dict.fromkeys(names, sizes))

    def conv_bn(
        self, x: str, channels: int, kernel: int, stride: int = 1, groups: int = 1, act: str | None = "Relu"
    ) -> str:
        """Convolution, batch normalisation, then the activation `act` (an operator name, or None)."""
        x = self.batch_norm(self.conv(x, channels, kernel, stride, groups))
        return self.act(x, act) if act else x

    def act(self, x: str, op: str) -> str:
        """Activation by operator name; `Relu6` stands for `Clip` to 0…6, `HardSigmoid` has slope 1/6."""
        if op == "Relu6":
            return self.add("Clip", x, min=0.0, max=6.0)
        if op == "HardSigmoid":
            return self.add(op, x, alpha=1 / 6, beta=0.5)
        return self.add(op, x)

    def pool(self, x: str, op: str, kernel: int, stride: int = 1, padding: int | None = None) -> str:
        """`MaxPool` or `AveragePool` (padding not counted) with padding `kernel // 2` unless given."""
        return self.add(op, x, **window(kernel, stride, padding))

    def sum(self, tensors: list[str]) -> str:
        """Sum of one or more tensors of one shape."""
        total = tensors[0]
        for tensor in tensors[1:]:
            total = self.add("Add", total, tensor)
        return total

    def zero(self, x: str) -> str:
        """A tensor of zeros in the shape of `x`."""
        return self.add("Mul", x, value=0.0)

    def linear(self, x: str, features: int, bias: bool = True) -> str:
        """Fully connected layer on a vector."""
        weights: dict[str, Shape] = {"weight": (features, self.shapes[x][0])}
        if bias:
            weights["bias"] = (features,)
        return self.add("Gemm", x, weights=weights)

    def classifier(self, x: str, classes: int) -> str:
        """Global average pooling and a fully connected layer."""
        return self.linear(self.add("Flatten", self.add("GlobalAveragePool", x)), classes)

    def build(self, output: str) -> Network:
        """Return the network that computes tensor `output`; nodes it does not need are left out."""
        _ = self.shapes[output]
        needed = {output}
        nodes = []
        for node in reversed(self._nodes):
            if node.name in needed:
                needed.update(node.inputs)
                nodes.append(node)
        return Network(self.name, self.shapes[INPUT], tuple(reversed(nodes)), output)


def window(kernel: int, stride: int = 1, padding: int | None = None) -> dict[str, Any]:
    """Return the attributes of a square sliding window; padding `kernel // 2` unless given."""
    padding = kernel // 2 if padding is None else padding
    return {"kernel_shape": (kernel, kernel), "strides": (stride, stride), "pads": (padding,) * 4}


def _read_attributes(op: str, operator: Operator, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes in the types that ONNX has for them."""
    attributes = {}
    for name, value in given.items():
        _check_name("attribute", op, name, operator.attributes)
        kind = operator.attributes[name]
        try:
            attributes[name] = kind.read(value)
        except (TypeError, ValueError, OverflowError) as error:
            raise NetworkError(f"Attribute {name!r} of {op} is {kind.meaning}, but got {value!r}.") from error
    return attributes


def _read_weights(op: str, operator: Operator, given: Mapping[str, Shape]) -> dict[str, Shape]:
    """Return the weights' shapes as tuples of plain ints."""
    shapes = {}
    for name, shape in given.items():
        _check_name("weight", op, name, operator.weights)
        try:
            shapes[name] = wholes(shape, least=1)
        except (TypeError, ValueError) as error:
            raise NetworkError(
                f"The shape of {name!r} of {op} is whole numbers, at least 1, but got {shape!r}."
            ) from error
    return shapes


def _check_name(kind: str, op: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        raise NetworkError(unknown(f"{kind} of {op}", name, known) if known else f"{op} has no {kind} {name!r}.")
