"""FBNet (arXiv 1812.03443): a chain of 22 blocks, each one of eight inverted residuals or a skip.

The operations have the order of HW-NAS-Bench (arXiv 2103.10584) and of the latency tables made with it. A row is
written as the names of its 22 operations, joined by commas.
"""

from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from searchspaces.genes import Gene, Mask, Rows
from searchspaces.network import INPUT, Network, NetworkBuilder
from searchspaces.space import Op, SearchSpace
from searchspaces.task import Task

CANDIDATES = (
    Op("k3_e1", "inverted_residual", kernel=3, expansion=1),
    Op("k3_e1_g2", "inverted_residual", kernel=3, expansion=1, groups=2),
    Op("k3_e3", "inverted_residual", kernel=3, expansion=3),
    Op("k3_e6", "inverted_residual", kernel=3, expansion=6),
    Op("k5_e1", "inverted_residual", kernel=5, expansion=1),
    Op("k5_e1_g2", "inverted_residual", kernel=5, expansion=1, groups=2),
    Op("k5_e3", "inverted_residual", kernel=5, expansion=3),
    Op("k5_e6", "inverted_residual", kernel=5, expansion=6),
    Op("skip", "skip"),
)
STAGES = (1, 4, 4, 4, 4, 4, 1)
BLOCKS = sum(STAGES)
_SKIP = len(CANDIDATES) - 1
_NAMES = tuple(op.name for op in CANDIDATES)


class FBNet(SearchSpace):
    """The FBNet search space of 9^22 chains.

    A block is a pointwise convolution to `expansion` times the channels, a depthwise one and a pointwise one, each
    with batch normalisation, ReLU after the first two, and a shortcut where input and output have one shape. With
    two groups both pointwise convolutions are grouped and the channels are shuffled after the first. A skip is the
    identity; where the width or the stride changes, it is a strided pointwise convolution with batch
    normalisation and ReLU, as in HW-NAS-Bench.

    An identity leaves no trace in the network, so within a run of blocks that keep their shape only the order of
    the other operations matters: in the canonical row, identities stand at the end of their run.

    Scales hold `widths` and `strides` of the stem, then of the seven stages, and the channels of the `head` before
    the classifier. `full` is the paper's for images of 224 pixels (FBNet-B and -C have a head of 1984), `cifar`
    HW-NAS-Bench's for images of 32 pixels.
    """

    name = "fbnet"
    genes = tuple(Gene(f"block{i + 1}", _NAMES) for i in range(BLOCKS))
    scales: ClassVar[dict[str, dict[str, Any]]] = {
        "full": {
            "widths": (16, 16, 24, 32, 64, 112, 184, 352),
            "strides": (2, 1, 2, 2, 2, 1, 2, 1),
            "head": 1504,
        },
        "cifar": {
            "widths": (16, 16, 24, 32, 64, 112, 184, 352),
            "strides": (1, 1, 1, 2, 2, 1, 2, 1),
            "head": 1504,
        },
        "small": {
            "widths": (8, 8, 12, 16, 24, 32, 40, 48),
            "strides": (1, 1, 1, 2, 1, 1, 2, 1),
            "head": 96,
        },
    }

    @cached_property
    def ops(self) -> tuple[Op, ...]:
        """Input, output, then the nine candidates."""
        return (Op("input", "input"), Op("output", "output"), *CANDIDATES)

    @cached_property
    def _layout(self) -> list[tuple[int, int, bool]]:
        """Output width, stride, and whether input and output have one shape, for each block."""
        layout = []
        previous, *widths = self.scale["widths"]
        for blocks, width, first_stride in zip(STAGES, widths, self.scale["strides"][1:], strict=True):
            for block in range(blocks):
                stride = 1 if block else first_stride
                layout.append((width, stride, stride == 1 and width == previous))
                previous = width
        return layout

    def canonical(self, rows: Rows) -> Rows:
        """Move identities to the end of their run; the other operations keep their order."""
        keeps = np.array([keeps for _, _, keeps in self._layout])
        runs = np.cumsum(~keeps)  # a block that changes the shape opens a run, where the stable sort leaves it first
        order = np.argsort(2 * runs + (keeps & (rows == _SKIP)), axis=1, kind="stable")
        return np.take_along_axis(rows, order, axis=1)

    def network(self, row: NDArray[np.int64], task: Task) -> Network:
        """Stem, the blocks under their places in the canonical row, head and classifier."""
        row = self.canonical(row[None])[0]
        widths, strides = self.scale["widths"], self.scale["strides"]
        builder = NetworkBuilder(f"{self.name}_{''.join(map(str, row))}", task.input_shape)
        with builder.scope("stem"):
            x = builder.conv_bn(INPUT, widths[0], 3, strides[0])
        for gene, choice, (width, stride, keeps) in zip(self.genes, row, self._layout, strict=True):
            with builder.scope(gene.name):
                if choice != _SKIP:
                    x = _inverted_residual(builder, x, CANDIDATES[choice], width, stride)
                elif not keeps:
                    x = builder.conv_bn(x, width, 1, stride)
        with builder.scope("head"):
            x = builder.conv_bn(x, self.scale["head"], 1)
        return builder.build(builder.classifier(x, task.classes))

    def graph(self, rows: Rows) -> tuple[Mask, NDArray[np.int64]]:
        """Vertices are the input, the 22 blocks and the output, in a chain; ids index `ops`."""
        size = BLOCKS + 2
        adjacency = np.repeat(np.eye(size, k=1, dtype=np.bool_)[None], len(rows), axis=0)
        ops = np.concatenate(
            [np.zeros((len(rows), 1), np.int64), rows + 2, np.ones((len(rows), 1), np.int64)], axis=1
        )
        return adjacency, ops


def _inverted_residual(builder: NetworkBuilder, x: str, op: Op, channels: int, stride: int) -> str:
    inner = int(builder.shapes[x][0] * op.expansion)
    y = builder.conv_bn(x, inner, 1, groups=op.groups)
    if op.groups > 1:
        y = _shuffle(builder, y, op.groups)
    y = builder.conv_bn(y, inner, op.kernel, stride, groups=inner)
    y = builder.conv_bn(y, channels, 1, groups=op.groups, act=None)
    return builder.sum([x, y]) if stride == 1 and builder.shapes[x] == builder.shapes[y] else y


def _shuffle(builder: NetworkBuilder, x: str, groups: int) -> str:
    """Interleave the channels of the groups, so that the next grouped convolution sees all of them."""
    channels, height, width = builder.shapes[x]
    y = builder.add("Reshape", x, shape=(groups, channels // groups, height * width))
    y = builder.add("Transpose", y, perm=(1, 0, 2))
    return builder.add("Reshape", y, shape=(channels, height, width))
