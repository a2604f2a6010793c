"""The walk over a traced module: every operation through the table of converters, in order."""

import operator
import re
from collections import defaultdict
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node
from torch.fx.node import map_arg

from searchspaces.errors import NetworkError
from searchspaces.network.aten import CONVERTERS, SHAPES
from searchspaces.network.aten.call import Array, BatchSize, Call, Signal, Unsupported
from searchspaces.network.graph import INPUT, TRAINABLE, Network, NetworkBuilder
from searchspaces.network.operators import Shape


class _Knockon(Exception):  # noqa: N818
    """An operation takes what earlier ones, already reported, could not give."""


class Conversion:
    """Walks over a traced module and writes the network; what fails is collected, so that it is reported at once.

    Args:
        program: The module, traced with the batch as its only dynamic axis, and free of in-place operations.
        input_shape: Channels, height and width of its images.
        name: The network's name.
    """

    def __init__(self, program: ExportedProgram, input_shape: Shape, name: str) -> None:
        self.program = program
        self.builder = NetworkBuilder(name, input_shape)
        self.values: dict[Node, Any] = {}
        self.learned: dict[str, tuple[str, Tensor]] = {}
        self.problems: dict[str, list[str]] = defaultdict(list)
        self.batch: Any = None

    def run(self, kind: str) -> tuple[Network, dict[str, NDArray[np.float32]]]:
        """Return network and weights of the module, whose class is called `kind`.

        Raises:
            NetworkError: If parts of the module have no counterpart.
        """
        for node in self.program.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = self._placeholder(node)
            elif node.op == "call_function":
                self.values[node] = self._call_function(node)
        output = self._output()
        self._check_sharing()
        if self.problems or output is None:
            listed = "; ".join(f"{what} in {', '.join(places)}" for what, places in self.problems.items())
            raise NetworkError(
                f"{kind} has parts without a counterpart in a Network: {listed}. Replace them by operations that "
                "convolutional networks for ONNX are made of, or describe the network with NetworkBuilder."
            )
        weights = {
            key: value.detach().cpu().to(torch.float32).contiguous().numpy().copy()
            for key, (_, value) in self.learned.items()
        }
        network = self.builder.build(output.name)
        needed = {f"{node.name}.{key}" for node in network.nodes for key in node.weights}
        return network, {key: value for key, value in weights.items() if key in needed}

    def _placeholder(self, node: Node) -> Signal | Array:
        signature = self.program.graph_signature
        if node.name in signature.user_inputs:
            self.batch = node.meta["val"].shape[0]
            return Signal(INPUT, self.builder.shapes[INPUT])
        parameters = signature.inputs_to_parameters
        buffers: dict[str, str] = {**signature.inputs_to_buffers, **signature.inputs_to_lifted_tensor_constants}
        path = parameters[node.name] if node.name in parameters else buffers[node.name]
        stored = {**self.program.constants, **self.program.state_dict}[path]
        return Array(path, stored, node.name in parameters)

    def _call_function(self, node: Node) -> Any:
        value = node.meta.get("val")
        if node.target is operator.getitem:
            results, index = self.values[node.all_input_nodes[0]], node.args[1]
            return results[index] if isinstance(results, list) and isinstance(index, int) else None
        if value is None or isinstance(value, (torch.SymInt, torch.SymBool, torch.SymFloat, int, float)):
            return BatchSize()
        try:
            path = _path(node)
            with self.builder.scope(path.replace(".", "_")) if path else nullcontext():
                return self._convert(node, value)
        except (Unsupported, NetworkError) as error:
            reason = f" ({error})" if str(error) else ""
            self.problems[f"{_operation(node)}{reason}"].append(_place(node))
            return self._stand_in(node, value)
        except _Knockon:
            return self._stand_in(node, value)

    def _convert(self, node: Node, value: Any) -> Any:
        operation = _operation(node)
        converter = CONVERTERS.get(operation)
        if converter is None:
            raise Unsupported
        arguments = self._arguments(node)
        if operation in SHAPES and isinstance(arguments.get("self"), Array):
            return self._reshaped(node, arguments["self"])
        single = isinstance(value, Tensor)
        call = Call(self.builder, arguments, self._shape(value) if single else None, self.learned)
        result = converter(call)
        if isinstance(result, Signal):
            return result
        if isinstance(result, list):
            return [Signal(name, self.builder.shapes[name]) for name in result]
        if self.builder.shapes[result] != call.shape:
            raise Unsupported(f"it gives {call.shape}, its counterpart {self.builder.shapes[result]}")
        return Signal(result, call.shape)

    def _reshaped(self, node: Node, array: Array) -> Array:
        """Apply an operation on shapes to a parameter."""
        if any(isinstance(self.values[source], BatchSize) for source in node.all_input_nodes):
            raise Unsupported(f"it repeats parameter {array.path!r} for every image")
        assert callable(node.target)
        args, kwargs = map_arg((node.args, node.kwargs), lambda source: self.values[source].value)
        return Array(array.path, node.target(*args, **kwargs), array.trainable)

    def _arguments(self, node: Node) -> dict[str, Any]:
        """Return the arguments by name, defaults included."""
        given = dict(node.kwargs)
        arguments = {}
        for i, argument in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]
            value = node.args[i] if i < len(node.args) else given.get(argument.name, argument.default_value)
            arguments[argument.name] = self._resolve(value)
        return arguments

    def _resolve(self, value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return [self._resolve(item) for item in value]
        if not isinstance(value, Node):
            return value
        if self.values[value] is None:
            raise _Knockon
        return self.values[value]

    def _shape(self, value: Tensor) -> Shape:
        """Return the shape without the batch axis, which must come first and nowhere else."""
        if value.dtype != torch.float32:
            raise Unsupported(f"it gives {str(value.dtype).removeprefix('torch.')}, and networks compute in float32")
        if not value.shape or str(value.shape[0]) != str(self.batch):
            raise Unsupported(f"it moves, merges or drops the batch axis: its shape is {tuple(value.shape)}")
        rest = tuple(value.shape[1:])
        if not all(type(side) is int for side in rest):
            raise Unsupported(f"it gives a tensor whose shape {tuple(value.shape)} is not fixed")
        return rest

    def _stand_in(self, node: Node, value: Any) -> Any:
        """Go on after a failure as if it had not happened, to find what else fails."""
        if isinstance(value, (list, tuple)):
            return [self._stand_in(node, item) for item in value]
        try:
            shape = self._shape(value)
        except Unsupported:
            return None
        name = f"?{len(self.builder.shapes)}"
        self.builder.shapes[name] = shape
        return Signal(name, shape)

    def _output(self) -> Signal | None:
        (outputs,) = self.program.graph.output_node().args
        results = [self.values.get(node) for node in _items(outputs)]
        if len(results) != 1:
            what = f"{len(results)} outputs or changed buffers, where a network has one output and keeps no state"
            self.problems[what].append("forward")
            return None
        result = results[0]
        if isinstance(result, Signal) and self.builder.shapes[result.name] == result.shape:
            return result
        if not self.problems:
            self.problems["an output that is repeated by expand or does not depend on the images"].append("forward")
        return None

    def _check_sharing(self) -> None:
        uses: dict[str, list[str]] = defaultdict(list)
        for key, (path, _) in self.learned.items():
            if key.rpartition(".")[2] in TRAINABLE:
                uses[path].append(key.rpartition(".")[0])
        for path, nodes in uses.items():
            if len(nodes) > 1:
                self.problems[f"parameter {path!r} shared by several operations, which would be trained apart"] += nodes


def _items(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else (value,)


def _operation(node: Node) -> str:
    """Return the operation's name without namespace and overload, for example `conv2d`."""
    schema = getattr(node.target, "_schema", None)
    name: str = schema.name if schema is not None else str(node.target)
    return name.removeprefix("aten::")


def _path(node: Node) -> str:
    """Return the path of the layer that calls the operation; empty for the module itself."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [path.partition("@")[0] for path, _ in stack.values()]
    return next((path for path in reversed(paths) if re.fullmatch(r"[\w.]*", path)), "")


def _place(node: Node) -> str:
    """Say where the operation is called: the layer's path and the line of source."""
    lines = (node.meta.get("stack_trace") or "").strip().splitlines()
    line = f" `{lines[-1].strip()}`" if lines else ""
    return (_path(node) or "forward") + line
