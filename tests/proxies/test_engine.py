"""The engine that scores batches of architectures."""

from typing import Any

import numpy as np
import pytest
import torch

from proxies import Probe, Proxy, Snip, score
from proxies.engine import SHIPPED
from searchspaces.arch import ArchBatch
from searchspaces.errors import ArchitectureError, ConfigError, NetworkError, TaskError
from searchspaces.genes import Gene, GeneSpace, JointSpace
from searchspaces.network import INPUT, Network, NetworkBuilder, NetworkModule, init_weights
from searchspaces.space import SearchSpace
from searchspaces.task import Task

TASK = Task("tiny", (1, 6, 6), 3)
RNG = np.random.default_rng(0)
DATA = (RNG.standard_normal((8, 1, 6, 6)), RNG.integers(0, 3, 8))


class Toy(SearchSpace):
    name = "toy"
    genes = (Gene("width", (2, 4, 8), ordered=True), Gene("kernel", (1, 3)))

    def network(self, row: Any, task: Task) -> Network:
        b = NetworkBuilder("toy", task.input_shape)
        x = b.conv_bn(INPUT, (2, 4, 8)[row[0]], (1, 3)[row[1]])
        return b.build(b.classifier(b.conv_bn(x, 4, 3, stride=2), task.classes))


ARCHS = ArchBatch(Toy(), [[0, 0], [1, 1], [2, 0], [2, 1]])


class Broken(Proxy):
    name = "broken"

    def score(self, probe: Probe) -> float:
        return float("inf") if probe.network.params > 200 else 0.0


def test_scores_are_arrays_by_name() -> None:
    scores = score(ARCHS, TASK, list(SHIPPED), DATA)
    assert list(scores) == list(SHIPPED)
    for values in scores.values():
        assert values.shape == (4,) and values.dtype == np.float64
        assert np.isfinite(values).all() and len(set(values)) == 4
    np.testing.assert_array_equal(scores["params"], [Toy().network(row, TASK).params for row in ARCHS.rows])


def test_scores_are_deterministic_and_independent_of_company() -> None:
    scores = score(ARCHS, TASK, list(SHIPPED), DATA, seed=3)
    torch.manual_seed(99)
    order = np.array([3, 1, 0, 2])
    again = score(ARCHS[order], TASK, list(SHIPPED)[::-1], DATA, seed=3)
    for name, values in scores.items():
        np.testing.assert_array_equal(values[order], again[name])
        np.testing.assert_array_equal(values[1:2], score(ARCHS[1], TASK, [name], DATA, seed=3)[name])
    other = score(ARCHS, TASK, list(SHIPPED), DATA, seed=4)
    for name, values in scores.items():
        assert (name in ("params", "macs", "flops")) == bool((values == other[name]).all())


def test_proxies_share_one_module_and_its_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {"built": 0, "run": 0}
    build, run = NetworkModule.__init__, NetworkModule.forward

    def counted_build(self: NetworkModule, network: Network) -> None:
        counts["built"] += 1
        build(self, network)

    def counted_run(self: NetworkModule, x: torch.Tensor) -> torch.Tensor:
        counts["run"] += 1
        return run(self, x)

    monkeypatch.setattr(NetworkModule, "__init__", counted_build)
    monkeypatch.setattr(NetworkModule, "forward", counted_run)
    score(ARCHS, TASK, ["params", "macs", "flops"])
    assert counts == {"built": 0, "run": 0}
    score(ARCHS, TASK, ["l2_norm"])
    assert counts == {"built": 4, "run": 0}
    score(ARCHS, TASK, ["plain", "snip", "fisher", "nwot", "grad_norm", "jacov", "epe_nas"], DATA)
    assert counts == {"built": 8, "run": 4}
    score(ARCHS, TASK, list(SHIPPED), DATA)
    assert counts == {"built": 12, "run": 4 + 4 * (1 + 2 + 1 + 2)}  # minibatch, curvature, flow, zen


def test_proxies_may_be_objects_and_batches_empty() -> None:
    assert set(score(ARCHS, TASK, [Snip(), "macs"], DATA)) == {"snip", "macs"}
    assert score(ARCHS[:0], TASK, ["macs", "synflow"])["synflow"].shape == (0,)


