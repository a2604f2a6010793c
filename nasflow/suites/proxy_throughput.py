"""How fast zero-cost proxies score networks, beside one pass per proxy as in the published implementation."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from devices import exclusive
from nasflow.flow import whole
from nasflow.suites.base import Cell, Row
from proxies import score
from proxies.engine import SHIPPED
from proxies.probe import fitted
from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError, unknown
from searchspaces.network import Network, init_weights, to_torch
from searchspaces.space import SearchSpace
from searchspaces.task import Task


class ProxyThroughput:
    """Seconds per network of each proxy and of sets of proxies, on one thread, and the ratio to one pass per proxy.

    `one pass per proxy` is the procedure published with arXiv 2101.08134, written plainly: each proxy gets a module of
    its own and runs its own passes. It covers the proxies of `ONE_PASS`; methods with others have no ratio. Both ways
    score the same networks in turn, on the same noise images, holding the machine's lock. Seconds are those of the
    processor.

    Args:
        spaces: Search spaces by the names of their tasks in the table.
        task: Images and classes to score for, by the same names.
        sets: Proxies to score together, by the names of the sets.
        published: By task: seconds per proxy and network of a publication, and its `source`.
        archs: Random architectures per cell.
        batch_size: Images in the minibatch.
        seeds: Seeds per cell.

    Raises:
        ConfigError: If a number is too small, a space has no task, or a set names an unknown proxy.
    """

    name = "proxy_throughput"
    samples: Sequence[int] = (0,)
    version = 1

    def __init__(
        self,
        spaces: Mapping[str, SearchSpace],
        task: Mapping[str, Task],
        sets: Mapping[str, Sequence[str]],
        published: Mapping[str, Mapping[str, Any]] | None = None,
        archs: int = 5,
        batch_size: int = 64,
        seeds: int = 3,
    ) -> None:
        lacking = sorted(set(spaces) - set(task))
        if lacking:
            raise ConfigError(f"Each of suite.spaces needs an entry of its name in suite.task; {lacking} have none.")
        self.spaces = spaces
        self.task = task
        self.archs = whole("suite.archs", archs, 1)
        self.batch_size = whole("suite.batch_size", batch_size, 2)
        self.seeds = whole("suite.seeds", seeds, 1)
        self.sets = {name: (name,) for name in SHIPPED} | {name: tuple(proxies) for name, proxies in sets.items()}
        for proxy in (proxy for proxies in self.sets.values() for proxy in proxies):
            if proxy not in SHIPPED:
                raise ConfigError(unknown("proxy", proxy, SHIPPED))
        self.tasks = tuple(spaces)
        self.methods = tuple(self.sets)
        self.published = tuple(
            Row(name, proxy, 0, "seconds", float(seconds), None, (), None, rows["source"])
            for name, rows in (published or {}).items()
            for proxy, seconds in rows["seconds"].items()
        )

    def settings(self) -> Mapping[str, Any]:
        """Fingerprints of the spaces, the sets and the sizes."""
        spaces = {name: space.fingerprint for name, space in self.spaces.items()}
        sizes = {"archs": self.archs, "batch_size": self.batch_size, "torch": torch.__version__}
        return {"spaces": spaces, "sets": {name: list(proxies) for name, proxies in self.sets.items()}} | sizes

    def run(self, cell: Cell) -> Mapping[str, float]:
        """Return seconds per network with their spread over networks, and the ratio to one pass per proxy."""
        space, task, proxies = self.spaces[cell.task], self.task[cell.task], self.sets[cell.method]
        rng = np.random.default_rng(cell.seed)
        archs = ArchBatch(space, space.sample(self.archs + 1, rng))
        data = (
            rng.standard_normal((self.batch_size, *task.input_shape), dtype=np.float32),
            rng.integers(0, task.classes, self.batch_size),
        )
        compared = all(proxy in ONE_PASS for proxy in proxies)
        times = []
        with _one_thread():
            for i in range(len(archs)):
                with exclusive():
                    shared = _seconds(partial(score, archs[i], task, proxies, data, cell.seed))
                    network = space.network(archs.rows[i], task)
                    apart = _seconds(partial(one_pass, network, proxies, data, cell.seed)) if compared else 0.0
                times.append((shared, apart))
        return _summary(np.array(times)[1:], compared)  # the first network warms up


def _summary(times: NDArray[np.float64], compared: bool) -> dict[str, float]:
    shared, apart = times.T
    found = {"networks_per_s": 1 / shared.mean(), "seconds": shared.mean(), "seconds_std": shared.std()}
    if compared:
        found["one_pass_seconds"] = apart.mean()
        found |= {"ratio": apart.sum() / shared.sum(), "ratio_std": (apart / shared).std()}
    return {name: float(value) for name, value in found.items()}


def _seconds(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def one_pass(network: Network, proxies: Sequence[str], data: tuple[Any, Any], seed: int) -> dict[str, float]:
    """Score a network by those of `proxies` that are in `ONE_PASS`, each with its own module and passes."""
    images, labels = fitted(torch.tensor(data[0]), network), torch.tensor(data[1])
    weights = init_weights(network, seed)
    return {
        proxy: ONE_PASS[proxy](to_torch(network, weights).train(), images, labels)
        for proxy in proxies
        if proxy in ONE_PASS
    }


def _layers(module: nn.Module) -> list[nn.Conv2d | nn.Linear]:
    return [layer for layer in module.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]


def _saliences(module: nn.Module) -> list[Tensor]:
    """Weight times gradient, per layer."""
    return [layer.weight.detach() * layer.weight.grad for layer in _layers(module) if layer.weight.grad is not None]


def _plain(module: nn.Module, images: Tensor, labels: Tensor) -> float:
    cross_entropy(module(images), labels).backward()  # type: ignore[no-untyped-call]
    return sum(float(salience.sum()) for salience in _saliences(module))


def _grad_norm(module: nn.Module, images: Tensor, labels: Tensor) -> float:
    cross_entropy(module(images), labels).backward()  # type: ignore[no-untyped-call]
    return sum(float(layer.weight.grad.norm()) for layer in _layers(module) if layer.weight.grad is not None)


def _snip(module: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Gradients by masks of ones on the weights."""
    weights = {name: weight.detach() for name, weight in module.named_parameters() if weight.dim() > 1}
    masks = {name: torch.ones_like(weight, requires_grad=True) for name, weight in weights.items()}
    outputs = functional_call(module, {name: weights[name] * masks[name] for name in masks}, (images,))
    cross_entropy(outputs, labels).backward()  # type: ignore[no-untyped-call]
    return sum(float(mask.grad.abs().sum()) for mask in masks.values() if mask.grad is not None)


