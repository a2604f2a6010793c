"""Layers of MobileNetV3 (arXiv 1905.02244)."""

from searchspaces.network import NetworkBuilder

DIVISOR = 8


def make_divisible(channels: float) -> int:
    """Round to a multiple of 8, at least 8 and never down by more than a tenth."""
    rounded = max(DIVISOR, int(channels + DIVISOR / 2) // DIVISOR * DIVISOR)
    return rounded + DIVISOR if rounded < 0.9 * channels else rounded


def inverted_residual(
    builder: NetworkBuilder,
    x: str,
    channels: int,
    kernel: int,
    expansion: int,
    stride: int,
    act: str,
    squeeze: bool,
) -> str:
    """Pointwise expansion (none for expansion 1), depthwise convolution, pointwise projection, shortcut.

    Args:
        builder: Where to write.
        x: The block's input.
        channels: Output channels.
        kernel: Kernel of the depthwise convolution.
        expansion: Ratio of inner to input channels.
        stride: Stride of the depthwise convolution.
        act: Activation operator after the first two convolutions.
        squeeze: Whether squeeze and excitation follows the depthwise convolution.
    """
    inner = make_divisible(builder.shapes[x][0] * expansion)
    y = builder.conv_bn(x, inner, 1, act=act) if expansion > 1 else x
    y = builder.conv_bn(y, inner, kernel, stride, groups=inner, act=act)
    if squeeze:
        y = squeeze_excite(builder, y)
    y = builder.conv_bn(y, channels, 1, act=None)
    return builder.sum([x, y]) if stride == 1 and builder.shapes[x] == builder.shapes[y] else y


def squeeze_excite(builder: NetworkBuilder, x: str) -> str:
    """Scale channels by a gate computed from their averages (arXiv 1709.01507), reduced to a quarter inside."""
    channels = builder.shapes[x][0]
    gate = builder.conv(builder.add("GlobalAveragePool", x), make_divisible(channels // 4), 1, bias=True)
    gate = builder.conv(builder.act(gate, "Relu"), channels, 1, bias=True)
    return builder.add("Mul", x, builder.act(gate, "HardSigmoid"))
