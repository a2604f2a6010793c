"""The engine: architectures in, one array of scores per proxy out."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from proxies.base import Proxy
from proxies.gradients import Fisher, GradNorm, Grasp, Plain, Snip
from proxies.jacobian import EpeNas, Jacov
from proxies.nwot import Nwot
from proxies.probe import Probe
from proxies.size import Flops, Macs, Params
from proxies.synflow import SynFlow
from proxies.weights import L2Norm
from proxies.zen import Zen
from searchspaces.arch import ArchBatch
from searchspaces.errors import ArchitectureError, ConfigError, NetworkError, TaskError, unknown
from searchspaces.network import Arrays, Network, init_weights
from searchspaces.space import SearchSpace
from searchspaces.task import Task

_FREE = (Params, Macs, Flops, L2Norm, SynFlow, Zen)
_OF_DATA = (Nwot, Jacov, EpeNas, GradNorm, Plain, Snip, Fisher, Grasp)
SHIPPED: Mapping[str, type[Proxy]] = {kind.name: kind for kind in (*_FREE, *_OF_DATA)}


def score(
    archs: ArchBatch,
    task: Task,
    proxies: Sequence[str | Proxy],
    data: tuple[ArrayLike, ArrayLike] | None = None,
    seed: int = 0,
    init: Callable[[Network, int], Arrays] = init_weights,
    split: int = 1,
) -> dict[str, NDArray[np.float64]]:
    """Score architectures by zero-cost proxies.

    Each network is built once, and proxies share the passes through it. A score depends on the architecture, the
    task's shapes, `data`, `seed` and `init` alone, not on the other architectures or proxies. One network is in
    memory at a time, with what a training step on the minibatch takes; see `split`.

    Args:
        archs: `n` architectures of a search space.
        task: Its input shape and classes decide the networks.
        proxies: Proxies, or names of shipped ones.
        data: A minibatch: images `(m, c, h, w)`, scaled as for training, and labels `(m,)`. Proxies of gradients
            and codes need it.
        seed: Seed of the networks' initial weights, the same for all.
        init: Draws the initial weights of a network by the seed; `uniform_weights` are those of published scores.
        split: Into how many parts networks are cut to save memory; scores stay the same, but take longer.

    Returns:
        Raw scores `(n,)`, float64, by the proxies' names; `Proxy.normalise` compresses their scale.

    Raises:
        ArchitectureError: If the architectures do not belong to a search space.
        ConfigError: If a proxy is unknown or named twice, or `split` is below 1.
        TaskError: If the minibatch is missing or does not belong to the task.
        NetworkError: If a score is not defined or not finite.
    """
    if split < 1:
        raise ConfigError(f"Networks are cut into at least 1 part, but split={split}: give the number of parts.")
    chosen = _resolve(proxies)
    needs = frozenset(need for proxy in chosen for need in proxy.needs)
    hungry = [proxy.name for proxy in chosen if proxy.needs_data]
    if data is None and hungry:
        raise TaskError(f"The proxies {', '.join(hungry)} need a minibatch: pass data=(images, labels) of the task.")
    images, labels = (None, None) if data is None else _minibatch(data, task)
    space = archs.space
    if not isinstance(space, SearchSpace):
        raise ArchitectureError(
            f"Proxies score networks, but rows of {space.name!r} describe none: pass the rows of its part that is a "
            "search space."
        )
    scores = {proxy.name: np.empty(len(archs)) for proxy in chosen}
    for i, row in enumerate(archs.rows):
        probe = Probe(space.network(row, task), images, labels, needs, seed, init, split)
        for proxy in chosen:
            scores[proxy.name][i] = _finite(proxy.score(probe), proxy, archs[i])
    return scores


def _resolve(proxies: Sequence[str | Proxy]) -> list[Proxy]:
    chosen: list[Proxy] = []
    for proxy in proxies:
        if isinstance(proxy, str):
            if proxy not in SHIPPED:
                raise ConfigError(unknown("proxy", proxy, SHIPPED))
            proxy = SHIPPED[proxy]()
        chosen.append(proxy)
    names = [proxy.name for proxy in chosen]
    if len(set(names)) != len(names):
        raise ConfigError(f"Scores are stored by the proxies' names, but {names} has one twice: leave it out.")
    return chosen


def _minibatch(data: tuple[ArrayLike, ArrayLike], task: Task) -> tuple[Tensor, Tensor]:
    images, labels = (np.asarray(array) for array in data)
    if images.shape[1:] != task.input_shape or labels.shape != images.shape[:1] or len(images) < 2:
        raise TaskError(
            f"A minibatch for task {task.name!r} is m ≥ 2 images (m, {', '.join(map(str, task.input_shape))}) and as "
            f"many labels (m,), but got arrays of shapes {images.shape} and {labels.shape}."
        )
    if not np.issubdtype(images.dtype, np.floating) or not np.isfinite(images).all():
        raise TaskError(f"Images are finite floating-point numbers, scaled as for training, but got {images.dtype}.")
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= task.classes:
        raise TaskError(
            f"Labels for task {task.name!r} are integers from 0 to {task.classes - 1}, but got {labels.dtype} from "
            f"{labels.min()} to {labels.max()}."
        )
    return torch.tensor(images, dtype=torch.float32), torch.tensor(labels, dtype=torch.int64)


def _finite(value: float, proxy: Proxy, arch: ArchBatch) -> float:
    if not np.isfinite(value):
        raise NetworkError(
            f"Proxy {proxy.name!r} gives {value} for architecture {arch.format()[0]!r}: its network overflows or is "
            "undefined at initialisation. Leave out the proxy or the architecture."
        )
    return value
