"""Layers with parameters, and attention."""

from math import prod
from typing import Any

from searchspaces.network.aten.call import Array, Call, Signal, Unsupported, learned, pair, parameter
from searchspaces.network.aten.shapes import reshape


def conv(call: Call) -> str:
    """Convolution of images."""
    x, weight = call.signal("input"), parameter(call, "weight")
    if len(x.shape) != 3:
        raise Unsupported("it takes no images (n, c, h, w)")
    kernel = pair(weight.value.shape[2:])
    dilation, padding = pair(call["dilation"]), call["padding"]
    if padding == "same":
        total = [spread * (side - 1) for spread, side in zip(dilation, kernel, strict=True)]
        if any(side % 2 for side in total):
            raise Unsupported("padding='same' of an even kernel pads unevenly; use an odd kernel")
        padding = [side // 2 for side in total]
    height, width = pair(0 if padding == "valid" else padding)
    attributes: dict[str, Any] = {
        "kernel_shape": kernel,
        "strides": pair(call["stride"]),
        "pads": (height, width, height, width),
    }
    if dilation != (1, 1):
        attributes["dilations"] = dilation
    if call["groups"] != 1:
        attributes["group"] = call["groups"]
    arrays = {"weight": weight}
    if call["bias"] is not None:
        arrays["bias"] = parameter(call, "bias")
    return call.add("Conv", x, arrays=arrays, **attributes)


def batch_norm(call: Call) -> list[str]:
    """Batch normalisation of vectors, sequences or images, by running statistics."""
    x = call.signal("input")
    names = ("weight", "bias", "running_mean", "running_var")
    arrays = {name: parameter(call, name, trainable=not name.startswith("running")) for name in names}
    image = x.name if len(x.shape) == 3 else call.add("Reshape", x, shape=(x.shape[0], prod(x.shape[1:]), 1))
    normal = call.add("BatchNormalization", image, arrays=arrays, epsilon=call["eps"])
    return [normal if len(x.shape) == 3 else reshape(call, Signal(normal, call.builder.shapes[normal]), x.shape)]


def layer_norm(call: Call) -> str:
    """Layer normalisation over the last axes."""
    arrays = {name: parameter(call, name) for name in ("weight", "bias")}
    return call.add("LayerNormalization", call.signal("input"), arrays=arrays, epsilon=call["eps"])


def linear(call: Call) -> str:
    """Fully connected layer: `Gemm` on vectors, `MatMul` and `Add` on sequences and images."""
    x, weight = call.signal("input"), parameter(call, "weight")
    bias = None if call["bias"] is None else parameter(call, "bias")
    if len(x.shape) == 1:
        return call.add("Gemm", x, arrays={"weight": weight} | ({} if bias is None else {"bias": bias}))
    product = call.add("MatMul", x, arrays={"weight": Array(weight.path, weight.value.T, True)})
    return product if bias is None else call.add("Add", product, arrays={"bias": learned(bias, len(x.shape))})


def matmul(call: Call) -> str:
    """Product of two tensors, or of a tensor and a parameter."""
    right = "other" if "other" in call.arguments else "mat2"
    other = call[right]
    if isinstance(other, Array) and other.trainable and other.value.ndim == 2:
        return call.add("MatMul", call.signal(), arrays={"weight": other})
    return call.add("MatMul", call.signal(), call.signal(right))


def attention(call: Call) -> str:
    """Scaled dot-product attention, spelt out."""
    if call["attn_mask"] is not None or call["is_causal"] or call["enable_gqa"] or call["dropout_p"]:
        raise Unsupported("attention with a mask, grouped queries or dropout has no counterpart")
    query, key, value = (call.signal(name) for name in ("query", "key", "value"))
    rank = len(key.shape)
    turned = call.add("Transpose", key, perm=(*range(rank - 2), rank - 1, rank - 2))
    scale = query.shape[-1] ** -0.5 if call["scale"] is None else call["scale"]
    scores = call.add("Mul", call.add("MatMul", query, turned), value=float(scale))
    return call.add("MatMul", call.add("Softmax", scores, axis=-1), value)
