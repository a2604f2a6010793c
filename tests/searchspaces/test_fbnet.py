"""FBNet: the network that a row means, its canonical form, and its agreement with published figures."""

import csv
import gzip
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import nn

from nasflow.testing import calibrated_weights, counted, outputs
from searchspaces.errors import ArchitectureError, ConfigError
from searchspaces.fbnet import FBNet
from searchspaces.fbnet.space import STAGES
from searchspaces.genes import Rows
from searchspaces.network import Network, to_torch
from searchspaces.task import Task

DIGITS = Task("digits", (1, 8, 8), 10)
CIFAR = Task("cifar100", (3, 32, 32), 100)
IMAGENET = Task("imagenet", (3, 224, 224), 1000)
SKIP = 8

# The released FBNets and their figures at 224 pixels (github.com/facebookresearch/mobile-vision, its first README).
FBNET_A = (
    "skip,k3_e3,k3_e1,skip,skip,k5_e6,k3_e3,k5_e1,k3_e3,k5_e6,k5_e3,k5_e1_g2,k5_e6,k3_e6,k5_e1_g2,k5_e3,k3_e1_g2,"
    "k5_e6,k5_e6,k5_e3,k5_e6,k5_e6"
)
FBNET_B = (
    "k3_e1,k3_e6,k5_e1,k3_e1,k3_e1,k5_e6,k5_e3,k3_e6,k5_e6,k5_e6,k5_e1,skip,k5_e3,k5_e6,k3_e1,k5_e1,k5_e3,"
    "k5_e6,k5_e1,k5_e6,k5_e6,k3_e6"
)
FBNET_C = (
    "k3_e1,k3_e6,skip,k3_e1,k3_e1,k5_e6,k5_e3,k5_e6,k3_e6,k5_e6,k5_e3,k5_e6,k5_e6,k5_e6,k5_e6,k5_e6,k5_e3,"
    "k5_e6,k5_e6,k5_e6,k5_e6,k3_e6"
)


class Uncanonical(FBNet):
    """Builds each row as it stands."""

    def canonical(self, rows: Rows) -> Rows:
        return rows


@pytest.fixture(scope="module")
def space() -> FBNet:
    return FBNet("small")


@pytest.fixture(scope="module")
def rows(space: FBNet) -> Rows:
    """Random rows, half of whose blocks are skips."""
    rng = np.random.default_rng(0)
    sampled = space.sample(200, rng)
    return np.where(rng.random(sampled.shape) < 0.5, SKIP, sampled)


def structure(network: Network) -> list[tuple[Any, ...]]:
    """Everything about a network but the names of its nodes."""
    place = {node.name: i for i, node in enumerate(network.nodes)}
    return [
        (node.op, [place.get(name, -1) for name in node.inputs], node.shape, node.attributes, node.weights)
        for node in network.nodes
    ]


@pytest.mark.parametrize(
    ("scale", "task", "count"), [("small", DIGITS, 8), ("small", CIFAR, 4), ("cifar", CIFAR, 2), ("full", IMAGENET, 1)]
)
def test_lowerings_and_costs_agree(scale: str, task: Task, count: int) -> None:
    space = FBNet(scale)
    for row in space.sample(count, np.random.default_rng(1)):
        network = space.network(row, task)
        assert counted(network) == (network.params, network.macs)
        by_torch, by_onnx = outputs(network, calibrated_weights(network))
        assert by_torch.shape == (1, task.classes)
        np.testing.assert_allclose(by_onnx, by_torch, rtol=0, atol=1e-4 * np.abs(by_torch).max())


@pytest.mark.parametrize(
    ("text", "head", "params_m", "macs_m"),
    [
        (FBNET_A, 1504, 4.3, 249.4),
        (FBNET_B, 1984, 4.8, 295.6),
        (FBNET_B, 1504, 4.1, 286.8),
        (FBNET_C, 1984, 5.5, 383.0),
        (FBNET_C, 1504, 4.9, 374.2),
    ],
)
def test_released_networks_have_their_published_size(text: str, head: int, params_m: float, macs_m: float) -> None:
    space = FBNet(head=head)
    network = space.network(space.parse([text])[0], IMAGENET)
    assert int(network.params / 1e5) / 10 == params_m
    assert network.macs / 1e6 == pytest.approx(macs_m, rel=0.006)


