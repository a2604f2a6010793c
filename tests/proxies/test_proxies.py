"""Each proxy against the closed form of a network small enough to have one."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from nasflow.config import composed, instantiate
from proxies import GradNorm, Macs, Need, Nwot, Params, Probe, Proxy, Snip, SynFlow
from proxies.engine import SHIPPED
from searchspaces.errors import ConfigError, NetworkError, TaskError
from searchspaces.network import INPUT, Network, NetworkBuilder, init_weights
from tests.registry import leaves

IMAGE = (2, 3, 3)
RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((5, *IMAGE)).astype(np.float32)
LABELS = np.array([0, 1, 2, 1, 0])
ALL: tuple[Need, ...] = ("codes", "gradients", "flow")


def _probe(network: Network, seed: int = 0, needs: tuple[Need, ...] = ALL) -> Probe:
    return Probe(network, torch.from_numpy(IMAGES), torch.from_numpy(LABELS), needs, seed)


def _network(build: Callable[[NetworkBuilder], str]) -> Network:
    builder = NetworkBuilder("tiny", IMAGE)
    return builder.build(build(builder))


def _classifier(b: NetworkBuilder) -> str:
    return b.linear(b.add("Flatten", INPUT), 3)


def _chain(b: NetworkBuilder) -> str:
    """1×1 convolution, activation, 1×1 convolution, classifier: a chain of three matrices."""
    x = b.act(b.conv(INPUT, 4, 1), "Relu")
    return b.classifier(b.conv(x, 3, 1, bias=True), 3)


def _disconnected(b: NetworkBuilder) -> str:
    return b.classifier(b.act(b.batch_norm(b.zero(b.conv(INPUT, 4, 1))), "Relu"), 3)


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("seed", [0, 1])
def test_gradient_proxies_of_a_linear_classifier(seed: int) -> None:
    """The gradient of the mean cross-entropy of a linear model is (softmax - one-hot)ᵀ · images / m."""
    network = _network(_classifier)
    weight = init_weights(network, seed)["gemm.weight"].astype(np.float64)
    flat = IMAGES.reshape(5, -1).astype(np.float64)
    gradient = (_softmax(flat @ weight.T) - np.eye(3)[LABELS]).T @ flat / len(flat)
    probe = _probe(network, seed)
    assert GradNorm().score(probe) == pytest.approx(np.linalg.norm(gradient), rel=1e-5)
    assert Snip().score(probe) == pytest.approx(np.abs(gradient * weight).sum(), rel=1e-5)


def test_gradient_proxies_sum_over_layers() -> None:
    """Two parallel heads with the same input: norms add up per layer, not over all weights at once."""
    network = _network(lambda b: b.sum([_classifier(b), _classifier(b)]))
    weights = init_weights(network)
    heads = [weights[key].astype(np.float64) for key in weights if key.endswith("weight")]
    flat = IMAGES.reshape(5, -1).astype(np.float64)
    gradient = (_softmax(flat @ sum(heads).T) - np.eye(3)[LABELS]).T @ flat / len(flat)  # type: ignore[union-attr]
    probe = _probe(network)
    assert GradNorm().score(probe) == pytest.approx(2 * np.linalg.norm(gradient), rel=1e-5)
    assert Snip().score(probe) == pytest.approx(sum(np.abs(gradient * head).sum() for head in heads), rel=1e-5)


def test_synflow_of_a_chain() -> None:
    """In a chain of k matrices each layer's saliences sum up to the flow itself, so the score is k times the flow."""
    network = _network(_chain)
    weights = init_weights(network)
    first, second, last = (np.abs(weights[key]).astype(np.float64) for key in weights if key.endswith("weight"))
    flow = (last @ second[:, :, 0, 0] @ first[:, :, 0, 0] @ np.ones(2)).sum()
    assert SynFlow().score(_probe(network)) == pytest.approx(3 * flow, rel=1e-12)


def test_synflow_passes_normalisation_and_clipping() -> None:
    def normalised(b: NetworkBuilder) -> str:
        x = b.add("Clip", b.batch_norm(b.conv(INPUT, 4, 1)), min=0.0, max=1e-3)
        x = b.add("LayerNormalization", x, weights={"weight": (3, 3), "bias": (3, 3)})
        return b.classifier(b.batch_norm(b.conv(x, 3, 1, bias=True)), 3)

    assert SynFlow().score(_probe(_network(normalised))) == SynFlow().score(_probe(_network(_chain)))


