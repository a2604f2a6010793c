"""Proxies of how differently a network's outputs change with different images."""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from proxies.base import Need, Proxy
from proxies.probe import Probe
from searchspaces.errors import TaskError

_MANY_CLASSES = 100


class Jacov(Proxy):
    """Minus Σ (log(λ + k) + 1 / (λ + k)) over the eigenvalues λ of the correlations between images' jacobians.

    Called `jacob_cov` in arXiv 2101.08134, after the first version of arXiv 2006.04647. It is largest, about minus
    the number of images, where the jacobians of no two images are correlated.

    Args:
        floor: k, added to eigenvalues.
    """

    name = "jacov"
    normalisation: ClassVar[Literal["linear", "log"]] = "log"
    needs: ClassVar[frozenset[Need]] = frozenset({"jacobian"})

    def __init__(self, floor: float = 1e-5) -> None:
        self.floor = floor

    def score(self, probe: Probe) -> float:
        """Return the score."""
        values = torch.linalg.eigvalsh(_correlations(probe.jacobian)).clamp(min=0) + self.floor
        return -float((values.log() + 1 / values).sum())


class EpeNas(Proxy):
    """Correlations between jacobians of images of one class, added up over classes (arXiv 2102.08099).

    A class scores Σ log(|correlation| + k) over all pairs of its images. With up to 100 outputs the score is the sum of
    the classes' magnitudes, beyond that the classes' scores are divided by their images, and the score is the sum of
    the differences between any two classes over the number of classes. Classes of a single image are left out.

    Args:
        floor: k, added to correlations.
    """

    name = "epe_nas"
    normalisation: ClassVar[Literal["linear", "log"]] = "log"
    needs: ClassVar[frozenset[Need]] = frozenset({"jacobian", "labels"})

    def __init__(self, floor: float = 1e-5) -> None:
        self.floor = floor

    def score(self, probe: Probe) -> float:
        """Return the score.

        Raises:
            TaskError: If no two images have one class.
        """
        jacobian, labels = probe.jacobian, probe.labels
        outputs = probe.network.shapes[probe.network.output][-1]
        classes = [jacobian[labels == label] for label in sorted(set(labels.tolist()))]
        scores = torch.tensor([self._class_score(rows, outputs) for rows in classes if len(rows) > 1])
        if not len(scores):
            raise TaskError(
                f"epe_nas compares images of one class, but the minibatch has {len(labels)} images of as many classes: "
                "pass more images."
            )
        if outputs <= _MANY_CLASSES:
            return float(scores.abs().sum())
        return float((scores[:, None] - scores[None]).abs().sum() / len(scores))

    def _class_score(self, jacobian: Tensor, outputs: int) -> float:
        total = float((_correlations(jacobian).abs() + self.floor).log().sum())
        return total / len(jacobian) if outputs > _MANY_CLASSES else total


def _correlations(rows: Tensor) -> Tensor:
    """Correlations `(n, n)` between rows `(n, d)`, float64; a constant row correlates fully with all others.

    A network that answers no image, or all in the same way, so gets the worst score of those that are defined.
    """
    centred = rows.double() - rows.double().mean(1, keepdim=True)
    norms = torch.linalg.vector_norm(centred, dim=1)
    constant = norms == 0
    unit = centred / norms.masked_fill(constant, 1.0)[:, None]
    correlations: Tensor = (unit @ unit.T).clamp(-1, 1)
    correlations[constant] = 1.0
    correlations[:, constant] = 1.0
    return correlations
