"""Size as a proxy: hard to beat, and free."""

from typing import ClassVar, Literal

from proxies.base import Proxy
from proxies.probe import Probe


class Params(Proxy):
    """Number of trainable parameters."""

    name = "params"
    normalisation: ClassVar[Literal["linear", "log"]] = "log"

    def score(self, probe: Probe) -> float:
        """Return the number of trainable parameters."""
        return float(probe.network.params)


class Macs(Proxy):
    """Number of multiply-accumulate operations for one image."""

    name = "macs"
    normalisation: ClassVar[Literal["linear", "log"]] = "log"

    def score(self, probe: Probe) -> float:
        """Return the multiply-accumulate operations for one image."""
        return float(probe.network.macs)
