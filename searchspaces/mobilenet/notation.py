"""Choices of the MobileNetV3 space and its text form."""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from searchspaces.errors import ArchitectureError
from searchspaces.genes import Gene, Mask, Rows, choice_index

RESOLUTIONS = tuple(range(128, 225, 4))
DEPTHS = (2, 3, 4)
KERNELS = (3, 5, 7)
EXPANSIONS = (3, 4, 6)
STAGES = 5
BLOCKS = max(DEPTHS)
FIRST_BLOCK = 1 + STAGES
_EXAMPLE = "r192|k3e6,k5e3|k7e4,k3e3,k3e6|k5e6,k5e6|k3e4,k3e4,k5e3,k5e3|k7e6,k3e3"


def make_genes() -> tuple[Gene, ...]:
    """The resolution, the stages' depths, then kernel and expansion of each block."""
    genes = [Gene("resolution", RESOLUTIONS, ordered=True)]
    genes += [Gene(f"stage{stage + 1}_depth", DEPTHS, ordered=True) for stage in range(STAGES)]
    for place in range(STAGES * BLOCKS):
        name = f"stage{place // BLOCKS + 1}_block{place % BLOCKS + 1}"
        genes.append(Gene(f"{name}_kernel", KERNELS, ordered=True))
        genes.append(Gene(f"{name}_expansion", EXPANSIONS, ordered=True))
    return tuple(genes)


def used_blocks(rows: Rows) -> Mask:
    """Tell which blocks are within the depth of their stage, shape `(n, stages * blocks)`."""
    depths = np.array(DEPTHS)[rows[:, 1:FIRST_BLOCK]]
    return (np.arange(BLOCKS) < depths[:, :, None]).reshape(len(rows), STAGES * BLOCKS)


def decode(row: NDArray[np.int64]) -> tuple[int, list[list[tuple[int, int]]]]:
    """Return the resolution, and kernel and expansion of the used blocks of each stage."""
    blocks = row[FIRST_BLOCK:].reshape(STAGES, BLOCKS, 2).tolist()
    return RESOLUTIONS[row[0]], [
        [(KERNELS[kernel], EXPANSIONS[expansion]) for kernel, expansion in stage[: DEPTHS[depth]]]
        for depth, stage in zip(row[1:FIRST_BLOCK], blocks, strict=True)
    ]


def write(row: NDArray[np.int64], between_stages: str = "|", between_blocks: str = ",") -> str:
    """Write the resolution and the used blocks of one row."""
    resolution, stages = decode(row)
    texts = (between_blocks.join(f"k{kernel}e{expansion}" for kernel, expansion in blocks) for blocks in stages)
    return between_stages.join([f"r{resolution}", *texts])


def read(text: str, genes: Sequence[Gene]) -> list[int]:
    """Read what `write` writes, as a row whose unused genes are 0.

    Raises:
        ArchitectureError: If the text has not five stages of two to four blocks or names an unknown choice.
    """
    resolution, *stages = re.sub(r"\s", "", text).split("|")
    if len(stages) != STAGES or not resolution.startswith("r"):
        raise ArchitectureError(
            f"An architecture of the MobileNetV3 space is written r<resolution> and {STAGES} stages, joined by '|', "
            f"for instance {_EXAMPLE}, but {text!r} is not."
        )
    row = [0] * len(genes)
    row[0] = choice_index(genes[0], resolution[1:])
    for i, stage in enumerate(stages):
        blocks = stage.split(",")
        if len(blocks) not in DEPTHS:
            raise ArchitectureError(
                f"A stage of the MobileNetV3 space has {DEPTHS[0]} to {DEPTHS[-1]} blocks separated by commas, "
                f"but stage {i + 1} of {text!r} has {len(blocks)}."
            )
        row[1 + i] = DEPTHS.index(len(blocks))
        for j, block in enumerate(blocks):
            place = FIRST_BLOCK + 2 * (i * BLOCKS + j)
            row[place : place + 2] = _read_block(block, genes[place : place + 2])
    return row


def _read_block(block: str, genes: Sequence[Gene]) -> list[int]:
    match = re.fullmatch(r"k(\d+)e(\d+)", block)
    if match is None:
        raise ArchitectureError(
            f"A block of the MobileNetV3 space is written k<kernel>e<expansion>, for instance k3e6, but got {block!r}."
        )
    return [choice_index(gene, label) for gene, label in zip(genes, match.groups(), strict=True)]
