"""Forward passes that keep less for the backward pass."""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

from torch import Tensor
from torch.utils.checkpoint import checkpoint

from searchspaces.network import INPUT, NetworkModule, Node


def forward(module: NetworkModule, images: Tensor, parts: int) -> Tensor:
    """Run `module` on images `(n, c, h, w)`, cut into `parts` consecutive parts.

    Only tensors that pass from part to part are kept for the backward pass, which runs each part once more; the
    result and its gradients are the same. Images are not split: batch normalisation couples them.
    """
    if parts == 1:
        result: Tensor = module(images)
        return result
    nodes = module.network.nodes
    values = {INPUT: images}
    borders = sorted({i * len(nodes) // parts for i in range(parts + 1)})
    for start, end in pairwise(borders):
        part = nodes[start:end]
        later = {name for node in nodes[end:] for name in node.inputs} | {module.network.output}
        taken = [name for name in values if any(name in node.inputs for node in part)]
        made = [node.name for node in part if node.name in later]
        tensors = [values[name] for name in taken]
        run = partial(_run, module, part, taken, made)
        results = checkpoint(run, *tensors, use_reentrant=False, preserve_rng_state=False)
        values = {name: value for name, value in values.items() if name in later}
        values |= dict(zip(made, results, strict=True))
    return values[module.network.output]


def _run(
    module: NetworkModule, part: Sequence[Node], taken: Sequence[str], made: Sequence[str], *tensors: Tensor
) -> tuple[Tensor, ...]:
    values = dict(zip(taken, tensors, strict=True))
    for node in part:
        values[node.name] = module.get_submodule(node.name)(*(values[name] for name in node.inputs))
    return tuple(values[name] for name in made)
