"""One network under examination: every pass through it runs at most once, for all proxies that read it."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from searchspaces.errors import ConfigError, TaskError
from searchspaces.network import Network, NetworkModule, to_torch

Need = Literal["codes", "gradients", "flow"]

# Switches: piecewise linear activations that are either on (their slope is one) or off.
_SWITCHES = ("Relu", "Clip")
# What would hide the synaptic flow: normalisation divides it away, saturation stops it.
_BYPASSED = ("BatchNormalization", "LayerNormalization", "Clip")
_LAYERS = ("Conv", "Gemm", "MatMul")

Saliences = Mapping[str, tuple[Tensor, Tensor]]


class Probe:
    """A freshly initialised network, and what forward and backward passes through it show.

    A minibatch passes once, forward and (for `gradients`) backward, in training mode, so batch normalisation uses the
    minibatch's statistics. Memory is that of one training step on the minibatch.

    Args:
        network: The network.
        images: Minibatch `(n, c, h, w)`, float32, or None.
        labels: Their classes `(n,)`, int64, or None.
        needs: The passes that will be read.
        seed: Seed of the initial weights.
    """

    def __init__(
        self,
        network: Network,
        images: Tensor | None = None,
        labels: Tensor | None = None,
        needs: Collection[Need] = (),
        seed: int = 0,
    ) -> None:
        self.network = network
        self._images, self._labels = images, labels
        self._needs = frozenset(needs)
        self._seed = seed

    @cached_property
    def module(self) -> NetworkModule:
        """The network in torch, with its initial weights, in training mode."""
        return to_torch(self.network, seed=self._seed).train()

    @property
    def codes(self) -> Tensor:
        """Kernel `(n, n)`, float64: how many switches are in the same state (on or off) for two images.

        Switches are the elements of the outputs of `Relu` and `Clip`. The diagonal holds their number.

        Raises:
            ConfigError: If the proxy that asks does not declare the need.
            TaskError: If there are no images.
        """
        self._declared("codes")
        return self._minibatch[0]

    @property
    def gradients(self) -> Saliences:
        """Weight and gradient of the mean cross-entropy per convolution and matrix, by the weight's name.

        Raises:
            ConfigError: If the proxy that asks does not declare the need.
            TaskError: If there are no images and labels.
        """
        self._declared("gradients")
        return self._minibatch[1]

    @property
    def flow(self) -> Saliences:
        """Weight and gradient of the synaptic flow per convolution and matrix, float64, by the weight's name.

        The flow is the sum of outputs for an image of ones, all parameters replaced by their magnitudes,
        normalisation and clipping left out (arXiv 2006.05467). It needs no data.

        Raises:
            ConfigError: If the proxy that asks does not declare the need.
        """
        self._declared("flow")
        return self._flow

    def _declared(self, need: Need) -> None:
        if need not in self._needs:
            raise ConfigError(f"A proxy reads {need!r} of the probe without naming it: add it to the proxy's `needs`.")

    @cached_property
    def _layers(self) -> dict[str, nn.Parameter]:
        names = [f"{node.name}.weight" for node in self.network.nodes if node.op in _LAYERS and node.weights]
        return {name: self.module.get_parameter(name) for name in names}

    @cached_property
    def _minibatch(self) -> tuple[Tensor, Saliences]:
        if self._images is None or ("gradients" in self._needs and self._labels is None):
            raise TaskError("Proxies that look at codes need images, those that look at gradients images and labels.")
        kernel = torch.zeros(len(self._images), len(self._images), dtype=torch.float64)

        def observe(_: nn.Module, inputs: Any, output: Tensor, low: float, high: float) -> None:
            kernel.add_(_agreement(((output > low) & (output < high)).flatten(1)))

        hooks = []
        for node in self.network.nodes if "codes" in self._needs else ():
            if node.op in _SWITCHES:
                low, high = (float(node.attributes.get(key, limit)) for key, limit in (("min", 0), ("max", "inf")))
                hooks.append((node.name, lambda m, i, o, low=low, high=high: observe(m, i, o, low, high)))
        with self._hooked(hooks), torch.set_grad_enabled("gradients" in self._needs):
            logits = self.module(self._images)
        if "gradients" not in self._needs:
            return kernel, {}
        assert self._labels is not None
        return kernel, self._salience(self._layers, cross_entropy(logits, self._labels))

    @cached_property
    def _flow(self) -> Saliences:
        state = {name: tensor.detach().double() for name, tensor in self.module.state_dict().items()}
        for name, _ in self.module.named_parameters():
            state[name] = state[name].abs()
        layers = {name: state[name].requires_grad_() for name in self._layers}
        ones = torch.ones(1, *self.network.input_shape, dtype=torch.float64)
        hooks = [(node.name, _bypass) for node in self.network.nodes if node.op in _BYPASSED]
        self.module.eval()  # batch normalisation refuses a single image in training mode, though it is bypassed
        try:
            with self._hooked(hooks):
                total = functional_call(self.module, state, (ones,)).sum()
        finally:
            self.module.train()
        return self._salience(layers, total)

    @staticmethod
    def _salience(layers: Mapping[str, Tensor], value: Tensor) -> Saliences:
        gradients = torch.autograd.grad(value, list(layers.values())) if layers else ()
        return {name: (layer.detach(), grad) for (name, layer), grad in zip(layers.items(), gradients, strict=True)}

    @contextmanager
    def _hooked(self, hooks: Collection[tuple[str, Callable[..., Any]]]) -> Iterator[None]:
        handles = [self.module.get_submodule(name).register_forward_hook(hook) for name, hook in hooks]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _bypass(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return inputs[0]


def _agreement(on: Tensor) -> Tensor:
    """Count the columns in which two rows of `on` `(n, units)` agree; `(n, n)`, float64."""
    codes = on.to(torch.float32)  # exact: counts stay far below 2**24
    both = (codes @ codes.T).double()
    sums = both.diagonal()
    return on.shape[1] - sums[:, None] - sums[None] + 2 * both
