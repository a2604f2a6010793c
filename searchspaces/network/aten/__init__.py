"""What each operation of a traced torch module becomes in a `Network`: the table behind `from_torch`.

A converter takes a `Call`, writes nodes with the call's builder and returns the name of the result (or, where the
operation has several results, a list of names; or a tensor that is there already). It raises `Unsupported` for
arguments without a counterpart.
"""

from collections.abc import Callable, Mapping

from searchspaces.network.aten import elementwise, layers, pooling, shapes
from searchspaces.network.aten.call import Call, Signal

Converter = Callable[[Call], str | list[str] | Signal]

# What only gives a tensor another shape; parameters may pass through it on their way to an operation.
SHAPES: Mapping[str, Converter] = {
    **dict.fromkeys(
        ("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze"),
        lambda call: shapes.reshape(call, call.signal(), call.shape),
    ),
    **dict.fromkeys(("alias", "clone", "contiguous", "detach", "dropout"), shapes.same),
    "expand": shapes.expand,
    "permute": shapes.permute,
    "transpose": shapes.transpose,
}

CONVERTERS: Mapping[str, Converter] = {
    **SHAPES,
    "_native_batch_norm_legit_no_training": layers.batch_norm,
    "adaptive_avg_pool2d": lambda call: pooling.adaptive_pool(call, "AveragePool"),
    "adaptive_max_pool2d": lambda call: [pooling.adaptive_pool(call, "MaxPool")],
    "add": elementwise.add,
    "avg_pool2d": lambda call: pooling.pool(call, "AveragePool"),
    "bmm": layers.matmul,
    "cat": shapes.concat,
    "channel_shuffle": shapes.channel_shuffle,
    "clamp": elementwise.clamp,
    "clamp_max": elementwise.clamp,
    "clamp_min": elementwise.clamp,
    "conv2d": layers.conv,
    "div": elementwise.divide,
    "gelu": lambda call: call.add("Gelu", call.signal(), approximate=call["approximate"]),
    "hardsigmoid": elementwise.activation("HardSigmoid"),
    "hardswish": elementwise.activation("HardSwish"),
    "hardtanh": lambda call: call.add(
        "Clip", call.signal(), min=float(call["min_val"]), max=float(call["max_val"])
    ),
    "layer_norm": layers.layer_norm,
    "linear": layers.linear,
    "matmul": layers.matmul,
    "max_pool2d": lambda call: pooling.pool(call, "MaxPool"),
    "mean": pooling.mean,
    "mul": lambda call: elementwise.combine(call, "Mul", call["self"], call["other"]),
    "neg": lambda call: call.add("Mul", call.signal(), value=-1.0),
    "relu": elementwise.activation("Relu"),
    "relu6": elementwise.activation("Relu6"),
    "rsub": elementwise.subtract_from,
    "scaled_dot_product_attention": layers.attention,
    "select": lambda call: shapes.pick(call, call.axis(), call["index"]),
    "sigmoid": elementwise.activation("Sigmoid"),
    "silu": elementwise.silu,
    "slice": shapes.take,
    "softmax": elementwise.softmax,
    "split": shapes.split,
    "split_with_sizes": shapes.split,
    "stack": shapes.stack,
    "sub": elementwise.subtract,
    "sum": pooling.total,
    "tanh": elementwise.activation("Tanh"),
    "unbind": shapes.unbind,
    "zeros_like": lambda call: call.builder.zero(call.signal().name),
}

__all__ = ["CONVERTERS", "SHAPES", "Converter"]