def _table(folder: Path, step: int) -> tuple[Rows, NDArray[np.int64], list[str]]:
    """Every `step`-th architecture of the published table with its `params` and `flops` columns."""
    archs = torch.load(folder / "help/fbnet/arch.pt", weights_only=True)
    with gzip.open(folder / "fbnet/zero_cost.csv.gz", "rt") as file:
        records = list(csv.DictReader(file))[::step]
    rows = np.array([archs[int(record["index"])] for record in records])
    return rows, np.array([int(float(record["params"])) for record in records]), [r["flops"] for r in records]


def _flopth(network: Network) -> int:
    """Operations as counted by the tool behind the table.

    It adds two operations for each normalised number, one for each rectified and each averaged one, and overwrites
    its count when a module runs twice: of the two activations of a block, one module, the second remains.
    """
    total = network.macs
    for i, node in enumerate(network.nodes):
        if node.op == "BatchNormalization":
            total += 2 * prod(node.shape)
        elif node.op == "GlobalAveragePool":
            total += prod(network.shapes[node.inputs[0]])
        elif node.op == "Relu":
            following = network.nodes[i + 1]
            depthwise = following.attributes.get("group", 1) == node.shape[0]
            total += 0 if following.op == "Reshape" or depthwise else prod(node.shape)
    return total


@pytest.mark.data
def test_params_and_flops_equal_the_published_table(data_dir: Path) -> None:
    """Also shows that the operations are in the table's order: any other order changes the counts."""
    rows, params, flops = _table(data_dir, step=16)
    assert len(rows) == 313
    space = FBNet("cifar")
    networks = [space.network(row, CIFAR) for row in rows]
    np.testing.assert_array_equal([network.params for network in networks], params)
    assert [f"{_flopth(network):.6e}" for network in networks] == [f"{float(value):.6e}" for value in flops]
    macs = [network.macs for network in networks]
    assert spearmanr(macs, np.array(flops, dtype=float)).statistic > 0.999


def test_canonical_moves_identities_to_the_end_of_their_run(space: FBNet) -> None:
    row = np.arange(22) % 8
    row[[0, 2, 6, 8, 9, 11, 21]] = SKIP
    expected = row.copy()
    expected[2:5] = [row[3], row[4], SKIP]
    expected[6:9] = [row[7], SKIP, SKIP]
    expected[10:13] = [row[10], row[12], SKIP]
    np.testing.assert_array_equal(space.canonical(row[None])[0], expected)


@pytest.mark.parametrize("scale", ["small", "full"])
def test_canonical_rows_build_the_same_network(scale: str, rows: Rows) -> None:
    uncanonical = Uncanonical(scale)
    canonical = FBNet(scale).canonical(rows)
    assert (canonical != rows).any(axis=1).mean() > 0.5
    for row, representative in zip(rows[:30], canonical[:30], strict=True):
        as_it_stands = uncanonical.network(row, DIGITS)
        assert structure(as_it_stands) == structure(uncanonical.network(representative, DIGITS))
        assert FBNet(scale).network(row, DIGITS) == FBNet(scale).network(representative, DIGITS)


def test_rows_of_other_classes_build_other_networks(space: FBNet, rows: Rows) -> None:
    neighbors = np.concatenate([rows[:1], space.neighbors(rows[0])[::3]])
    structures = {repr(structure(space.network(row, DIGITS))) for row in neighbors}
    assert len(structures) == len(set(space.keys(neighbors)))
    assert space.active(rows).all()


def test_canonical_follows_the_widths(rows: Rows) -> None:
    """Where no stage changes the shape, all blocks are one run."""
    flat = FBNet("small", widths=[8] * 8, strides=[1] * 8)
    canonical = flat.canonical(rows)
    for row, representative in zip(rows, canonical, strict=True):
        kept = row[row != SKIP]
        assert representative.tolist() == [*kept, *[SKIP] * (22 - len(kept))]


