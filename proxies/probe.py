"""One network under examination: every pass through it runs at most once, for all proxies that read it."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from proxies.passes import Minibatch, Need, Saliences, Shown, curvature, parameters, reweighted, show, synaptic_flow
from searchspaces.errors import ConfigError, TaskError
from searchspaces.network import Arrays, Network, NetworkModule, init_weights, to_torch

OF_IMAGES: frozenset[Need] = frozenset({"labels", "codes", "gradients", "channels", "jacobian", "curvature"})
OF_LABELS: frozenset[Need] = frozenset({"labels", "gradients", "channels", "curvature"})


def fitted(images: Tensor, network: Network) -> Tensor:
    """Return images `(n, c, h, w)` in the size that the network takes, resized as training does."""
    size = network.input_shape[1:]
    return images if images.shape[2:] == size else interpolate(images, size, mode="bilinear", antialias=True)


class Probe:
    """A freshly initialised network, and what passes through it show.

    A minibatch passes forward once for all proxies, in training mode, so batch normalisation uses its statistics;
    then backward once from the loss and once from the outputs, as far as needed. Only `curvature` adds passes.

    Memory is that of one training step on the minibatch. A minibatch cannot be split by images, because their
    statistics are common; `split` cuts the network instead: with `split=k` only tensors that cross the k - 1 cuts and
    one part's tensors are kept at a time, for one more forward pass per backward pass. Scores stay the same to the
    bit.

    Args:
        network: The network.
        images: Minibatch `(n, c, h, w)`, float32, resized to the network's input where needed, or None.
        labels: Their classes `(n,)`, int64, or None.
        needs: What will be read.
        seed: Seed of the initial weights.
        init: Draws the initial weights from the network and the seed.
        split: Parts to cut the network into; the square root of its depth keeps the least.
    """

    def __init__(
        self,
        network: Network,
        images: Tensor | None = None,
        labels: Tensor | None = None,
        needs: Collection[Need] = (),
        seed: int = 0,
        init: Callable[[Network, int], Arrays] = init_weights,
        split: int = 1,
    ) -> None:
        self.network = network
        self.seed = seed
        self._images, self._labels = images, labels
        self._needs = frozenset(needs)
        self._init = init
        self._split = split

    @cached_property
    def module(self) -> NetworkModule:
        """The network in torch, with its initial weights, in training mode."""
        module = to_torch(self.network, self._init(self.network, self.seed)).train()
        # On processors convolutions take about two thirds of the time when channels lie last in memory.
        return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """Initial weights of convolutions and matrices, by name."""
        return {name: parameter.detach() for name, parameter in parameters(self.module).items()}

    @property
    def labels(self) -> Tensor:
        """Classes of the minibatch's images `(n,)`, int64.

        Raises:
            ConfigError: If the proxy that asks does not declare the need.
            TaskError: If there is no minibatch.
        """
        self._declared("labels")
        labels = self._minibatch.labels
        assert labels is not None
        return labels

    @property
    def codes(self) -> Tensor:
        """Kernel `(n, n)`, float64: how many switches are in the same state (on or off) for two images.

        Switches are the elements of the outputs of `Relu` and `Clip`. The diagonal holds their number.

        Raises:
            ConfigError: If the proxy that asks does not declare the need.
            TaskError: If there are no images.
        """
        self._declared("codes")
        return self._shown.codes

    @property
    def gradients(self) -> Saliences:
        """Weight and gradient of the mean cross-entropy per convolution and matrix, by the weight's name.

        Raises:
            ConfigError: If the proxy that asks does not declare the need.
            TaskError: If there are no images and labels.
        """
        self._declared("gradients")
        gradients = self._shown.gradients
        return {name: (weight, gradients[name]) for name, weight in self.weights.items()}

    @property
    def channels(self) -> Mapping[str, Tensor]:
        """Per convolution and matrix, by the weight's name: `(channels,)`, mean over images of squared saliences.

        A channel's salience for an image is the sum over places of its output times the output's gradient.

        Raises:
            ConfigError: If the proxy that asks does not declare the need.
            TaskError: If there are no images and labels.
        """
        self._declared("channels")
        return self._shown.channels.squares

    @property
    def jacobian(self) -> Tensor:
        """Gradient `(n, c · h · w)` of the sum of all outputs by the images.

        Raises:
            ConfigError: If the proxy that asks does not declare the need.
            TaskError: If there are no images.
        """
        self._declared("jacobian")
        jacobian = self._shown.jacobian
        assert jacobian is not None
        return jacobian

    @property
    def curvature(self) -> Saliences:
        """Gradient of the loss, and the loss's Hessian times the weights, per convolution and matrix, by name.

        The Hessian of what autograd differentiates: piecewise linear operators stay on the pieces they are on, and
        jumps of the slope between pieces do not count. It is the central difference of the gradients of weights
        scaled by 1 ± 1/128 with pieces held, two passes forward and backward, which together take about half the time
        of differentiating twice. Against the latter in float64, the product with the gradients was off by 0.04 to 1 %
        in the median of a space's networks and by 2 % at most, and ranked them the same (20 networks, 16 images).

        Raises:
            ConfigError: If the proxy that asks does not declare the need.
            TaskError: If there are no images and labels.
        """
        self._declared("curvature")
        return self._curvature

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

    @contextmanager
    def reweighted(self, weights: Arrays) -> Iterator[NetworkModule]:
        """Give the module other weights for a while; afterwards it is as it was, to the bit.

        Args:
            weights: All weights of the network, keyed `<node>.<weight>`.
        """
        with reweighted(self.module, weights):
            yield self.module

    def _declared(self, need: Need) -> None:
        if need not in self._needs:
            raise ConfigError(f"A proxy reads {need!r} of the probe without naming it: add it to the proxy's `needs`.")

    @cached_property
    def _minibatch(self) -> Minibatch:
        if self._images is None or (self._labels is None and self._needs & OF_LABELS):
            raise TaskError(
                "Proxies of codes or the jacobian need images, those of gradients images and labels: give the probe a "
                "minibatch."
            )
        images = fitted(self._images, self.network).contiguous(memory_format=torch.channels_last)
        return Minibatch(images, self._labels, self._split)

    @cached_property
    def _shown(self) -> Shown:
        return show(self.module, self._minibatch, self._needs)

    @cached_property
    def _curvature(self) -> Saliences:
        return curvature(self.module, self._minibatch, self._shown)

    @cached_property
    def _flow(self) -> Saliences:
        return synaptic_flow(self.module)
