"""Pooling and averages."""

from math import prod
from typing import Any

from searchspaces.network.aten.call import Call, Signal, Unsupported, image_axis, pair
from searchspaces.network.aten.shapes import reshape


def pool(call: Call, op: str) -> str:
    """`MaxPool` or `AveragePool` (`op`) with a sliding window."""
    kernel, padding = pair(call["kernel_size"]), pair(call["padding"])
    attributes: dict[str, Any] = {
        "kernel_shape": kernel,
        "strides": pair(call["stride"] or call["kernel_size"]),
        "pads": (*padding, *padding),
    }
    if pair(call["dilation"] or 1) != (1, 1):
        attributes["dilations"] = pair(call["dilation"])
    if call["count_include_pad"] and padding != (0, 0):
        attributes["count_include_pad"] = 1
    if call["divisor_override"] is not None:
        raise Unsupported("divisor_override has no counterpart")
    name = call.add(op, call.signal(), **attributes)
    if call.builder.shapes[name] != call.shape:
        raise Unsupported("ceil_mode=True adds windows that reach beyond the image; use padding instead")
    return name


def adaptive_pool(call: Call, op: str) -> str:
    """`MaxPool` or `AveragePool` (`op`) to a given size that divides the image's."""
    x = call.signal()
    target = pair(call["output_size"])
    if x.shape[1:] == target:
        return x.name
    if op == "AveragePool" and target == (1, 1):
        return call.add("GlobalAveragePool", x)
    if any(side % small for side, small in zip(x.shape[1:], target, strict=True)):
        raise Unsupported(f"an image of {x.shape[1:]} is not split evenly into {target} windows")
    kernel = tuple(side // small for side, small in zip(x.shape[1:], target, strict=True))
    return call.add(op, x, kernel_shape=kernel, strides=kernel, pads=(0, 0, 0, 0))


def mean(call: Call) -> str:
    """Average over any axes but the batch: they become the pixels of an image that is pooled."""
    x = call.signal()
    rank = len(x.shape)
    axes = sorted({image_axis(axis, rank) for axis in (call["dim"] or range(rank + 1))})
    kept = [axis for axis in range(rank) if axis not in axes]
    perm = (*kept, *axes)
    turned = x.name if perm == tuple(range(rank)) else call.add("Transpose", x, perm=perm)
    pixels = (prod(x.shape[axis] for axis in kept), prod(x.shape[axis] for axis in axes), 1)
    # Height and width stay as they are in the usual case, so that it is a single node.
    image = turned if rank == 3 and axes == [1, 2] else call.add("Reshape", turned, shape=pixels)
    pooled = call.add("GlobalAveragePool", image)
    return reshape(call, Signal(pooled, call.builder.shapes[pooled]), call.shape)


def total(call: Call) -> str:
    """Sum over any axes but the batch."""
    x = call.signal()
    return call.add("Mul", mean(call), value=prod(x.shape) / prod(call.shape))
