"""Each proxy against the closed form of a network small enough to have one."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from nasflow.config import composed, instantiate
from proxies import (
    EpeNas,
    Fisher,
    Flops,
    GradNorm,
    Grasp,
    Jacov,
    L2Norm,
    Macs,
    Need,
    Nwot,
    Params,
    Plain,
    Probe,
    Proxy,
    Snip,
    SynFlow,
    Zen,
    uniform_weights,
)
from proxies.engine import SHIPPED
from proxies.segments import forward
from proxies.weights import gaussian_weights
from searchspaces.errors import ConfigError, NetworkError, TaskError
from searchspaces.network import INPUT, Network, NetworkBuilder, init_weights, to_torch
from tests.registry import leaves

IMAGE = (2, 3, 3)
RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((5, *IMAGE)).astype(np.float32)
LABELS = np.array([0, 1, 2, 1, 0])
ALL: tuple[Need, ...] = ("labels", "codes", "gradients", "channels", "jacobian", "curvature", "flow")


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
    assert Plain().score(probe) == pytest.approx((gradient * weight).sum(), rel=1e-5)
    assert L2Norm().score(probe) == pytest.approx(np.linalg.norm(weight), rel=1e-6)


@pytest.mark.parametrize("seed", [0, 1])
def test_grasp_of_a_linear_classifier(seed: int) -> None:
    """The Hessian of the mean cross-entropy maps V to the mean of (diag p - p pᵀ) V x xᵀ."""
    network = _network(_classifier)
    weight = init_weights(network, seed)["gemm.weight"].astype(np.float64)
    flat = IMAGES.reshape(5, -1).astype(np.float64)
    p = _softmax(flat @ weight.T)
    gradient = (p - np.eye(3)[LABELS]).T @ flat / len(flat)
    inner = np.einsum("nij,nj->ni", np.eye(3) * p[:, None] - p[:, :, None] * p[:, None], flat @ gradient.T)
    assert Grasp().score(_probe(network, seed)) == pytest.approx(-(weight * (inner.T @ flat / 5)).sum(), rel=2e-3)


def _kinked(b: NetworkBuilder) -> str:
    """All piecewise linear operators, with and without normalisation before them."""
    x = b.act(b.batch_norm(b.conv(INPUT, 6, 3)), "HardSwish")
    x = b.add("MaxPool", b.conv(x, 6, 1), kernel_shape=(3, 3), strides=(1, 1), pads=(1, 1, 1, 1))
    x = b.add("Clip", b.batch_norm(b.conv(x, 6, 3)), min=-0.5, max=0.7)
    gate = b.add("HardSigmoid", b.conv(x, 6, 1), alpha=0.5, beta=0.4)
    return b.classifier(b.act(b.add("Mul", b.conv(x, 6, 3), gate), "Relu"), 3)


@pytest.mark.parametrize("seed", range(5))
def test_grasp_is_the_second_derivative_that_autograd_gives(seed: int) -> None:
    network = _network(_kinked)
    module = to_torch(network, seed=seed).train().double()
    weights = [parameter for name, parameter in module.named_parameters() if parameter.dim() > 1]
    loss = torch.nn.functional.cross_entropy(module(torch.from_numpy(IMAGES).double()), torch.from_numpy(LABELS))
    gradients = torch.autograd.grad(loss, weights, create_graph=True)
    along = torch.stack([(gradient.detach() * gradient).sum() for gradient in gradients]).sum()
    products = torch.autograd.grad(along, weights)
    exact = -sum(float((w.detach() * product).sum()) for w, product in zip(weights, products, strict=True))
    scale = sum(float(gradient.square().sum().detach()) for gradient in gradients)
    assert Grasp().score(_probe(network, seed)) == pytest.approx(exact, abs=0.01 * max(abs(exact), scale))


def test_normalisation_makes_grasp_the_squared_gradient() -> None:
    """Before batch normalisation the scale w of weights does not matter: w · gradient = 0, and w · Hg = -|g|²."""

    def build(b: NetworkBuilder) -> str:
        return b.add("Flatten", b.add("GlobalAveragePool", b.act(b.batch_norm(b.conv(INPUT, 3, 3)), "Relu")))

    network = _network(build)
    probe = _probe(network)
    ((_, gradient),) = probe.gradients.values()
    assert Grasp().score(probe) == pytest.approx(float(gradient.double().square().sum()), rel=1e-3)
    assert Plain().score(probe) == pytest.approx(0, abs=1e-4 * Snip().score(probe))


def test_fisher_of_linear_outputs() -> None:
    """Outputs z with gradient (p - y) / m: half the mean square of their product, once per weight of the channel."""
    network = _network(_classifier)
    weight = init_weights(network)["gemm.weight"].astype(np.float64)
    z = IMAGES.reshape(5, -1).astype(np.float64) @ weight.T
    products = z * (_softmax(z) - np.eye(3)[LABELS]) / 5
    assert Fisher().score(_probe(network)) == pytest.approx(0.5 * (products**2).mean(0).sum() * 18, rel=1e-5)


@pytest.mark.parametrize("op", ["Conv", "MatMul"])
def test_fisher_sums_over_places(op: str) -> None:
    """Logits that are means over k places of a layer's outputs: each place has the logit's gradient over k."""

    def build(b: NetworkBuilder) -> str:
        if op == "Conv":
            return b.add("Flatten", b.add("GlobalAveragePool", b.conv(INPUT, 3, 1)))
        x = b.add("Transpose", b.add("MatMul", INPUT, weights={"weight": (3, 4)}), perm=(2, 0, 1))  # (4, 2, 3)
        return b.add("Flatten", b.add("GlobalAveragePool", x))

    network = _network(build)
    ((name, weight),) = init_weights(network).items()
    weight = weight.astype(np.float64)
    images = IMAGES.astype(np.float64)
    if op == "Conv":
        logits = np.einsum("nihw,oi->no", images, weight[:, :, 0, 0]) / 9
    else:
        logits = np.einsum("nchw,wk->nk", images, weight) / 6
    products = logits * (_softmax(logits) - np.eye(logits.shape[1])[LABELS]) / 5
    expected = (products**2).mean(0)
    np.testing.assert_allclose(_probe(network).channels[name], expected, rtol=1e-4)
    per_channel = weight.size // len(expected)
    assert Fisher().score(_probe(network)) == pytest.approx(0.5 * expected.sum() * per_channel, rel=1e-4)


def _switched(b: NetworkBuilder) -> str:
    return b.linear(b.act(b.linear(b.add("Flatten", INPUT), 40), "Relu"), 3)


def _jacobian(network: Network) -> np.ndarray:
    """Of the sum of the outputs of `_switched`: rows of the first matrix where units are on, weighted by the second."""
    weights = init_weights(network)
    first, second = (weights[key].astype(np.float64) for key in weights if key.endswith("weight"))
    on = IMAGES.reshape(5, -1).astype(np.float64) @ first.T > 0
    return np.asarray((on * second.sum(0)) @ first)


def test_jacov_and_epe_nas_of_a_network_of_switches() -> None:
    network = _network(_switched)
    probe = _probe(network)
    jacobian = _jacobian(network)
    np.testing.assert_allclose(probe.jacobian, jacobian, rtol=1e-4, atol=1e-5)
    eigenvalues = np.linalg.eigvalsh(np.corrcoef(jacobian)) + 1e-5
    assert Jacov().score(probe) == pytest.approx(-(np.log(eigenvalues) + 1 / eigenvalues).sum(), rel=1e-4)
    pairs = [np.abs(np.corrcoef(jacobian[label == LABELS])) + 1e-5 for label in (0, 1)]  # class 2 has one image
    assert EpeNas().score(probe) == pytest.approx(sum(abs(np.log(pair).sum()) for pair in pairs), rel=1e-4)


def test_epe_nas_with_many_outputs_compares_classes() -> None:
    network = _network(lambda b: b.linear(b.act(b.linear(b.add("Flatten", INPUT), 40), "Relu"), 101))
    jacobian = _jacobian(network)
    scores = [np.log(np.abs(np.corrcoef(jacobian[label == LABELS])) + 1e-5).sum() / 2 for label in (0, 1)]
    assert EpeNas().score(_probe(network)) == pytest.approx(abs(scores[0] - scores[1]), rel=1e-3)


def test_jacobians_of_linear_networks_are_fully_correlated() -> None:
    """One eigenvalue is the number of images, the others are zero; a network that gives nothing scores the same."""
    k = 1e-5
    worst = -(np.log(5 + k) + 1 / (5 + k) + 4 * (np.log(k) + 1 / k))
    for build in (_classifier, _disconnected):
        assert Jacov().score(_probe(_network(build))) == pytest.approx(worst, rel=1e-3)
        assert EpeNas().score(_probe(_network(build))) == pytest.approx(0, abs=1e-3)


def test_zen_of_one_normalised_layer() -> None:
    """Changes of the normalised features, and the variance they were divided by, averaged over two passes from 1."""
    network = _network(lambda b: b.add("Relu", b.batch_norm(b.conv(INPUT, 4, 1))))
    rng = np.random.default_rng(7)
    weight = gaussian_weights(network, rng)["conv.weight"][:, :, 0, 0].astype(np.float64)
    images, noise = (rng.standard_normal((16, *IMAGE), dtype=np.float32).astype(np.float64) for _ in range(2))
    features, variances = [], []
    for x in (images, images + 0.1 * noise):
        y = np.einsum("nihw,oi->nohw", x, weight)
        var = y.var((0, 2, 3))
        features.append(np.maximum((y - y.mean((0, 2, 3), keepdims=True)) / np.sqrt(var[:, None, None] + 1e-5), 0))
        variances.append(var * 144 / 143)
    change = np.abs(features[0] - features[1]).sum((1, 2, 3)).mean()
    scale = np.mean(0.81 + 0.09 * variances[0] + 0.1 * variances[1])
    got = Zen(batch_size=16, step=0.1).score(Probe(network, seed=7))
    assert got == pytest.approx(np.log(change) + np.log(scale) / 2, rel=1e-5)


def test_zen_reads_the_features_before_the_last_pooling() -> None:
    network = _network(lambda b: b.classifier(b.conv(INPUT, 4, 1), 3))
    rng = np.random.default_rng(7)
    weight = gaussian_weights(network, rng)["conv.weight"][:, :, 0, 0].astype(np.float64)
    _, noise = (rng.standard_normal((16, *IMAGE), dtype=np.float32).astype(np.float64) for _ in range(2))
    change = np.abs(0.1 * np.einsum("nihw,oi->nohw", noise, weight)).sum((1, 2, 3)).mean()
    got = Zen(batch_size=16, step=0.1).score(Probe(network, seed=7))
    assert got == pytest.approx(np.log(change), rel=1e-5)


def test_zen_of_features_that_do_not_change_is_at_the_floor() -> None:
    score = Zen(floor=1e-9).score(Probe(_network(_disconnected)))
    assert score == pytest.approx(np.log(1e-9) + np.log(0.81) / 2, rel=1e-6)
    with pytest.raises(ConfigError, match="batch_size=1"):
        Zen(batch_size=1)


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
    assert Flops().score(Probe(network)) == network.macs + 9 * 4 + 9 * 3  # activation, pooling


def test_flops_count_normalisation_and_windows() -> None:
    def build(b: NetworkBuilder) -> str:
        return b.batch_norm(b.pool(b.pool(INPUT, "AveragePool", 3), "MaxPool", 2, stride=2, padding=0))

    network = _network(build)
    assert Flops().score(Probe(network)) == 9 * 18 + 4 * 2 + 2 * 2


def test_uniform_weights_are_those_of_torchs_layers() -> None:
    network = _network(lambda b: b.classifier(b.batch_norm(b.conv(INPUT, 400, 3, bias=True)), 30))
    arrays = uniform_weights(network, 3)
    torch.manual_seed(0)
    layers = {"conv": torch.nn.Conv2d(2, 400, 3), "gemm": torch.nn.Linear(400, 30)}
    for name, layer in layers.items():
        for key, parameter in layer.named_parameters():
            array = arrays[f"{name}.{key}"]
            assert array.dtype == np.float32
            assert np.abs(array).max() == pytest.approx(float(parameter.detach().abs().max()), rel=0.1)
            assert array.std() == pytest.approx(float(parameter.detach().std()), rel=0.15)
    np.testing.assert_array_equal(arrays["batchnormalization.weight"], 1)
    for key, array in uniform_weights(network, 3).items():
        np.testing.assert_array_equal(array, arrays[key])
    assert (uniform_weights(network, 4)["conv.weight"] != arrays["conv.weight"]).all()


def test_split_networks_keep_only_what_crosses_the_cuts() -> None:
    """A step keeps the input of each of 40 convolutions for the way back, a cut network those at its cuts."""

    def deep(b: NetworkBuilder) -> str:
        x = INPUT
        for _ in range(40):
            x = b.act(b.conv(x, 8, 1), "Sigmoid")
        return b.classifier(x, 3)

    module = to_torch(_network(deep))
    images = torch.from_numpy(IMAGES)
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    results = []
    for parts in (1, 8):
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            results.append(forward(module, images, parts))
        inputs = {tensor.data_ptr() for tensor in kept if tensor.shape == (5, 8, 3, 3)}
        assert len(inputs) == (40 if parts == 1 else 7)  # seven cuts
    assert torch.equal(*results)


def test_disconnected_networks_have_finite_scores() -> None:
    probe = _probe(_network(_disconnected))
    scores = {name: kind().score(probe) for name, kind in SHIPPED.items()}
    assert all(np.isfinite(value) for value in scores.values())
    for name in ("synflow", "grad_norm", "snip", "plain", "fisher", "grasp"):
        assert scores[name] == 0, name


@pytest.mark.parametrize("order", [list(SHIPPED), list(SHIPPED)[::-1]])
def test_scores_do_not_depend_on_who_looked_before(order: list[str]) -> None:
    """Passes share one module: none may leave a trace in it."""
    network = _network(_kinked)
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
    for kind in (Grasp, Fisher, Jacov, EpeNas, Nwot, SynFlow):
        with pytest.raises(ConfigError, match="without naming it"):
            kind().score(_probe(network, needs=("gradients",)))


def test_needs_of_data_and_labels() -> None:
    needs = {name: (kind().needs_data, kind().needs_labels) for name, kind in SHIPPED.items()}
    free = {"params", "macs", "flops", "l2_norm", "synflow", "zen"}
    assert {name for name, (data, _) in needs.items() if not data} == free
    assert {name for name, (data, labels) in needs.items() if data and not labels} == {"nwot", "jacov"}


def test_other_weights_leave_no_trace() -> None:
    probe = _probe(_network(_kinked))
    before = {name: tensor.clone() for name, tensor in probe.module.state_dict().items()}
    others = init_weights(probe.network, 9)
    with pytest.raises(ZeroDivisionError), probe.reweighted(others) as module:
        module(torch.from_numpy(IMAGES))
        assert (module.get_parameter("conv.weight").detach().numpy() == others["conv.weight"]).all()
        raise ZeroDivisionError
    for name, tensor in probe.module.state_dict().items():
        assert torch.equal(tensor, before[name]), name


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