def test_skip_changes_the_shape_with_a_convolution(space: FBNet) -> None:
    network = space.network(np.full(22, SKIP), DIGITS)
    blocks = [node for node in network.nodes if node.name.startswith("block")]
    first_blocks = 1 + np.cumsum(STAGES[:-1])
    assert [node.op for node in blocks] == ["Conv", "BatchNormalization", "Relu"] * 6
    assert {node.name.split("_")[0] for node in blocks} == {f"block{i}" for i in first_blocks}
    strides = [node.attributes["strides"][0] for node in blocks if node.op == "Conv"]
    assert tuple(strides) == space.scale["strides"][2:]


def test_block_has_its_convolutions_and_shortcut(space: FBNet) -> None:
    row = np.full(22, SKIP)
    row[1], row[2] = 7, 5  # k5_e6 with a change of width, then k5_e1_g2 without
    network = space.network(row, DIGITS)
    layers = {block: [n for n in network.nodes if n.name.startswith(f"{block}_")] for block in ("block2", "block3")}
    convs = {block: [n.weights["weight"] for n in nodes if n.op == "Conv"] for block, nodes in layers.items()}
    assert convs["block2"] == [(48, 8, 1, 1), (48, 1, 5, 5), (12, 48, 1, 1)]
    assert convs["block3"] == [(12, 6, 1, 1), (12, 1, 5, 5), (12, 6, 1, 1)]
    bn, tail = "BatchNormalization", ["Conv", "BatchNormalization"]
    assert [n.op for n in layers["block2"]] == ["Conv", bn, "Relu", "Conv", bn, "Relu", *tail]
    shuffle = ["Reshape", "Transpose", "Reshape"]
    assert [n.op for n in layers["block3"]] == ["Conv", bn, "Relu", *shuffle, "Conv", bn, "Relu", *tail, "Add"]


def test_two_groups_are_shuffled_as_torch_does(space: FBNet) -> None:
    row = np.full(22, SKIP)
    row[5] = 1
    network = space.network(row, DIGITS)
    module, x = to_torch(network), torch.randn(2, 12, 8, 8, generator=torch.Generator().manual_seed(0))
    y = x
    for node in network.nodes:
        if node.op in ("Reshape", "Transpose"):
            y = module.get_submodule(node.name)(y)
    assert torch.equal(y, nn.functional.channel_shuffle(x, 2))
    assert not torch.equal(y, x)


def test_graph_is_a_chain(space: FBNet, rows: Rows) -> None:
    adjacency, ops = space.graph(rows[:3])
    assert adjacency.shape == (3, 24, 24)
    assert (adjacency == np.eye(24, k=1, dtype=bool)).all()
    np.testing.assert_array_equal(ops[:, 1:-1], rows[:3] + 2)
    assert [space.ops[i].name for i in ops[0]] == ["input", *space.format(rows[:1])[0].split(","), "output"]


def test_descriptors_say_what_their_names_say(space: FBNet) -> None:
    for op in space.ops[2:-1]:
        groups = f"_g{op.groups}" if op.groups > 1 else ""
        assert op.name == f"k{op.kernel}_e{op.expansion:g}{groups}"
        assert op.kind == "inverted_residual"
    assert (space.ops[-1].name, space.ops[-1].kind) == ("skip", "skip")


def test_text_round_trip_and_its_errors(space: FBNet, rows: Rows) -> None:
    np.testing.assert_array_equal(space.parse(space.format(rows)), rows)
    with pytest.raises(ArchitectureError, match="22 comma-separated parts"):
        space.parse(["k3_e1,skip"])
    with pytest.raises(ArchitectureError, match="Did you mean 'k3_e6'"):
        space.parse([FBNET_B.replace("k3_e6", "k3_e66")])


def test_scale_needs_a_number_per_stage() -> None:
    with pytest.raises(ConfigError, match=r"fbnet\.widths is a list of 8 numbers"):
        FBNet(widths=[16, 24])
    with pytest.raises(ConfigError, match=r"fbnet\.head takes whole numbers"):
        FBNet(head=[16, 24])
    assert FBNet(head=1984).fingerprint != FBNet().fingerprint