def test_synflow_needs_no_data_and_survives_depth() -> None:
    def deep(b: NetworkBuilder) -> str:
        x = b.conv(INPUT, 64, 1)
        for _ in range(40):
            x = b.act(b.batch_norm(b.conv(x, 64, 3)), "Relu")
        return b.classifier(x, 3)

    value = SynFlow().score(Probe(_network(deep), needs=SynFlow.needs))
    assert 1e40 < value < np.inf
    assert 90 < float(SynFlow().normalise(value)) < 300


def test_nwot_is_the_log_determinant_of_the_hamming_kernel() -> None:
    network = _network(lambda b: b.linear(b.act(b.linear(b.add("Flatten", INPUT), 40), "Relu"), 3))
    weights = init_weights(network)
    on = IMAGES.reshape(5, -1) @ weights["gemm.weight"].T > 0
    kernel = 40.0 - (on[:, None] != on[None]).sum(axis=2)
    assert Nwot().score(_probe(network)) == pytest.approx(np.linalg.slogdet(kernel)[1], rel=1e-9)


def test_nwot_adds_up_layers_and_counts_clipping_as_off() -> None:
    def two(b: NetworkBuilder) -> str:
        x = b.add("Clip", INPUT, min=-1.0, max=0.5)
        return b.classifier(b.act(x, "Relu"), 3)

    clipped, on = (IMAGES > -1) & (IMAGES < 0.5), IMAGES > 0
    codes = np.concatenate([clipped, on], axis=1).reshape(5, -1)
    kernel = codes.shape[1] - (codes[:, None] != codes[None]).sum(axis=2)
    torch.testing.assert_close(_probe(_network(two)).codes, torch.from_numpy(kernel).double(), rtol=0, atol=0)


def test_nwot_of_equal_codes_is_at_the_floor() -> None:
    network = _network(_disconnected)
    assert Nwot(floor=1e-3).score(_probe(network)) == pytest.approx(np.log(5 * 36) + 4 * np.log(1e-3), rel=1e-6)


def test_nwot_without_switches_is_undefined() -> None:
    with pytest.raises(NetworkError, match="Relu and Clip, and network 'tiny' has neither"):
        Nwot().score(_probe(_network(_classifier)))


def test_size() -> None:
    network = _network(_chain)
    assert Params().score(Probe(network)) == network.params == 4 * 2 + (3 * 4 + 3) + (9 + 3)
    assert Macs().score(Probe(network)) == network.macs == 9 * (8 + 12) + 9


def test_disconnected_networks_have_finite_scores() -> None:
    probe = _probe(_network(_disconnected))
    scores = {name: kind().score(probe) for name, kind in SHIPPED.items()}
    assert all(np.isfinite(value) for value in scores.values())
    assert scores["synflow"] == scores["grad_norm"] == scores["snip"] == 0


@pytest.mark.parametrize("order", [list(SHIPPED), list(SHIPPED)[::-1]])
def test_scores_do_not_depend_on_who_looked_before(order: list[str]) -> None:
    """Passes share one module: none may leave a trace in it."""
    network = _network(lambda b: b.classifier(b.act(b.batch_norm(b.conv(INPUT, 4, 3)), "Relu"), 3))
    shared = _probe(network)
    for name in order:
        assert SHIPPED[name]().score(shared) == SHIPPED[name]().score(_probe(network)), name


def test_undeclared_needs_and_missing_data_are_refused() -> None:
    network = _network(_chain)
    with pytest.raises(ConfigError, match="'gradients' of the probe without naming it"):
        Snip().score(_probe(network, needs=("codes",)))
    with pytest.raises(TaskError, match="images and labels"):
        Snip().score(Probe(network, torch.from_numpy(IMAGES), None, Snip.needs))
    with pytest.raises(TaskError, match="need images"):
        Nwot().score(Probe(network, needs=Nwot.needs))


def test_normalise() -> None:
    np.testing.assert_allclose(SynFlow().normalise([0.0, 1e61, -1.0]), [0, 61 * np.log(10), -np.log(2)], rtol=1e-12)
    np.testing.assert_array_equal(Nwot().normalise([[-3, 2]]), [[-3.0, 2.0]])


@pytest.mark.parametrize("name", leaves("proxy"))
def test_leaves_build_the_proxy_they_name(name: str) -> None:
    proxy = instantiate(composed("search", [f"+proxy={name}"]).proxy)[name]
    assert isinstance(proxy, Proxy) and proxy.name == name
    assert proxy.direction == "maximize"


def test_every_shipped_proxy_has_a_leaf() -> None:
    assert set(SHIPPED) <= set(leaves("proxy"))
