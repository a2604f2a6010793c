"""The reference networks by which all measurements of a device are normalised."""

from searchspaces.network import INPUT, Network, NetworkBuilder

VERSION = 2
"""Raise it with any change of a network: figures measured by different anchors do not compare."""


def anchor_networks() -> list[Network]:
    """Return reference networks of about 0.3, 0.04 and 0.015 ms on one core of a server.

    Large networks spend their time in arithmetic, small ones in the runtime around it, and a machine's speed at the two
    does not change alike. While other programs came and went, networks of 0.015 to 0.04 ms varied by 25 % over 100 s;
    divided by the large network's pace they varied by 16 %, divided by that of the one nearest in time, by 3 to 8 %.
    """
    return [_residual(), _chain("middle", 8, 12), _chain("small", 4, 4)]


def _residual() -> Network:
    """A residual network with the common kinds of convolution."""
    builder = NetworkBuilder(f"anchor{VERSION}_large", (3, 32, 32))
    x = builder.conv_bn(INPUT, 16, 3)
    for block, (channels, stride) in enumerate([(16, 1), (32, 2), (32, 1), (64, 2), (64, 1)]):
        with builder.scope(f"block{block}"):
            entry = builder.conv_bn(x, channels, 3, stride)
            inner = builder.conv_bn(entry, channels, 3, groups=channels)
            inner = builder.conv_bn(inner, channels, 1)
            inner = builder.conv_bn(inner, channels, 3, act=None)
            x = builder.act(builder.sum([entry, inner]), "Relu")
    x = builder.pool(x, "AveragePool", 3)
    return builder.build(builder.classifier(x, 10))


def _chain(size: str, channels: int, blocks: int) -> Network:
    """A chain of residual convolutions so small that running them is mostly overhead."""
    builder = NetworkBuilder(f"anchor{VERSION}_{size}", (channels, 8, 8))
    x = INPUT
    for block in range(blocks):
        with builder.scope(f"block{block}"):
            y = builder.conv_bn(x, channels, 3 if block % 2 else 1)
            x = builder.act(builder.sum([x, y]), "Relu")
    return builder.build(builder.classifier(builder.pool(x, "AveragePool", 3), 10))
