import numpy as np
import pytest
import torch

from nasflow.config import composed, instantiate
from searchspaces.errors import NetworkError
from searchspaces.network import (
    INPUT,
    Network,
    NetworkBuilder,
    init_weights,
    merge_weights,
    replicate,
    split_weights,
    to_onnx,
    to_torch,
)
from tests.registry import leaves


def network(space: str, seed: int) -> Network:
    config = composed("search", [f"space={space}", "task=digits"])
    made = instantiate(config.space)
    return made.network(made.sample(1, np.random.default_rng(seed))[0], instantiate(config.task))


@pytest.mark.parametrize("space", leaves("space"))
@pytest.mark.parametrize("seed", range(3))
def test_copies_compute_what_each_would_alone(space: str, seed: int) -> None:
    one = network(space, seed)
    try:
        wide = replicate(one, 3)
    except NetworkError:
        assert any(node.op in ("Concat", "Slice", "Reshape") for node in one.nodes)
        return
    weights = [init_weights(one, 10 + j) for j in range(3)]
    images = [torch.randn(4, *one.input_shape, generator=torch.Generator().manual_seed(j)) for j in range(3)]
    with torch.inference_mode():
        together = to_torch(wide, merge_weights(one, weights)).eval()(torch.cat(images, dim=1)).reshape(4, 3, -1)
        for j in range(3):
            alone = to_torch(one, weights[j]).eval()(images[j])
            assert torch.allclose(together[:, j], alone, atol=1e-4, rtol=1e-4)


def test_one_copy_is_the_network_itself() -> None:
    one = network("nb201", 0)
    assert replicate(one, 1) is one


def test_weights_come_back_as_they_went_in() -> None:
    one = network("nb201", 1)
    weights = [init_weights(one, j) for j in range(2)]
    merged = merge_weights(one, weights)
    assert {key: array.shape for key, array in merged.items()} == {
        f"{node.name}.{key}": shape for node in replicate(one, 2).nodes for key, shape in node.weights.items()
    }
    for before, after in zip(weights, split_weights(one, merged, 2), strict=True):
        assert before.keys() == after.keys()
        assert all(np.array_equal(before[key], after[key]) for key in before)


def test_a_replicated_network_is_a_network_like_any() -> None:
    wide = replicate(network("nb201", 2), 2)
    assert wide.params == 2 * network("nb201", 2).params
    assert wide.macs == 2 * network("nb201", 2).macs
    to_onnx(wide, init_weights(wide))


def mixing(kind: str) -> Network:
    builder = NetworkBuilder("mixing", (2, 4, 4))
    x = builder.conv(INPUT, 4, 3)
    if kind == "concatenation":
        return builder.build(builder.classifier(builder.add("Concat", x, x, axis=0), 3))
    if kind == "flat image":
        return builder.build(builder.linear(builder.add("Flatten", x), 3))
    if kind == "broadcast":
        return builder.build(builder.classifier(builder.add("Mul", x, builder.conv(x, 1, 1)), 3))
    if kind == "softmax":
        return builder.build(builder.add("Softmax", builder.classifier(x, 3)))
    return builder.build(x)


@pytest.mark.parametrize("kind", ["concatenation", "flat image", "broadcast", "softmax", "image output"])
def test_what_mixes_channels_is_refused(kind: str) -> None:
    with pytest.raises(NetworkError, match=r"one after the other|one number per class"):
        replicate(mixing(kind), 2)
