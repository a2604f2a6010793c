"""A search space as a plug-in: plain convolutional networks, three stages of one to three layers."""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nasflow import INPUT, Gene, Network, NetworkBuilder, Rows, SearchSpace, Task

STAGES, LAYERS = 3, 3


class PlainNet(SearchSpace):
    """Per stage its depth, and per layer kernel and width; layers beyond the depth do not exist."""

    name = "plainnet"
    genes = tuple(
        gene
        for stage in range(STAGES)
        for gene in (
            Gene(f"depth{stage}", tuple(range(1, LAYERS + 1)), ordered=True),
            *(Gene(f"kernel{stage}{layer}", (1, 3, 5), ordered=True) for layer in range(LAYERS)),
            *(Gene(f"width{stage}{layer}", (0.5, 1.0, 2.0), ordered=True) for layer in range(LAYERS)),
        )
    )
    scales: ClassVar[dict[str, dict[str, Any]]] = {"full": {"stem": 32}, "small": {"stem": 8}}

    def active(self, rows: Rows) -> NDArray[np.bool_]:
        """Layers up to the depth count."""
        stages = rows.reshape(len(rows), STAGES, 1 + 2 * LAYERS)
        exists = np.arange(LAYERS) <= stages[:, :, :1]
        depth = np.ones((len(rows), STAGES, 1), dtype=np.bool_)
        return np.concatenate([depth, exists, exists], axis=2).reshape(rows.shape)

    def canonical(self, rows: Rows) -> Rows:
        """Set the genes of layers that do not exist to 0."""
        return np.where(self.active(rows), rows, 0)

    def network(self, row: NDArray[np.int64], task: Task) -> Network:
        """Convolution, batch normalisation and ReLU per layer; max pooling between stages."""
        builder = NetworkBuilder(self.name, task.input_shape)
        x = INPUT
        for stage, (depth, *rest) in enumerate(row.reshape(STAGES, -1).tolist()):
            for layer in range(depth + 1):
                kernel, width = (1, 3, 5)[rest[layer]], (0.5, 1.0, 2.0)[rest[LAYERS + layer]]
                x = builder.conv_bn(x, int(self.scale["stem"] * 2**stage * width), kernel)
            if stage < STAGES - 1:
                x = builder.pool(x, "MaxPool", 2, stride=2, padding=0)
        return builder.build(builder.classifier(x, task.classes))
