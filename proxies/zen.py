"""Zen-score."""

import numpy as np
import torch
from torch import Tensor, nn

from proxies.base import Proxy
from proxies.probe import Probe
from proxies.weights import gaussian_weights
from searchspaces.errors import ConfigError


class Zen(Proxy):
    """Log of how much a small change of random images changes the features, normalisation undone (arXiv 2102.01063).

    Weights of convolutions and matrices and the images are Gaussian noise. The score is log E|f(x) - f(x + step · ε)|,
    the norm summed over the features before the last global average pooling (the outputs where there is none), plus
    Σ log √(mean over channels of the variance) over batch normalisations. As in the published implementation the
    variance is a running average, begun at 1, over the two passes: 0.81 + 0.09 · first + 0.1 · second. The paper has
    the variance itself, which shifts the score by about 0.8 per batch normalisation. It needs no data.

    Args:
        batch_size: Random images.
        step: Size of the change.
        floor: Smallest change that counts; features of a network that no signal passes do not change at all.
    """

    name = "zen"

    def __init__(self, batch_size: int = 64, step: float = 0.01, floor: float = 1e-12) -> None:
        if batch_size < 2:
            raise ConfigError(f"Batch normalisation needs at least 2 images, but zen has batch_size={batch_size}.")
        self.batch_size = batch_size
        self.floor = floor
        self.step = step

    def score(self, probe: Probe) -> float:
        """Return the score."""
        rng = np.random.default_rng(probe.seed)
        weights = gaussian_weights(probe.network, rng)
        images, noise = (self._noise(rng, probe) for _ in range(2))
        pools = [node.name for node in probe.network.nodes if node.op == "GlobalAveragePool"]
        seen: list[Tensor] = []
        with probe.reweighted(weights) as module, torch.no_grad():
            watched = module.get_submodule(pools[-1] if pools else "")
            handle = watched.register_forward_hook(lambda _, taken, given: seen.append(taken[0] if pools else given))
            try:
                module(images)
                module(images + self.step * noise)
            finally:
                handle.remove()
            norms = [name for name, child in module.named_children() if isinstance(child, nn.BatchNorm2d)]
            variances = [module.get_buffer(f"{name}.running_var").double().mean() for name in norms]
            scale = sum(0.5 * float(variance.log()) for variance in variances)
        change = float((seen[0] - seen[1]).double().abs().flatten(1).sum(1).mean())
        return float(np.log(np.fmax(change, self.floor))) + scale

    def _noise(self, rng: np.random.Generator, probe: Probe) -> Tensor:
        images = rng.standard_normal((self.batch_size, *probe.network.input_shape), dtype=np.float32)
        return torch.from_numpy(images).contiguous(memory_format=torch.channels_last)
