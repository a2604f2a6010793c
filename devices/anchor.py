"""The reference network by which all measurements of a device are normalised."""

from searchspaces.network import INPUT, Network, NetworkBuilder

VERSION = 1
"""Raise it with any change of the network: figures measured by different anchors do not compare."""


def anchor_network() -> Network:
    """Return a small residual network with the common kinds of convolution; about 0.3 ms on one core of a server."""
    builder = NetworkBuilder(f"anchor{VERSION}", (3, 32, 32))
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
