"""What is read off a network while a minibatch passes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def agreement(on: Tensor) -> Tensor:
    """Count the columns in which two rows of `on` `(n, units)` agree; `(n, n)`, float64."""
    codes = on.to(torch.float32)  # exact: counts stay far below 2**24
    both = (codes @ codes.T).double()
    sums = both.diagonal()
    return on.shape[1] - sums[:, None] - sums[None] + 2 * both


class Channels:
    """Collects, per layer and channel of its output, the mean over images of (Σ over places of value · gradient)².

    Its hooks must stay in place until the backward passes are through. Values are kept by autograd, which already
    keeps them for the next layer, and not by a closure: so a forward pass that is run again for its backward pass
    frees them in between.
    """

    def __init__(self) -> None:
        self.collecting = False
        self.squares: dict[str, Tensor] = {}

    def hook(self, name: str, axis: int) -> Callable[[nn.Module, Any, Tensor], Tensor]:
        """Return a forward hook for the layer `name`, whose channels lie along `axis`."""

        def report(output: Tensor, gradient: Tensor) -> None:
            if self.collecting:
                places = [i for i in range(1, output.dim()) if i != axis % output.dim()]
                product = output * gradient
                sums = product.sum(places) if places else product
                self.squares[name] = sums.square().mean(0)

        return lambda module, inputs, output: _Watched.apply(output, report)  # type: ignore[no-untyped-call]


class _Watched(torch.autograd.Function):
    """The identity, which reports its value together with its gradient."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, report: Callable[[Tensor, Tensor], None]) -> Tensor:
        ctx.save_for_backward(output)
        ctx.report = report
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (output,) = ctx.saved_tensors
        ctx.report(output, gradient)
        return gradient, None
