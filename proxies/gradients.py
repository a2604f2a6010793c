"""Proxies read off the gradient of the loss at initialisation (arXiv 2101.08134)."""

from typing import ClassVar, Literal

from proxies.base import Proxy
from proxies.probe import Need, Probe


class GradNorm(Proxy):
    """Sum over convolutions and matrices of the Euclidean norm of the loss gradient."""

    name = "grad_norm"
    normalisation: ClassVar[Literal["linear", "log"]] = "log"
    needs: ClassVar[frozenset[Need]] = frozenset({"gradients"})

    def score(self, probe: Probe) -> float:
        """Return the sum of the layers' gradient norms."""
        return sum(float(gradient.double().norm()) for _, gradient in probe.gradients.values())


class Snip(Proxy):
    """Sum of |gradient × weight| over convolutions and matrices: what removing each weight would change."""

    name = "snip"
    normalisation: ClassVar[Literal["linear", "log"]] = "log"
    needs: ClassVar[frozenset[Need]] = frozenset({"gradients"})

    def score(self, probe: Probe) -> float:
        """Return the summed magnitude of gradient times weight."""
        return sum(float((weight * gradient).double().abs().sum()) for weight, gradient in probe.gradients.values())
