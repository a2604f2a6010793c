"""Synaptic flow."""

from typing import ClassVar, Literal

from proxies.base import Need, Proxy
from proxies.probe import Probe


class SynFlow(Proxy):
    """Sum of |gradient × weight| of the synaptic flow over convolutions and matrices (arXiv 2101.08134, 2006.05467).

    Equals the flow times the number of layers in a chain, and reaches 1e61 in deep networks.
    """

    name = "synflow"
    normalisation: ClassVar[Literal["linear", "log"]] = "log"
    needs: ClassVar[frozenset[Need]] = frozenset({"flow"})

    def score(self, probe: Probe) -> float:
        """Return the summed magnitude of flow gradient times weight."""
        return sum(float((weight * gradient).abs().sum()) for weight, gradient in probe.flow.values())
