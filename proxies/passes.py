"""The passes through a network that proxies read."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from proxies.observers import Channels, agreement
from proxies.segments import forward
from proxies.switches import Switch, holding, switch
from searchspaces.network import Arrays, Network, NetworkModule, Node, load_weights

Need = Literal["labels", "codes", "gradients", "channels", "jacobian", "curvature", "flow"]
Saliences = Mapping[str, tuple[Tensor, Tensor]]
Hooks = Collection[tuple[str, Callable[..., Any]]]

# What would hide the synaptic flow: normalisation divides it away, saturation stops it.
_BYPASSED = ("BatchNormalization", "LayerNormalization", "Clip")
# Relative change of the weights between which gradients are compared. A larger one adds the error of the difference
# (of second order), a smaller one that of float32.
_STEP = 2.0**-7


def layers(network: Network) -> list[Node]:
    """Return the convolutions and learned matrices, whose weights proxies are defined on."""
    return [node for node in network.nodes if node.op in ("Conv", "Gemm", "MatMul") and "weight" in node.weights]


def parameters(module: NetworkModule) -> dict[str, nn.Parameter]:
    """Return the weights of the layers by name."""
    return {name: module.get_parameter(name) for name in (f"{node.name}.weight" for node in layers(module.network))}


@contextmanager
def hooked(module: NetworkModule, hooks: Hooks) -> Iterator[None]:
    """Set forward hooks on nodes for a while."""
    handles = [module.get_submodule(name).register_forward_hook(hook) for name, hook in hooks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def reweighted(module: NetworkModule, weights: Arrays) -> Iterator[None]:
    """Give a module other weights for a while; afterwards weights and running statistics are as they were, to the bit.

    Args:
        module: The module.
        weights: All weights of its network, keyed `<node>.<weight>`.
    """
    former = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    try:
        load_weights(module, weights)
        yield
    finally:
        module.load_state_dict(former)


@dataclass(frozen=True)
class Minibatch:
    """Images `(n, c, h, w)`, labels `(n,)` where they are needed, and into how many parts the network is cut."""

    images: Tensor
    labels: Tensor | None = None
    parts: int = 1


@dataclass
class Shown:
    """What a minibatch shows on its way through the network and back; only what was asked for is filled.

    Attributes:
        codes: Numbers of switches in the same state for two images `(n, n)`, float64.
        gradients: Gradient of the loss by the layers' weights, by name.
        channels: Collector of the saliences of channels.
        jacobian: Gradient of the sum of outputs by the images `(n, c · h · w)`.
        pieces: Which piece each element of the piecewise linear operators is on, by node.
    """

    codes: Tensor
    gradients: dict[str, Tensor] = field(default_factory=dict)
    channels: Channels = field(default_factory=Channels)
    jacobian: Tensor | None = None
    pieces: dict[str, Any] = field(default_factory=dict)


def show(module: NetworkModule, minibatch: Minibatch, needs: Collection[Need]) -> Shown:
    """Pass a minibatch forward once, and backward from the outputs and from the loss as far as `needs` ask."""
    learns = not {"gradients", "channels", "curvature"}.isdisjoint(needs)
    images = minibatch.images.detach().requires_grad_("jacobian" in needs)
    shown = Shown(torch.zeros(len(images), len(images), dtype=torch.float64))
    watch = []
    if "channels" in needs:
        for node in layers(module.network):
            watch.append((node.name, shown.channels.hook(f"{node.name}.weight", 1 if node.op == "Conv" else -1)))
    readers = list(_readers(module.network, shown, needs))
    with hooked(module, watch):
        with hooked(module, readers), torch.set_grad_enabled(learns or images.requires_grad):
            outputs = forward(module, images, minibatch.parts)
        if images.requires_grad:
            (jacobian,) = torch.autograd.grad(outputs.sum(), images, retain_graph=learns)
            shown.jacobian = jacobian.flatten(1)
        if learns:
            shown.channels.collecting = True
            shown.gradients = _gradients(module, outputs, minibatch)
    return shown


def _readers(network: Network, shown: Shown, needs: Collection[Need]) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Hooks that read codes and pieces."""
    for node in network.nodes:
        kind, held = switch(node), holding(node)
        if "codes" in needs and kind is not None and node.op in ("Relu", "Clip"):
            yield node.name, partial(_add_codes, shown, kind)
        if "curvature" in needs and held is not None:
            yield node.name, partial(_keep_pieces, shown, node.name, held[0])


def _add_codes(shown: Shown, kind: Switch, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    on, _ = kind.pieces(inputs[0])
    # Which unit is which does not matter: the order in memory spares a copy.
    shown.codes += agreement((on.permute(0, 2, 3, 1) if on.dim() == 4 else on).flatten(1))


def _keep_pieces(
    shown: Shown, name: str, pieces: Callable[..., Any], module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor
) -> None:
    shown.pieces[name] = pieces(module, inputs[0].detach())


def _gradients(module: NetworkModule, outputs: Tensor, minibatch: Minibatch) -> dict[str, Tensor]:
    assert minibatch.labels is not None
    weights = parameters(module)
    loss = cross_entropy(outputs, minibatch.labels)
    gradients = torch.autograd.grad(loss, list(weights.values())) if weights else ()
    return dict(zip(weights, gradients, strict=True))


def curvature(module: NetworkModule, minibatch: Minibatch, shown: Shown) -> Saliences:
    """Return the gradient of the loss, and its Hessian times the weights, per layer; see `Probe.curvature`.

    Args:
        module: The network.
        minibatch: Images and labels.
        shown: Gradients and pieces of the same minibatch.
    """
    holders = []
    for node in module.network.nodes:
        held = holding(node)
        if held is not None:
            holders.append((node.name, partial(_hold, held[1], shown.pieces[node.name])))
    state = {name: tensor.numpy().copy() for name, tensor in module.state_dict().items()}
    sides = []
    for step in (_STEP, -_STEP):
        scaled = {name: array * (1 + step) if name in shown.gradients else array for name, array in state.items()}
        with reweighted(module, scaled), hooked(module, holders):
            sides.append(_gradients(module, forward(module, minibatch.images, minibatch.parts), minibatch))
    more, less = sides
    return {
        name: (gradient.double(), (more[name].double() - less[name].double()) / (2 * _STEP))
        for name, gradient in shown.gradients.items()
    }


def _hold(
    held: Callable[..., Tensor], pieces: Any, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor
) -> Tensor:
    return held(module, inputs[0], pieces)


def synaptic_flow(module: NetworkModule) -> Saliences:
    """Return weight and gradient of the synaptic flow per layer, float64; see `Probe.flow`."""
    state = {name: tensor.detach().double() for name, tensor in module.state_dict().items()}
    for name, _ in module.named_parameters():
        state[name] = state[name].abs()
    weights = {name: state[name].requires_grad_() for name in parameters(module)}
    ones = torch.ones(1, *module.network.input_shape, dtype=torch.float64)
    hooks = [(node.name, _bypass) for node in module.network.nodes if node.op in _BYPASSED]
    module.eval()  # batch normalisation refuses a single image in training mode, though it is bypassed
    try:
        with hooked(module, hooks):
            total = functional_call(module, state, (ones,)).sum()
    finally:
        module.train()
    gradients = torch.autograd.grad(total, list(weights.values())) if weights else ()
    return {name: (weights[name].detach(), grad) for name, grad in zip(weights, gradients, strict=True)}


def _bypass(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return inputs[0]