def _fisher(module: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Gradients by the layers' outputs."""
    found = []

    def watch(layer: nn.Conv2d | nn.Linear, inputs: Any, output: Tensor) -> None:
        def backward(gradient: Tensor) -> None:
            sums = (output.detach() * gradient).flatten(2).sum(2) if output.dim() > 2 else output.detach() * gradient
            found.append(float(0.5 * sums.square().mean(0).sum()) * layer.weight[0].numel())

        output.register_hook(backward)  # type: ignore[no-untyped-call]

    for layer in _layers(module):
        layer.register_forward_hook(watch)
    cross_entropy(module(images), labels).backward()  # type: ignore[no-untyped-call]
    return sum(found)


def _grasp(module: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The gradient, then the gradient once more, and its own gradient along the first."""
    weights = [layer.weight for layer in _layers(module)]
    first = torch.autograd.grad(cross_entropy(module(images), labels), weights)
    second = torch.autograd.grad(cross_entropy(module(images), labels), weights, create_graph=True)
    torch.stack([(one * two).sum() for one, two in zip(first, second, strict=True)]).sum().backward()  # type: ignore[no-untyped-call]
    return -sum(float(salience.sum()) for salience in _saliences(module))


def _jacov(module: nn.Module, images: Tensor, labels: Tensor) -> float:
    images = images.clone().requires_grad_()
    outputs = module(images)
    outputs.backward(torch.ones_like(outputs))
    assert images.grad is not None
    values = np.linalg.eigvalsh(np.corrcoef(images.grad.flatten(1).numpy())) + 1e-5
    return float(-np.sum(np.log(values) + 1 / values))


def _synflow(module: nn.Module, images: Tensor, labels: Tensor) -> float:
    module.double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.abs_()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.register_forward_hook(lambda layer, inputs, output: inputs[0])
    module(torch.ones_like(images[:1], dtype=torch.float64)).sum().backward()
    return sum(float(salience.abs().sum()) for salience in _saliences(module))


ONE_PASS: Mapping[str, Callable[[nn.Module, Tensor, Tensor], float]] = {
    "synflow": _synflow,
    "snip": _snip,
    "grasp": _grasp,
    "fisher": _fisher,
    "grad_norm": _grad_norm,
    "jacov": _jacov,
    "plain": _plain,
}
