"""Proxies read off the gradient of the loss at initialisation (arXiv 2101.08134)."""

from typing import ClassVar, Literal

from proxies.base import Need, Proxy
from proxies.probe import Probe


class GradNorm(Proxy):
    """Sum over convolutions and matrices of the Euclidean norm of the loss gradient."""

    name = "grad_norm"
    normalisation: ClassVar[Literal["linear", "log"]] = "log"
    needs: ClassVar[frozenset[Need]] = frozenset({"gradients"})

    def score(self, probe: Probe) -> float:
        """Return the sum of the layers' gradient norms."""
        return sum(float(gradient.double().norm()) for _, gradient in probe.gradients.values())


class Plain(Proxy):
    """Sum of gradient × weight over convolutions and matrices, with its sign.

    Batch normalisation undoes the scale of the layer before it, so such a layer adds zero, up to rounding: in
    most networks of today the score is that of the last matrix and of the few convolutions that nothing
    normalises. It ranks accuracy weakly, and in some spaces the wrong way round.
    """

    name = "plain"
    normalisation: ClassVar[Literal["linear", "log"]] = "log"
    needs: ClassVar[frozenset[Need]] = frozenset({"gradients"})

    def score(self, probe: Probe) -> float:
        """Return the summed product of gradient and weight."""
        return sum(float((weight.double() * gradient.double()).sum()) for weight, gradient in probe.gradients.values())


class Snip(Proxy):
    """Sum of |gradient × weight| over convolutions and matrices: what removing each weight would change."""

    name = "snip"
    normalisation: ClassVar[Literal["linear", "log"]] = "log"
    needs: ClassVar[frozenset[Need]] = frozenset({"gradients"})

    def score(self, probe: Probe) -> float:
        """Return the summed magnitude of gradient times weight."""
        return sum(float((weight * gradient).double().abs().sum()) for weight, gradient in probe.gradients.values())


class Fisher(Proxy):
    """What removing each channel of the layers' outputs would change, to second order (arXiv 1801.05787, 2101.08134).

    Half of the channels' mean squared saliences (`Probe.channels`). As in the published scores, a channel counts as
    often as it has weights.
    """

    name = "fisher"
    normalisation: ClassVar[Literal["linear", "log"]] = "log"
    needs: ClassVar[frozenset[Need]] = frozenset({"channels"})

    def score(self, probe: Probe) -> float:
        """Return the sum over channels and their weights."""
        weights = probe.weights
        return sum(
            0.5 * float(squares.double().sum()) * (weights[name].numel() // len(squares))
            for name, squares in probe.channels.items()
        )


class Grasp(Proxy):
    """Minus the sum of weight × (Hessian · gradient) over convolutions and matrices (arXiv 2002.07376, 2101.08134).

    Computed as gradient × (Hessian · weight), which is the same as the Hessian is symmetric, and differentiates along
    the smoother direction; see `Probe.curvature` for its error.
    """

    name = "grasp"
    normalisation: ClassVar[Literal["linear", "log"]] = "log"
    needs: ClassVar[frozenset[Need]] = frozenset({"curvature"})

    def score(self, probe: Probe) -> float:
        """Return minus the sum of the products."""
        return -sum(float((gradient * product).sum()) for gradient, product in probe.curvature.values())