@pytest.mark.parametrize(
    ("archs", "proxies", "data", "error", "message"),
    [
        (ARCHS, ["sinflow"], None, ConfigError, "Unknown proxy 'sinflow'. Did you mean 'synflow'"),
        (ARCHS, ["snip", Snip()], DATA, ConfigError, "has one twice"),
        (ARCHS, ["macs", "snip", "nwot"], None, TaskError, "proxies snip, nwot need a minibatch"),
        (ARCHS, ["snip"], (DATA[0][:, :, :5], DATA[1]), TaskError, "(8, 1, 5, 6)"),
        (ARCHS, ["snip"], (DATA[0], DATA[1][:5]), TaskError, "(5,)"),
        (ARCHS, ["snip"], (DATA[0][:1], DATA[1][:1]), TaskError, "m ≥ 2"),
        (ARCHS, ["epe_nas"], (DATA[0][:3], np.arange(3)), TaskError, "3 images of as many classes"),
        (ARCHS, ["snip"], (DATA[0] * np.nan, DATA[1]), TaskError, "finite"),
        (ARCHS, ["snip"], ((DATA[0] * 255).astype(np.uint8), DATA[1]), TaskError, "uint8"),
        (ARCHS, ["snip"], (DATA[0], DATA[1] + 1), TaskError, "integers from 0 to 2"),
        (ARCHS, ["snip"], (DATA[0], DATA[1] * 0.5), TaskError, "float64"),
        (ARCHS, [Broken()], None, NetworkError, "'broken' gives inf for architecture '4,3'"),
    ],
)
def test_refusals(archs: ArchBatch, proxies: Any, data: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        score(archs, TASK, proxies, data)
    assert message in str(caught.value)


@pytest.mark.parametrize("split", [2, 5, 100])
def test_scores_of_split_networks_are_the_same_to_the_bit(split: int) -> None:
    """Cut networks run parts again for the backward passes; nothing may be counted twice, nothing missed."""
    whole = score(ARCHS, TASK, list(SHIPPED), DATA, seed=3)
    for name, values in score(ARCHS, TASK, list(SHIPPED), DATA, seed=3, split=split).items():
        np.testing.assert_array_equal(values, whole[name], err_msg=name)
    with pytest.raises(ConfigError, match="split=0"):
        score(ARCHS, TASK, ["snip"], DATA, split=0)


def test_images_are_resized_to_the_network() -> None:
    """A space may choose resolutions: images of the task are scaled as training scales them."""

    class Half(Toy):
        def network(self, row: Any, task: Task) -> Network:
            return super().network(row, Task("half", (1, 3, 3), 3))

    small = torch.nn.functional.interpolate(torch.tensor(DATA[0]), (3, 3), mode="bilinear", antialias=True).numpy()
    names = ["snip", "nwot", "jacov"]
    want = score(ARCHS, Task("half", (1, 3, 3), 3), names, (small, DATA[1]))
    for name, values in score(ArchBatch(Half(), ARCHS.rows), TASK, names, DATA).items():
        np.testing.assert_allclose(values, want[name], rtol=1e-5, err_msg=name)


def test_initial_weights_can_be_chosen() -> None:
    double = score(ARCHS, TASK, ["l2_norm"], init=lambda network, seed: _times(2, init_weights(network, seed)))
    np.testing.assert_allclose(double["l2_norm"], 2 * score(ARCHS, TASK, ["l2_norm"])["l2_norm"], rtol=1e-6)


def _times(factor: float, weights: Any) -> dict[str, Any]:
    return {key: factor * array for key, array in weights.items()}


def test_rows_without_networks_are_refused() -> None:
    class Policy(GeneSpace):
        name = "policy"
        genes = (Gene("bits", (4, 8)),)

    joint = JointSpace(architecture=Toy(), policy=Policy())
    with pytest.raises(ArchitectureError, match=r"toy\+policy.*part"):
        score(ArchBatch(joint, [[0, 0, 1]]), TASK, ["macs"])
