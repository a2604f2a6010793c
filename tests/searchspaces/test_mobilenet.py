"""The once-for-all MobileNetV3 space: the network that a row means, its notation and its canonical form."""

from collections import defaultdict

import numpy as np
import pytest

from nasflow.testing import calibrated_weights, counted, outputs
from searchspaces.errors import ArchitectureError, ConfigError
from searchspaces.genes import Rows
from searchspaces.mobilenet import MobileNet
from searchspaces.mobilenet.layers import make_divisible
from searchspaces.network import Network
from searchspaces.task import Task

DIGITS = Task("digits", (1, 8, 8), 10)
CIFAR = Task("cifar10", (3, 32, 32), 10)
IMAGENET = Task("imagenet", (3, 224, 224), 1000)
TEXT = "r152|k5e3,k3e3|k5e4,k5e3|k3e4,k3e4,k5e4|k3e4,k5e3,k7e4|k3e6,k3e3,k5e3,k5e3"


@pytest.fixture(scope="module")
def space() -> MobileNet:
    return MobileNet("small")


@pytest.fixture(scope="module")
def rows(space: MobileNet) -> Rows:
    return space.sample(200, np.random.default_rng(0))


def filters(network: Network, scope: str) -> list[tuple[int, ...]]:
    """Shapes of the convolutions of one block, in order."""
    return [node.weights["weight"] for node in network.nodes if node.name.startswith(scope) and node.op == "Conv"]


@pytest.mark.parametrize(("scale", "task", "count"), [("small", DIGITS, 8), ("small", CIFAR, 4), ("full", IMAGENET, 2)])
def test_lowerings_and_costs_agree(scale: str, task: Task, count: int) -> None:
    space = MobileNet(scale)
    for row in space.sample(count, np.random.default_rng(1)):
        network = space.network(row, task)
        assert counted(network) == (network.params, network.macs)
        by_torch, by_onnx = outputs(network, calibrated_weights(network))
        assert by_torch.shape == (1, task.classes)
        np.testing.assert_allclose(by_onnx, by_torch, rtol=0, atol=1e-4 * np.abs(by_torch).max())


@pytest.mark.parametrize(
    ("text", "params_m", "flops_m"),
    [
        (TEXT, 4.6, 105.4),
        ("r140|k3e3,k3e3|k5e3,k5e3|k7e4,k3e3|k5e3,k3e4|k3e6,k7e6", 4.3, 70.9),
    ],
)
def test_released_networks_have_their_published_size(text: str, params_m: float, flops_m: float) -> None:
    """Two networks specialised for a phone; their published operations (MMRazor) include a few per activation."""
    space = MobileNet()
    network = space.network(space.parse([text])[0], IMAGENET)
    assert network.params / 1e6 == pytest.approx(params_m, abs=0.05)
    assert 0.93 * flops_m < network.macs / 1e6 < flops_m


