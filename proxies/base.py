"""What a zero-cost proxy is."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from proxies.passes import Need
from proxies.probe import OF_IMAGES, OF_LABELS, Probe

__all__ = ["Need", "Proxy"]


class Proxy(ABC):
    """A number that a network gives before training and that ranks networks.

    Attributes:
        name: What the proxy is called in tables and configurations.
        direction: Whether larger or smaller scores mean better networks.
        normalisation: `log` where scores span many orders of magnitude: models of them should see `normalise`.
        needs: What it reads of the `Probe`: `gradients` of the loss by the weights, `channels` of layers' outputs
            and their gradients, `curvature` (second derivatives), the `jacobian` (derivatives by the images), `codes`
            of switches, the synaptic `flow`, the minibatch's `labels`. What no proxy needs is not computed.
    """

    name: ClassVar[str]
    direction: ClassVar[Literal["maximize", "minimize"]] = "maximize"
    normalisation: ClassVar[Literal["linear", "log"]] = "linear"
    needs: ClassVar[frozenset[Need]] = frozenset()

    @property
    def needs_data(self) -> bool:
        """Whether the proxy reads a minibatch's images."""
        return bool(self.needs & OF_IMAGES)

    @property
    def needs_labels(self) -> bool:
        """Whether the proxy reads a minibatch's labels."""
        return bool(self.needs & OF_LABELS)

    @abstractmethod
    def score(self, probe: Probe) -> float:
        """Return the raw score of the network under `probe`."""

    def normalise(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Return `scores`, or for `log` the sign times log(1 + magnitude), in the same shape and order."""
        values: NDArray[Any] = np.asarray(scores, dtype=np.float64)
        return np.sign(values) * np.log1p(np.abs(values)) if self.normalisation == "log" else values
