"""Activations and arithmetic."""

from collections.abc import Callable
from typing import Any

import numpy as np

from searchspaces.network.aten.call import Array, Call, Signal, Unsupported, learned, number

_LARGEST = float(np.finfo(np.float32).max)


def activation(op: str) -> Callable[[Call], str]:
    """Return the converter to activation `op` (see `NetworkBuilder.act`)."""
    return lambda call: call.builder.act(call.signal().name, op)


def clamp(call: Call) -> str:
    """Limit from below, above or both; from below by zero it is `Relu`."""
    low, high = (call[key] for key in ("min", "max"))
    if low == 0 and high is None:
        return call.add("Relu", call.signal())
    return call.add(
        "Clip",
        call.signal(),
        min=-_LARGEST if low is None else float(low),
        max=_LARGEST if high is None else float(high),
    )


def softmax(call: Call) -> str:
    """Softmax along any axis but the batch."""
    return call.add("Softmax", call.signal(), axis=call.axis())


def _scaled(call: Call, value: Any, factor: float) -> Any:
    """Return `factor` times a number, parameter or tensor."""
    if factor == 1:
        return value
    if isinstance(value, Signal):
        name = call.add("Mul", value, value=float(factor))
        return Signal(name, value.shape)
    if isinstance(value, Array):
        return Array(value.path, factor * value.value, value.trainable)
    return factor * value


def combine(call: Call, op: str, left: Any, right: Any) -> str:
    """Add or multiply (`op`) two of: tensor, parameter, number; one at least is a tensor."""
    left, right = number(left), number(right)
    if not isinstance(left, Signal):
        left, right = right, left
    if not isinstance(left, Signal):
        raise Unsupported("it combines no tensors that depend on the images")
    if isinstance(right, Signal):
        return call.add(op, left, right)
    if isinstance(right, Array):
        return call.add(op, left, arrays={"bias" if op == "Add" else "weight": learned(right, len(left.shape))})
    if isinstance(right, bool) or not isinstance(right, (int, float)):
        raise Unsupported("it combines a tensor with something that is no tensor, parameter or number")
    return call.add(op, left, value=float(right))


def add(call: Call) -> str:
    """`self + alpha * other`."""
    return combine(call, "Add", call["self"], _scaled(call, call["other"], call["alpha"]))


def subtract(call: Call) -> str:
    """`self - alpha * other`."""
    return combine(call, "Add", call["self"], _scaled(call, call["other"], -call["alpha"]))


def subtract_from(call: Call) -> str:
    """`other - alpha * self`."""
    return combine(call, "Add", _scaled(call, call["self"], -call["alpha"]), call["other"])


def divide(call: Call) -> str:
    """Division by a number."""
    divisor = number(call["other"])
    if isinstance(divisor, bool) or not isinstance(divisor, (int, float)) or call["rounding_mode"] is not None:
        raise Unsupported("only division by a number has a counterpart")
    return call.add("Mul", call.signal(), value=1 / divisor)


def silu(call: Call) -> str:
    """`x * sigmoid(x)`."""
    return call.add("Mul", call.signal(), call.add("Sigmoid", call.signal()))
