"""The MobileNetV3 space of once-for-all networks (arXiv 1908.09791).

An architecture is written as its resolution, then the blocks of each stage: `r192|k3e6,k5e3|k7e4,k3e3,k3e6|…` is a
network for images of 192/224 of the task's side whose first stage has two blocks, the first of kernel 3 and
expansion 6. Blocks beyond a stage's depth are not written.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from searchspaces.genes import Mask, Rows
from searchspaces.mobilenet.layers import inverted_residual, make_divisible
from searchspaces.mobilenet.notation import (
    EXPANSIONS,
    FIRST_BLOCK,
    KERNELS,
    RESOLUTIONS,
    decode,
    make_genes,
    read,
    used_blocks,
    write,
)
from searchspaces.network import INPUT, Network, NetworkBuilder
from searchspaces.space import Op, SearchSpace
from searchspaces.task import Task

ACTIVATIONS = ("Relu", "Relu", "HardSwish", "HardSwish", "HardSwish")
SQUEEZES = (False, True, False, True, True)


class MobileNet(SearchSpace):
    """The once-for-all MobileNetV3 space: five stages of two to four inverted residuals.

    Rows hold the resolution, the depths of the five stages, then kernel and expansion of the 5 x 4 blocks. Genes of
    blocks beyond the depth do nothing and are 0 in the canonical row.

    The resolution is relative: choice r builds for images of `round(side * r / 224)` pixels, which the network's
    `input_shape` tells; whoever feeds it resizes. The paper's choices are 4 pixels apart at a side of 224. As classes
    do not know the images that networks are built for, a scale has a `resolution_step`: choices stand for the
    nearest resolution that is a multiple of it below 224, and those that stand for the same are of one class.
    `small` has the step 28, which is one pixel of 8, so that its resolutions 140, 168, 196 and 224 are of different
    sizes on images from 8 pixels on. Where a step is less than a pixel, different classes can build for one size.

    Scales further hold `widths` and `strides` of the stem, the first block and the five stages, the channels of the
    two layers of the `head`, and the factor `width_mult` on all widths (1.0 and 1.2 are published). All channels are
    rounded to multiples of 8.
    """

    name = "mobilenet"
    genes = make_genes()
    scales: ClassVar[dict[str, dict[str, Any]]] = {
        "full": {
            "width_mult": 1.0,
            "widths": (16, 16, 24, 40, 80, 112, 160),
            "strides": (2, 1, 2, 2, 2, 1, 2),
            "head": (960, 1280),
            "resolution_step": 4,
        },
        "small": {
            "width_mult": 1.0,
            "widths": (8, 8, 8, 16, 16, 24, 32),
            "strides": (1, 1, 1, 2, 1, 1, 2),
            "head": (96, 128),
            "resolution_step": 28,
        },
    }

    @cached_property
    def ops(self) -> tuple[Op, ...]:
        """Input, output, then the nine pairs of kernel and expansion."""
        pairs = ((kernel, expansion) for kernel in KERNELS for expansion in EXPANSIONS)
        blocks = (Op(f"k{kernel}e{expansion}", "inverted_residual", kernel, expansion) for kernel, expansion in pairs)
        return (Op("input", "input"), Op("output", "output"), *blocks)

    @cached_property
    def _resolutions(self) -> NDArray[np.int64]:
        """The choice of resolution that each choice stands for."""
        step, choices = self.scale["resolution_step"], np.array(RESOLUTIONS)
        nearest = choices[-1] - step * np.rint((choices[-1] - choices) / step)
        away = np.abs(choices - nearest)
        return np.array([np.where(nearest == value, away, np.inf).argmin() for value in nearest])

    def canonical(self, rows: Rows) -> Rows:
        """Set inactive genes to 0 and the resolution to the one that it stands for."""
        result = np.where(self.active(rows), rows, 0)
        result[:, 0] = self._resolutions[rows[:, 0]]
        return result

    def active(self, rows: Rows) -> Mask:
        """All genes are active but those of blocks beyond their stage's depth."""
        always = np.ones((len(rows), FIRST_BLOCK), dtype=np.bool_)
        return np.concatenate([always, np.repeat(used_blocks(rows), 2, axis=1)], axis=1)

    def network(self, row: NDArray[np.int64], task: Task) -> Network:
        """Stem, first block, five stages, head and classifier, for images of the row's resolution."""
        row = self.canonical(row[None])[0]
        resolution, stages = decode(row)
        channels, *sides = task.input_shape
        shape = (channels, *(round(side * resolution / RESOLUTIONS[-1]) for side in sides))
        builder = NetworkBuilder(f"{self.name}_{write(row, '_', '-')}", shape)
        stem, first, *widths = self._channels("widths")
        strides = self.scale["strides"]
        with builder.scope("stem"):
            x = builder.conv_bn(INPUT, stem, 3, strides[0], act="HardSwish")
        with builder.scope("first"):
            x = inverted_residual(builder, x, first, 3, 1, strides[1], "Relu", squeeze=False)
        for i, (blocks, width, first_stride) in enumerate(zip(stages, widths, strides[2:], strict=True)):
            for j, (kernel, expansion) in enumerate(blocks):
                with builder.scope(f"stage{i + 1}_block{j + 1}"):
                    stride = 1 if j else first_stride
                    x = inverted_residual(builder, x, width, kernel, expansion, stride, ACTIVATIONS[i], SQUEEZES[i])
        return builder.build(self._head(builder, x, task.classes))

    def _head(self, builder: NetworkBuilder, x: str, classes: int) -> str:
        expanded, mixed = self._channels("head")
        with builder.scope("head"):
            x = builder.conv_bn(x, expanded, 1, act="HardSwish")
            x = builder.conv(builder.add("GlobalAveragePool", x), mixed, 1)
            x = builder.add("Flatten", builder.act(x, "HardSwish"))
        return builder.linear(x, classes)

    def _channels(self, key: str) -> list[int]:
        return [make_divisible(width * self.scale["width_mult"]) for width in self.scale[key]]

    def graph(self, rows: Rows) -> tuple[Mask, NDArray[np.int64]]:
        """Vertices are the input, the 20 places of blocks and the output, the used ones in a chain; ids index `ops`."""
        ends = np.ones((len(rows), 1), dtype=np.int64)
        kinds = 2 + len(EXPANSIONS) * rows[:, FIRST_BLOCK::2] + rows[:, FIRST_BLOCK + 1 :: 2]
        used = np.concatenate([ends > 0, used_blocks(rows), ends > 0], axis=1)
        ops = np.where(used, np.concatenate([0 * ends, kinds, ends], axis=1), -1)
        place = np.cumsum(used, axis=1)
        follows = place[:, None, :] == place[:, :, None] + 1
        return used[:, :, None] & used[:, None, :] & follows, ops

    def format(self, rows: Rows) -> list[str]:
        """Write resolution and used blocks of each row; rows of one class have one text."""
        return [write(row) for row in self.canonical(rows)]

    def parse(self, texts: Sequence[str]) -> Rows:
        """Read what `format` writes, as canonical rows.

        Raises:
            ArchitectureError: If a text has not five stages of two to four blocks or names an unknown choice.
        """
        return self.canonical(self.check([read(text, self.genes) for text in texts]))
