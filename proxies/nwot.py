"""Networks without training: how differently a network treats different images."""

from typing import ClassVar

import torch

from proxies.base import Need, Proxy
from proxies.probe import Probe
from searchspaces.errors import NetworkError


class Nwot(Proxy):
    """Log-determinant of the Hamming kernel of the on/off codes of a minibatch (arXiv 2006.04647).

    The kernel holds, for each two images, the number of switches (elements of the outputs of `Relu` and `Clip`) in the
    same state. A network that gives two images the same code makes it singular, so eigenvalues below `floor` count
    as `floor`.

    Args:
        floor: Smallest eigenvalue; above the rounding errors of kernels of some millions of switches.
    """

    name = "nwot"
    needs: ClassVar[frozenset[Need]] = frozenset({"codes"})

    def __init__(self, floor: float = 1e-6) -> None:
        self.floor = floor

    def score(self, probe: Probe) -> float:
        """Return the log-determinant.

        Raises:
            NetworkError: If the network has no switches.
        """
        kernel = probe.codes
        if not kernel.diagonal().any():
            raise NetworkError(
                f"nwot compares the on/off states of Relu and Clip, and network {probe.network.name!r} has neither: "
                "score this space by other proxies, such as synflow."
            )
        return float(torch.linalg.eigvalsh(kernel).clamp(min=self.floor).log().sum())
