"""The operators, the builder and the lowerings of `Network`."""

from collections.abc import Callable
from math import prod

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn

from searchspaces.errors import NetworkError
from searchspaces.network import (
    INPUT,
    OPERATORS,
    Network,
    NetworkBuilder,
    extract_weights,
    init_weights,
    load_weights,
    to_onnx,
    to_torch,
)
from searchspaces.network.graph import window
from searchspaces.network.weights import _drawn

IMAGE = (6, 9, 8)
Build = Callable[[NetworkBuilder], str]


def _bn(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    return dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (channels,))


def _tokens(b: NetworkBuilder) -> str:
    """The image as `(72, 6)` tokens."""
    return b.add("Transpose", b.add("Reshape", INPUT, shape=(6, 72)), perm=(1, 0))


def _vector(b: NetworkBuilder) -> str:
    return b.add("Flatten", b.add("GlobalAveragePool", INPUT))


def _conv(b: NetworkBuilder, channels: int, kernel: tuple[int, int], bias: bool, group: int = 1, **more: object) -> str:
    weights: dict[str, tuple[int, ...]] = {"weight": (channels, 6 // group, *kernel)}
    if bias:
        weights["bias"] = (channels,)
    return b.add("Conv", INPUT, weights=weights, kernel_shape=kernel, group=group, **more)


# Every operator, in every variant of its attributes: name of the case -> (builder, output shape, MACs, parameters).
CASES: dict[str, tuple[Build, tuple[int, ...], int, int]] = {
    "Conv": (lambda b: b.conv(INPUT, 4, 3), (4, 9, 8), 54 * 4 * 72, 216),
    "Conv bias stride": (lambda b: b.conv(INPUT, 4, 3, stride=2, bias=True), (4, 5, 4), 54 * 80, 220),
    "Conv depthwise": (lambda b: b.conv(INPUT, 6, 5, groups=6), (6, 9, 8), 25 * 6 * 72, 150),
    "Conv grouped": (lambda b: b.conv(INPUT, 9, 1, groups=3), (9, 9, 8), 2 * 9 * 72, 18),
    "Conv oblong": (
        lambda b: _conv(b, 2, (1, 3), True, strides=(2, 1), pads=(0, 1, 0, 1), dilations=(1, 1)),
        (2, 5, 8),
        18 * 80,
        38,
    ),
    "Conv dilated": (
        lambda b: _conv(b, 2, (3, 3), False, pads=(2, 2, 2, 2), dilations=(2, 2)),
        (2, 9, 8),
        54 * 2 * 72,
        108,
    ),
    "BatchNormalization": (lambda b: b.batch_norm(INPUT), IMAGE, 0, 12),
    "BatchNormalization epsilon": (
        lambda b: b.add("BatchNormalization", INPUT, weights=_bn("bn", 6), epsilon=0.1),
        IMAGE,
        0,
        12,
    ),
    "LayerNormalization": (
        lambda b: b.add("LayerNormalization", _tokens(b), weights={"weight": (6,), "bias": (6,)}, epsilon=1e-3),
        (72, 6),
        0,
        12,
    ),
    "LayerNormalization image": (
        lambda b: b.add("LayerNormalization", INPUT, weights={"weight": (9, 8), "bias": (9, 8)}),
        IMAGE,
        0,
        144,
    ),
    "Relu": (lambda b: b.act(INPUT, "Relu"), IMAGE, 0, 0),
    "Clip": (lambda b: b.add("Clip", INPUT, min=-0.5, max=1.0), IMAGE, 0, 0),
    "Sigmoid": (lambda b: b.act(INPUT, "Sigmoid"), IMAGE, 0, 0),
    "HardSigmoid": (lambda b: b.act(INPUT, "HardSigmoid"), IMAGE, 0, 0),
    "HardSigmoid default": (lambda b: b.add("HardSigmoid", INPUT), IMAGE, 0, 0),
    "HardSwish": (lambda b: b.act(INPUT, "HardSwish"), IMAGE, 0, 0),
    "Tanh": (lambda b: b.act(INPUT, "Tanh"), IMAGE, 0, 0),
    "Gelu": (lambda b: b.act(INPUT, "Gelu"), IMAGE, 0, 0),
    "Gelu tanh": (lambda b: b.add("Gelu", INPUT, approximate="tanh"), IMAGE, 0, 0),
    "Softmax": (lambda b: b.add("Softmax", INPUT), IMAGE, 0, 0),
    "Softmax last": (lambda b: b.add("Softmax", INPUT, axis=-1), IMAGE, 0, 0),
    "Add": (lambda b: b.add("Add", INPUT, b.add("GlobalAveragePool", INPUT)), IMAGE, 0, 0),
    "Add scalar": (lambda b: b.add("Add", INPUT, value=3.0), IMAGE, 0, 0),
    "Add learned": (lambda b: b.add("Add", INPUT, weights={"bias": (6, 1, 1)}), IMAGE, 0, 6),
    "Mul": (lambda b: b.add("Mul", INPUT, b.act(INPUT, "Sigmoid")), IMAGE, 0, 0),
    "Mul scalar": (lambda b: b.add("Mul", INPUT, value=-0.25), IMAGE, 0, 0),
    "Mul learned": (lambda b: b.add("Mul", INPUT, weights={"weight": IMAGE}), IMAGE, 0, 432),
    "Concat": (lambda b: b.add("Concat", INPUT, b.act(INPUT, "Relu"), INPUT), (18, 9, 8), 0, 0),
    "Concat last": (lambda b: b.add("Concat", INPUT, b.act(INPUT, "Relu"), axis=-1), (6, 9, 16), 0, 0),
    "MaxPool": (lambda b: b.pool(INPUT, "MaxPool", 3, stride=2), (6, 5, 4), 0, 0),
    "MaxPool dilated": (
        lambda b: b.add("MaxPool", INPUT, **window(3, 1), dilations=(2, 2)),
        (6, 7, 6),
        0,
        0,
    ),
    "AveragePool": (lambda b: b.pool(INPUT, "AveragePool", 3, stride=2), (6, 5, 4), 0, 0),
    "AveragePool counted": (
        lambda b: b.add("AveragePool", INPUT, **window(3, 1), count_include_pad=1),
        IMAGE,
        0,
        0,
    ),
    "GlobalAveragePool": (lambda b: b.add("GlobalAveragePool", INPUT), (6, 1, 1), 0, 0),
    "Gemm": (lambda b: b.linear(_vector(b), 5), (5,), 30, 35),
    "Gemm no bias": (lambda b: b.linear(_vector(b), 5, bias=False), (5,), 30, 30),
    "MatMul": (
        lambda b: b.add("MatMul", _tokens(b), b.add("Transpose", _tokens(b), perm=(1, 0))),
        (72, 72),
        6 * 72 * 72,
        0,
    ),
    "MatMul learned": (lambda b: b.add("MatMul", INPUT, weights={"weight": (8, 5)}), (6, 9, 5), 8 * 6 * 9 * 5, 40),
    "Flatten": (lambda b: b.add("Flatten", INPUT), (432,), 0, 0),
    "Reshape": (lambda b: b.add("Reshape", INPUT, shape=(2, 3, 72)), (2, 3, 72), 0, 0),
    "Transpose": (lambda b: b.add("Transpose", INPUT, perm=(2, 0, 1)), (8, 6, 9), 0, 0),
    "Slice": (lambda b: b.add("Slice", INPUT, axis=0, start=1, end=4), (3, 9, 8), 0, 0),
    "Slice last": (lambda b: b.add("Slice", INPUT, axis=-1, start=2, end=8), (6, 9, 6), 0, 0),
}


def _build(case: str) -> Network:
    builder = NetworkBuilder("case", IMAGE)
    return builder.build(CASES[case][0](builder))


def _perturbed(network: Network, seed: int = 0) -> dict[str, np.ndarray]:
    """Weights in which no array is constant, so that swapped or forgotten ones show."""
    rng = np.random.default_rng(seed)
    weights = init_weights(network, seed)
    for key, array in weights.items():
        if key.endswith(("running_var", "weight")) and array.ndim == 1:
            weights[key] = rng.uniform(0.5, 2.0, array.shape).astype(np.float32)
        elif array.ndim == 1 or np.ptp(array) == 0:
            weights[key] = rng.normal(0, 0.5, array.shape).astype(np.float32)
    return weights


def _outputs(network: Network, weights: dict[str, np.ndarray], batch: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Outputs of torch and of ONNX Runtime for the same images, both `(batch, *shape)`."""
    images = np.random.default_rng(1).standard_normal((batch, *network.input_shape), dtype=np.float32)
    with torch.no_grad():
        ours = to_torch(network, weights).eval()(torch.from_numpy(images)).numpy()
    model = to_onnx(network, weights, batch=batch)
    onnx.checker.check_model(model, full_check=True)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return ours, session.run(None, {"input": images})[0]


def test_cases_cover_every_operator() -> None:
    assert {case.split()[0] for case in CASES} == set(OPERATORS)


@pytest.mark.parametrize("case", CASES)
def test_operator(case: str) -> None:
    """Shape, MACs and parameters are as counted by hand; torch and ONNX Runtime agree."""
    _, shape, macs, params = CASES[case]
    network = _build(case)
    assert network.nodes[-1].shape == shape
    assert network.macs == macs
    assert network.params == params == sum(p.numel() for p in to_torch(network).parameters())
    ours, theirs = _outputs(network, _perturbed(network))
    assert ours.shape == theirs.shape == (3, *shape)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * max(1.0, np.abs(ours).max()))


def _random_network(seed: int) -> Network:
    """A random net over images: every step takes one of the tensors so far and makes a further one."""
    rng = np.random.default_rng(seed)
    b = NetworkBuilder(f"random{seed}", (3, 16, 16))
    pool = [b.conv_bn(INPUT, 8, 3)]
    steps: list[Callable[[str], str]] = [
        lambda x: b.conv_bn(x, 8, 3),
        lambda x: b.conv_bn(x, 8, 5, groups=8, act="HardSwish"),
        lambda x: b.conv_bn(x, 8, 1, groups=2, act="Relu6"),
        lambda x: b.pool(x, "MaxPool", 3),
        lambda x: b.pool(x, "AveragePool", 3),
        lambda x: b.add("Mul", x, b.act(b.conv(b.add("GlobalAveragePool", x), 8, 1, bias=True), "HardSigmoid")),
        lambda x: b.conv(b.add("Concat", x, b.act(x, "Gelu")), 8, 1),
        lambda x: b.add("Concat", *(b.add("Slice", x, axis=0, start=s, end=s + 4) for s in (4, 0))),
        lambda x: b.sum([x, pool[int(rng.integers(len(pool)))]]),
    ]
    for i in rng.integers(len(steps), size=10):
        pool.append(steps[int(i)](pool[int(rng.integers(len(pool)))]))
    return b.build(b.classifier(b.sum(pool[-2:]), 7))


@pytest.mark.parametrize("seed", range(12))
def test_random_networks_agree(seed: int) -> None:
    network = _random_network(seed)
    ours, theirs = _outputs(network, _perturbed(network, seed))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * np.abs(ours).max())


@pytest.mark.parametrize("seed", range(12))
def test_costs_equal_what_hooks_count(seed: int) -> None:
    network = _random_network(seed)
    module = to_torch(network).eval()
    counted: dict[str, int] = {}

    def hook(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor, name: str) -> None:
        assert tuple(output.shape[1:]) == network.shapes[name]
        if isinstance(layer, nn.Conv2d | nn.Linear):
            counted[name] = output.numel() * layer.weight[0].numel()

    for name, layer in module.named_children():
        layer.register_forward_hook(lambda m, i, o, name=name: hook(m, i, o, name))
    module(torch.zeros(1, *network.input_shape))
    assert {cost.name: cost.macs for cost in network.costs if cost.macs} == counted
    assert network.macs == sum(counted.values())
    assert network.params == sum(p.numel() for p in module.parameters())


def test_bytes_and_depth() -> None:
    b = NetworkBuilder("n", (2, 4, 4))
    left, right = b.conv_bn(INPUT, 3, 3, act=None), b.conv(b.conv(INPUT, 3, 1), 3, 1)
    network = b.build(b.classifier(b.sum([left, right]), 5))
    assert network.depth == 3
    first = network.costs[0]
    assert (first.op, first.bytes_moved) == ("Conv", 4 * (2 * 16 + 3 * 16 + 3 * 2 * 9))
    assert network.bytes_moved == sum(cost.bytes_moved for cost in network.costs)
    assert {node.name: prod(node.shape) for node in network.nodes}[network.output] == 5


def test_text_has_a_line_per_node() -> None:
    b = NetworkBuilder("n", (2, 4, 4))
    with b.scope("block"):
        x = b.conv_bn(INPUT, 3, 3, stride=2, act="Relu6")
    lines = b.build(b.classifier(x, 5)).text().splitlines()
    assert lines == [
        "input: 2x4x4",
        "block_conv = Conv(input, kernel_shape=3x3, pads=1x1x1x1, strides=2x2): 3x2x2",
        "block_batchnormalization = BatchNormalization(block_conv): 3x2x2",
        "block_clip = Clip(block_batchnormalization, max=6, min=0): 3x2x2",
        "globalaveragepool = GlobalAveragePool(block_clip): 3x1x1",
        "flatten = Flatten(globalaveragepool): 3",
        "gemm = Gemm(flatten): 5",
        "return gemm",
    ]


def test_build_drops_what_the_output_does_not_need() -> None:
    b = NetworkBuilder("n", IMAGE)
    kept = b.act(INPUT, "Relu")
    b.conv(kept, 4, 3)
    assert [node.name for node in b.build(kept).nodes] == [kept]


def test_zero_and_single_sum() -> None:
    b = NetworkBuilder("n", IMAGE)
    assert b.sum([INPUT]) == INPUT
    ours, theirs = _outputs(b.build(b.zero(INPUT)), {})
    assert not ours.any() and not theirs.any()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda b: b.add("Convolution", INPUT), "Unknown operator 'Convolution'. Did you mean"),
        (lambda b: b.add("Relu", "nowhere"), "no earlier node gives"),
        (lambda b: b.add("Relu", INPUT, INPUT), "Relu takes 1 to 1 inputs, not 2"),
        (lambda b: b.add("MaxPool", INPUT, kernel=3), "Unknown attribute of MaxPool 'kernel'"),
        (lambda b: b.add("MaxPool", INPUT), "lacks its attribute or weight 'kernel_shape'"),
        (lambda b: b.add("Relu", INPUT, alpha=0.1), "Relu has no attribute 'alpha'"),
        (lambda b: b.add("Relu", INPUT, weights={"weight": (6,)}), "Relu has no weight 'weight'"),
        (lambda b: b.add("Add", INPUT, weights={"biass": (6, 1, 1)}), "weight of Add 'biass'. Did you mean 'bias'"),
        (lambda b: b.add("Mul", INPUT, weights={"running_var": IMAGE}), "Unknown weight of Mul 'running_var'"),
        (lambda b: b.add("MatMul", INPUT, weights={"weight": (8, 5), "bias": (5,)}), "Unknown weight of MatMul 'bias'"),
        (lambda b: b.add("MatMul", INPUT, INPUT, weights={"weight": (8, 5)}), "two tensors, or one"),
        (lambda b: b.add("Conv", INPUT, weights={"weight": (4, 6)}, kernel_shape=(1, 1)), "at most a bias (out,)"),
        (
            lambda b: b.add("Conv", INPUT, weights={"weight": (4, 6, 1, 1), "bias": (6,)}, kernel_shape=(1, 1)),
            "at most a bias (out,)",
        ),
        (lambda b: b.add("Gemm", _vector(b), weights={"weight": (5, 6), "bias": (6,)}), "Gemm with weights"),
        (lambda b: b.add("Gemm", _vector(b), weights={"weight": (5.0, 6)}), "'weight' of Gemm is whole numbers"),
        (lambda b: b.add("Conv", INPUT, weights={"bias": (4,)}, kernel_shape=(1, 1)), "lacks its attribute or weight"),
        (lambda b: _conv(b, 2, (3, 3), False, pads=(0, 0, 1, 1)), "pad evenly, but got (0, 0, 1, 1)"),
        (lambda b: _conv(b, 2, (3, 3), False, pads=(0, 1, 0, 2)), "pad evenly"),
        (lambda b: _conv(b, 2, (3, 3), False, pads=(1, 1)), "four whole numbers"),
        (lambda b: _conv(b, 2, (1, 1), False, pads=(-1, -1, -1, -1)), "at least 0"),
        (lambda b: b.add("AveragePool", INPUT, kernel_shape=(3, 3), pads=(1, 1, 0, 0)), "pad evenly"),
        (lambda b: b.add("MaxPool", INPUT, kernel_shape=3), "two whole numbers, at least 1, but got 3"),
        (lambda b: b.add("MaxPool", INPUT, **window(3, 1.5)), "two whole numbers"),
        (lambda b: b.add("MaxPool", INPUT, **window(2), dilations=(10, 1)), "cannot step over"),
        (lambda b: b.add("AveragePool", INPUT, **window(3), count_include_pad=2), "0 or 1"),
        (lambda b: b.conv(INPUT, 4, 3, groups=0), "'group' of Conv is a whole number, at least 1, but got 0"),
        (lambda b: b.add("BatchNormalization", INPUT, weights=_bn("bn", 6), epsilon=-1e-3), "at least 0"),
        (lambda b: b.add("Add", INPUT, value=True), "a finite number in float32, but got True"),
        (lambda b: b.add("Add", INPUT, value="1"), "a finite number in float32"),
        (lambda b: b.add("Mul", INPUT, value=1e39), "a finite number in float32"),
        (lambda b: b.add("Mul", INPUT, value=10**400), "a finite number in float32"),
        (lambda b: b.add("Mul", INPUT, value=float("nan")), "a finite number in float32"),
        (lambda b: b.add("Clip", INPUT, min=0.0, max=float("nan")), "a number in float32"),
        (lambda b: b.add("Gelu", INPUT, approximate="erf"), "'none' or 'tanh', but got 'erf'"),
        (lambda b: b.add("Softmax", INPUT, axis=1.0), "a whole number, but got 1.0"),
        (lambda b: b.add("Concat", INPUT, b.add("Reshape", INPUT, shape=(6, 72)), axis=2), "cannot be concatenated"),
        (lambda b: b.add("Reshape", INPUT, shape=(-1, -432)), "at least 1"),
        (lambda b: b.add("Reshape", b.add("Slice", _vector(b), axis=0, start=0, end=1), shape=()), "one or more"),
        (lambda b: b.conv(INPUT, 4, 3, groups=4), "cannot take 6 channels"),
        (lambda b: _conv(b, 2, (3, 3), False, strides=(1, 1)) and b.pool(INPUT, "MaxPool", 11, padding=0), "not fit"),
        (lambda b: b.pool(INPUT, "MaxPool", 3, padding=2), "half its window"),
        (lambda b: b.conv(b.add("Flatten", INPUT), 4, 3), "Conv takes images"),
        (lambda b: b.batch_norm(b.add("Flatten", INPUT)), "BatchNormalization takes images"),
        (lambda b: b.add("BatchNormalization", INPUT, weights=_bn("bn", 5)), "one number a channel"),
        (lambda b: b.add("LayerNormalization", INPUT, weights={"weight": (6,), "bias": (6,)}), "last axes"),
        (lambda b: b.linear(INPUT, 4), "Gemm with weights"),
        (lambda b: b.add("Add", INPUT, b.add("Flatten", INPUT)), "Operands of one rank"),
        (lambda b: b.add("Add", INPUT, b.conv(INPUT, 4, 1)), "cannot be combined"),
        (lambda b: b.add("Add", INPUT), "take two operands"),
        (lambda b: b.add("Mul", INPUT, INPUT, value=2.0), "take two operands"),
        (lambda b: b.add("Concat", INPUT, b.pool(INPUT, "MaxPool", 3, 2)), "cannot be concatenated"),
        (lambda b: b.add("Softmax", INPUT, axis=3), "has no axis 3"),
        (lambda b: b.add("MatMul", INPUT, INPUT), "MatMul cannot combine"),
        (lambda b: b.add("Reshape", INPUT, shape=(5, 5)), "cannot be reshaped"),
        (lambda b: b.add("Transpose", INPUT, perm=(0, 1)), "does not reorder"),
        (lambda b: b.add("Slice", INPUT, axis=0, start=3, end=7), "Slice 3:7"),
        (lambda b: b.add("Clip", INPUT, min=1.0, max=0.0), "min < max"),
    ],
)
def test_builder_refuses(build: Build, message: str) -> None:
    with pytest.raises(NetworkError) as error:
        build(NetworkBuilder("bad", IMAGE))
    assert message in str(error.value)


def test_scope_ends_after_an_error() -> None:
    b = NetworkBuilder("n", IMAGE)
    with pytest.raises(NetworkError), b.scope("bad"):
        b.add("Relu", "nowhere")
    assert b.act(INPUT, "Relu") == "relu"


def test_weights_depend_on_the_seed_alone() -> None:
    network = _random_network(3)
    first, again, other = init_weights(network, 1), init_weights(network, 1), init_weights(network, 2)
    assert list(first) == list(again)
    for key, array in first.items():
        np.testing.assert_array_equal(array, again[key])
        assert array.dtype == np.float32
    convs = [key for key in first if key.endswith(".weight") and first[key].ndim > 1]
    assert convs and all((first[key] != other[key]).any() for key in convs)


def test_weights_do_not_depend_on_other_networks() -> None:
    """Numbers that were drawn for one serve others, but nobody can change them there."""
    _drawn.clear()
    small = NetworkBuilder("small", IMAGE)
    network = small.build(small.conv(INPUT, 4, 3))
    alone = init_weights(network, 1)["conv.weight"].copy()
    b = NetworkBuilder("large", (64, 8, 8))
    init_weights(b.build(b.conv(INPUT, 128, 3)), 1)
    init_weights(network, 1)["conv.weight"][:] = 0
    np.testing.assert_array_equal(init_weights(network, 1)["conv.weight"], alone)
    assert list(_drawn) == [1]
    init_weights(network, 2)
    assert list(_drawn) == [2]


def test_weights_have_the_spread_of_their_fan_in() -> None:
    b = NetworkBuilder("n", (64, 8, 8))
    x = b.conv(INPUT, 128, 3)
    x = b.add("MatMul", b.add("Reshape", x, shape=(64, 128)), weights={"weight": (128, 512)})
    weights = init_weights(b.build(x))
    assert weights["conv.weight"].std() == pytest.approx(np.sqrt(2 / (64 * 9)), rel=0.02)
    assert weights["matmul.weight"].std() == pytest.approx(np.sqrt(2 / 128), rel=0.02)


def test_weights_survive_torch() -> None:
    network = _random_network(5)
    weights = _perturbed(network)
    module = to_torch(network, weights)
    back = extract_weights(module)
    assert set(back) == set(weights)
    for key, array in weights.items():
        np.testing.assert_array_equal(back[key], array)
    with torch.no_grad():
        next(module.parameters()).add_(1.0)
    np.testing.assert_array_equal(back[next(iter(weights))], weights[next(iter(weights))])


@pytest.mark.parametrize("lower", [to_torch, to_onnx])
def test_foreign_weights_are_refused(lower: Callable[..., object]) -> None:
    network = _build("Conv bias stride")
    weights = init_weights(network)
    with pytest.raises(NetworkError, match=r"conv\.bias"):
        lower(network, {"conv.weight": weights["conv.weight"]})
    with pytest.raises(NetworkError, match=r"conv\.weight"):
        lower(network, weights | {"conv.weight": weights["conv.weight"][:2]})


def test_load_weights_reaches_normalisation_statistics() -> None:
    network = _build("BatchNormalization")
    module = to_torch(network)
    load_weights(module, _perturbed(network))
    assert module.get_buffer("batchnormalization.running_var").std() > 0


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        (lambda b: b.batch_norm(INPUT) and b.add("BatchNormalization", INPUT, weights=_bn("bn", 6), epsilon=1), 1.0),
        (lambda b: b.add("Clip", INPUT, min=np.float32(-1), max=1), 1.0),
        (lambda b: b.add("Clip", INPUT, min=0, max=float("inf")), float("inf")),
        (lambda b: b.add("HardSigmoid", INPUT, alpha=np.float32(0.5), beta=1), 1.0),
        (lambda b: b.add("Add", INPUT, value=np.int64(2)), 2.0),
        (lambda b: b.add("Mul", INPUT, value=-2), -2.0),
        (lambda b: b.add("AveragePool", INPUT, **window(3), count_include_pad=True), 1),
        (lambda b: b.add("Softmax", INPUT, axis=np.int64(1)), 1),
        (lambda b: b.add("Reshape", INPUT, shape=np.array([2, 3, 72])), (2, 3, 72)),
        (lambda b: b.add("MaxPool", INPUT, kernel_shape=[3, 3], pads=[1, 0, 1, 0]), (1, 0, 1, 0)),
    ],
)
def test_attributes_get_the_type_that_onnx_has_for_them(given: Build, stored: object) -> None:
    b = NetworkBuilder("n", IMAGE)
    network = b.build(given(b))
    value = list(network.nodes[-1].attributes.values())[-1]
    assert value == stored and type(value) is type(stored)
    ours, theirs = _outputs(network, _perturbed(network))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


def test_window_parameters_of_random_pools_and_convolutions_agree() -> None:
    """Whatever of kernel, stride, padding, dilation and groups the builder accepts, both lowerings compute alike."""
    rng, accepted, refused = np.random.default_rng(0), 0, 0
    for _ in range(120):
        b = NetworkBuilder("n", (6, int(rng.integers(1, 9)), int(rng.integers(1, 9))))
        kernel = tuple(rng.integers(1, 4, 2).tolist())
        attributes = {"kernel_shape": kernel, "strides": rng.integers(1, 4, 2), "pads": rng.integers(0, 3, 4)}
        if rng.random() < 0.8:
            attributes["pads"][2:] = attributes["pads"][:2]
        op = str(rng.choice(["Conv", "MaxPool", "AveragePool"]))
        if op == "AveragePool":
            attributes["count_include_pad"] = int(rng.integers(2))
        else:
            attributes["dilations"] = rng.integers(1, 4, 2)
        weights = {"weight": (6, 6, *kernel), "bias": (6,)} if op == "Conv" else None
        try:
            network = b.build(b.add(op, INPUT, weights=weights, **attributes))
        except NetworkError:
            refused += 1
            continue
        ours, theirs = _outputs(network, _perturbed(network))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)
        accepted += 1
    assert accepted > 30 and refused > 30


def test_network_without_nodes_is_refused() -> None:
    with pytest.raises(NetworkError, match="no nodes"):
        to_onnx(NetworkBuilder("empty", IMAGE).build(INPUT))


def test_onnx_has_a_node_per_node() -> None:
    network = _random_network(2)
    model = to_onnx(network, batch=4)
    assert [node.name for node in model.graph.node] == [node.name for node in network.nodes]
    assert [node.op_type for node in model.graph.node] == [node.op for node in network.nodes]
    assert [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim] == [4, *network.input_shape]


def test_training_changes_all_parameters() -> None:
    network = _random_network(4)
    module = to_torch(network, seed=3).train()
    before = extract_weights(module)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    images = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    nn.functional.cross_entropy(module(images), torch.arange(8) % 7).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    after = extract_weights(module)
    assert all((after[key] != before[key]).any() for key in before if key.endswith(("running_mean", "running_var")))
    assert all(parameter.grad is not None for parameter in module.parameters())
    weights = {key: after[key] for key in before}
    ours, theirs = _outputs(network, weights)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * np.abs(ours).max())


def test_builder_names_what_does_not_exist_or_has_no_size() -> None:
    builder = NetworkBuilder("b", (3, 8, 8))
    with pytest.raises(NetworkError, match="Unknown tensor 'inputt'. Did you mean 'input'"):
        builder.conv("inputt", 8, 3)
    with pytest.raises(NetworkError, match="Unknown tensor 'nothing'"):
        builder.build("nothing")
    with pytest.raises(NetworkError, match="at least 1"):
        builder.conv("input", 8, 3, stride=0)
    with pytest.raises(NetworkError, match="at least 1"):
        builder.conv("input", 0, 3)


@pytest.mark.parametrize("shape", [(), (3, 8), (3, 8, 0), (3.0, 8, 8), "abc", None])
def test_a_network_takes_images(shape: tuple[int, ...]) -> None:
    with pytest.raises(NetworkError, match="Network 'b' takes images"):
        NetworkBuilder("b", shape)