def _expected(space: MobileNet, text: str) -> tuple[int, int]:
    """Parameters and multiply-accumulates for ImageNet by the paper's layer tables, written out once more."""
    resolution, *stages = text.split("|")
    side = int(resolution[1:])
    stem, first, *widths = (make_divisible(width * space.scale["width_mult"]) for width in space.scale["widths"])
    expanded, mixed = (make_divisible(width * space.scale["width_mult"]) for width in space.scale["head"])
    side = -(-side // 2)
    params = 27 * stem + 2 * stem + 9 * stem + 2 * stem + stem * first + 2 * first
    macs = side**2 * (27 * stem + 9 * stem + stem * first)
    before = first
    for stage, width, stride, squeeze in zip(stages, widths, (2, 2, 2, 1, 2), (0, 1, 0, 1, 1), strict=True):
        for i, block in enumerate(stage.split(",")):
            kernel, expansion = int(block[1]), int(block[3])
            inner, after = before * expansion, -(-side // stride) if i == 0 else side
            gate = make_divisible(inner // 4)
            params += before * inner + 2 * inner + kernel**2 * inner + 2 * inner + inner * width + 2 * width
            params += squeeze * (2 * inner * gate + inner + gate)
            macs += side**2 * before * inner + after**2 * (kernel**2 * inner + inner * width)
            macs += squeeze * 2 * inner * gate
            before, side = width, after
    params += before * expanded + 2 * expanded + expanded * mixed + mixed * 1000 + 1000
    return params, macs + side**2 * before * expanded + expanded * mixed + mixed * 1000


@pytest.mark.parametrize("width_mult", [1.0, 1.2])
def test_costs_follow_the_layer_tables(width_mult: float) -> None:
    space = MobileNet(width_mult=width_mult)
    sampled = space.sample(20, np.random.default_rng(2))
    rows = np.concatenate([sampled, np.zeros_like(sampled[:1]), space.sizes[None] - 1])
    for row, text in zip(rows, space.format(rows), strict=True):
        network = space.network(row, IMAGENET)
        assert (network.params, network.macs) == _expected(space, text)


def test_blocks_have_their_layers() -> None:
    space = MobileNet()
    network = space.network(space.parse([TEXT])[0], IMAGENET)
    assert network.input_shape == (3, 152, 152)
    assert filters(network, "stem") == [(16, 3, 3, 3)]
    assert filters(network, "first") == [(16, 1, 3, 3), (16, 16, 1, 1)]
    assert filters(network, "stage1_block1") == [(48, 16, 1, 1), (48, 1, 5, 5), (24, 48, 1, 1)]
    gate = [(24, 96, 1, 1), (96, 24, 1, 1)]
    assert filters(network, "stage2_block1") == [(96, 24, 1, 1), (96, 1, 5, 5), *gate, (40, 96, 1, 1)]
    assert filters(network, "head") == [(960, 160, 1, 1), (1280, 960, 1, 1)]
    ops = defaultdict(list)
    for node in network.nodes:
        ops[node.name.rpartition("_")[0]].append(node.op)
    assert "HardSwish" in ops["stem"] and "HardSwish" not in ops["first"] and "HardSwish" not in ops["stage2_block2"]
    assert ops["stage3_block2"].count("HardSwish") == 2 and "Relu" not in ops["stage3_block2"]
    assert ops["stage4_block2"][6:12] == ["GlobalAveragePool", "Conv", "Relu", "Conv", "HardSigmoid", "Mul"]
    assert ops["stage4_block2"][-1] == "Add" and ops["stage4_block1"][-1] != "Add"
    assert [i for i in range(1, 6) if "Mul" in ops[f"stage{i}_block1"]] == [2, 4, 5]


@pytest.mark.parametrize(
    ("scale", "task", "expected"),
    [
        ("small", DIGITS, [5, 5, 5, 6, 6, 7, 8]),
        ("small", CIFAR, [20, 20, 20, 24, 24, 28, 32]),
        ("full", CIFAR, [18, 19, 22, 23, 25, 27, 32]),
        ("full", IMAGENET, [128, 132, 152, 164, 176, 192, 224]),
    ],
)
def test_resolution_is_relative_to_the_task(scale: str, task: Task, expected: list[int]) -> None:
    space = MobileNet(scale)
    row = np.zeros(len(space.genes), dtype=np.int64)
    sides = []
    for resolution in (128, 132, 152, 164, 176, 192, 224):
        row[0] = space.genes[0].choices.index(resolution)
        sides.append(space.network(row, task).input_shape[1:])
    assert sides == [(side, side) for side in expected]


@pytest.mark.parametrize("side", range(8, 33))
def test_small_resolutions_of_one_size_are_of_one_class(space: MobileNet, side: int) -> None:
    """The sizes of images that classes build for differ from 8 pixels on, and within a class they are equal."""
    task = Task("images", (1, side, side), 10)
    rows = np.zeros((space.sizes[0], len(space.genes)), dtype=np.int64)
    rows[:, 0] = np.arange(len(rows))
    keys, built = space.keys(rows), [space.network(row, task) for row in rows]
    assert len(set(keys)) == len({network.text() for network in built}) == 4
    assert len({(key, network.name, network.text()) for key, network in zip(keys, built, strict=True)}) == 4


@pytest.mark.parametrize(("step", "classes"), [(1, 25), (4, 25), (7, 15), (14, 8), (28, 4), (60, 3), (1000, 1)])
def test_resolution_step_decides_the_classes(step: int, classes: int) -> None:
    space = MobileNet(resolution_step=step)
    rows = np.zeros((space.sizes[0], len(space.genes)), dtype=np.int64)
    rows[:, 0] = np.arange(len(rows))
    canonical = space.canonical(rows)
    np.testing.assert_array_equal(space.canonical(canonical), canonical)
    assert len(np.unique(canonical[:, 0])) == classes
    assert canonical[-1, 0] == space.sizes[0] - 1
    resolutions = np.array(space.genes[0].choices, dtype=int)
    assert np.abs(resolutions[canonical[:, 0]] - resolutions).max() <= step


def test_every_resolution_builds_for_eight_pixels(space: MobileNet, rows: Rows) -> None:
    sides = set()
    for choice in range(space.sizes[0]):
        row = rows[choice].copy()
        row[0] = choice
        network = space.network(row, DIGITS)
        sides.add(network.input_shape[1])
        assert network.shapes[network.output] == (10,)
    assert sides == {5, 6, 7, 8}


@pytest.mark.parametrize(("channels", "expected"), [(3, 8), (12, 16), (11.9, 8 + 8), (16, 16), (19.2, 24), (26, 24)])
def test_make_divisible(channels: float, expected: int) -> None:
    assert make_divisible(channels) == expected


def test_canonical_clears_what_is_not_built(space: MobileNet, rows: Rows) -> None:
    canonical, active = space.canonical(rows), space.active(rows)
    np.testing.assert_array_equal(space.canonical(canonical), canonical)
    np.testing.assert_array_equal(space.active(canonical), active)
    assert not canonical[~active].any()
    active[:, 0] = False  # resolutions that stand for one another are merged
    np.testing.assert_array_equal(canonical[active], rows[active])
    assert {space.genes[0].choices[i] for i in canonical[:, 0]} == {140, 168, 196, 224}
    depths = 2 + rows[:, 1:6]
    np.testing.assert_array_equal(active[:, 6:].reshape(-1, 5, 4, 2).sum(axis=(2, 3)), 2 * depths)
    for row, representative in zip(rows[:10], canonical[:10], strict=True):
        assert space.network(row, DIGITS) == space.network(representative, DIGITS)


def test_rows_of_other_classes_build_other_networks() -> None:
    space = MobileNet()
    row = space.sample(1, np.random.default_rng(3))[0]
    rows = np.concatenate([row[None], space.neighbors(row)])
    built = {space.network(row, IMAGENET).text() for row in rows}
    assert len(built) == len(rows) == len(set(space.keys(rows)))


def test_empty_batches_pass(space: MobileNet, rows: Rows) -> None:
    none = rows[:0]
    assert space.canonical(none).shape == none.shape
    assert space.format(none) == []
    assert space.parse([]).shape == none.shape
    assert space.graph(none)[1].shape == (0, 22)


def test_text_is_of_the_class(space: MobileNet, rows: Rows) -> None:
    np.testing.assert_array_equal(space.parse(space.format(rows)), space.canonical(rows))
    assert space.format(space.canonical(rows)) == space.format(rows)
    assert space.format(space.parse([TEXT])) == [TEXT.replace("r152", "r140")]
    full = MobileNet()
    assert full.format(full.parse([TEXT])) == full.format(full.parse([TEXT.replace("|", " | ")])) == [TEXT]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("r152|k5e3,k3e3", "5 stages"),
        (TEXT[1:], "r<resolution>"),
        (TEXT.replace("r152", "r150"), "Unknown choice of gene 'resolution' '150'"),
        (TEXT.replace("k5e3,k3e3", "k5e3", 1), "stage 1 of .* has 1"),
        (TEXT + ",k3e3", "stage 5 of .* has 5"),
        (TEXT.replace("k7e4", "k9e4"), "stage4_block3_kernel.*'9'.*3, 5, 7"),
        (TEXT.replace("k7e4", "k7e5"), "stage4_block3_expansion.*'5'"),
        (TEXT.replace("k7e4", "7x4"), "k<kernel>e<expansion>.*'7x4'"),
    ],
)
def test_foreign_text_is_refused(space: MobileNet, text: str, message: str) -> None:
    with pytest.raises(ArchitectureError, match=message):
        space.parse([text])


def test_graph_is_a_chain_of_the_used_blocks(space: MobileNet) -> None:
    row = space.parse([TEXT])
    adjacency, ops = space.graph(row)
    used = np.flatnonzero(ops[0] >= 0)
    names = [space.ops[i].name for i in ops[0, used]]
    assert names == ["input", *TEXT.split("|", 1)[1].replace("|", ",").split(","), "output"]
    assert used.tolist() == [0, 1, 2, 5, 6, 9, 10, 11, 13, 14, 15, 17, 18, 19, 20, 21]
    np.testing.assert_array_equal(np.argwhere(adjacency[0]), np.stack([used[:-1], used[1:]], axis=1))
    op = space.ops[ops[0, 15]]
    assert (op.kind, op.kernel, op.expansion) == ("inverted_residual", 7, 4)


def test_scale_needs_its_numbers() -> None:
    with pytest.raises(ConfigError, match=r"mobilenet\.widths is a list of 7 numbers"):
        MobileNet(widths=[16, 24])
    assert MobileNet(width_mult=1.2).fingerprint != MobileNet().fingerprint
