"""NAS-Bench-101: identity, notation, networks, and agreement with the published figures."""

import csv
import gzip
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from searchspaces.errors import ArchitectureError, NetworkError, TableError
from searchspaces.genes import Mask, Rows
from searchspaces.nb101 import NB101, classes, enumerate_classes
from searchspaces.nb101.build import vertex_channels
from searchspaces.nb101.cells import EDGES, OPS, adjacency, class_numbers, pack, unpack
from searchspaces.nb101.notation import rows_of_table
from searchspaces.network import Network, NetworkModule, init_weights, to_onnx, to_torch
from searchspaces.task import Task

CIFAR10 = Task("cifar10", (3, 32, 32), 10)
DIGITS = Task("digits", (1, 8, 8), 10, "small")
CONV3, CONV1, POOL = OPS


@pytest.fixture(scope="module")
def space() -> NB101:
    return NB101()


@pytest.fixture(scope="module")
def sampled(space: NB101) -> Rows:
    return space.sample(2000, np.random.default_rng(0))


@pytest.fixture(scope="module")
def small_cells(space: NB101) -> Rows:
    """Every valid cell of up to five vertices, with all its redundant forms."""
    labels = ["".join(ops) for ops in product("012", repeat=3)]
    rows = rows_of_table(np.repeat(np.arange(2**10), len(labels)), [5] * 2**10 * len(labels), labels * 2**10)
    return rows[space.is_valid(rows)]


def permuted(rows: Rows, order: tuple[int, ...]) -> tuple[Rows, Mask]:
    """Rename inner vertices; also tell in which rows all edges still point forward."""
    place = np.array([0, *order, 6])
    matrix = adjacency(rows)[:, place][:, :, place]
    forward = np.asarray(~np.tril(matrix).any(axis=(1, 2)))
    result = np.concatenate([matrix[:, *np.array(EDGES).T], rows[:, 20 + np.array(order)]], axis=1).astype(np.int64)
    return result, forward


def records(data_dir: Path) -> list[dict[str, str]]:
    with gzip.open(data_dir / "nb101" / "cifar10_accuracy_20k.csv.gz", "rt") as file:
        return list(csv.DictReader(file))


def rows_of(space: NB101, table: list[dict[str, str]]) -> Rows:
    edge_bits = [int(record["edge_bits"]) for record in table]
    return space.from_table(edge_bits, [int(record["V"]) for record in table], [record["ops"] for record in table])


# -- identity -------------------------------------------------------------------------------------------------------


def test_canonical_ignores_the_order_of_vertices(space: NB101, sampled: Rows) -> None:
    rows = sampled[:300]
    expected, moved = space.canonical(rows), 0
    for order in permutations(range(1, 6)):
        other, forward = permuted(rows, order)
        assert (space.canonical(other[forward]) == expected[forward]).all()
        moved += (other[forward] != rows[forward]).any(axis=1).sum()
    assert moved > 300


def test_canonical_is_a_valid_member_of_its_class(space: NB101, sampled: Rows) -> None:
    canonical = space.canonical(sampled)
    assert space.is_valid(canonical).all()
    assert (space.canonical(canonical) == canonical).all()
    assert space.hashes(canonical) == space.hashes(sampled)


def test_canonical_puts_dead_vertices_last(space: NB101) -> None:
    row = space.parse([f"input|{POOL}~0|{CONV1}~0|{CONV3}~2|{CONV1}~0|{POOL}~0|output~3"])
    assert space.format(space.canonical(row)) == [f"input|{CONV1}~0|{CONV3}~1|{CONV3}~0|{CONV3}~0|{CONV3}~0|output~2"]


def test_classes_of_small_cells_are_those_of_the_published_hash(space: NB101, small_cells: Rows) -> None:
    keys, hashes = space.keys(small_cells), space.hashes(small_cells)
    assert len(small_cells) > len(set(keys)) > 1000
    assert len(set(zip(keys, hashes, strict=True))) == len(set(keys)) == len(set(hashes))


def test_active_genes_are_exactly_those_whose_change_changes_the_class(space: NB101, sampled: Rows) -> None:
    rows = sampled[:400]
    changes = np.zeros(rows.shape, dtype=bool)
    canonical = space.canonical(rows)
    for gene, size in enumerate(space.sizes):
        for step in range(1, size):
            changed = rows.copy()
            changed[:, gene] = (rows[:, gene] + step) % size
            changes[:, gene] |= (space.canonical(changed) != canonical).any(axis=1)
    assert (space.active(rows) == changes).all()
    assert 0.1 < changes.mean() < 0.9


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("input|output~0", True),
        (f"input|{POOL}~0|output", False),
        (f"input|{POOL}~0|{POOL}~0~1|{POOL}~0~1~2|output~1~2~3", True),
        (f"input|{POOL}~0|{POOL}~0~1|{POOL}~0~1~2|output~0~1~2~3", False),
        # Twelve edges, of which those of the dead vertices 4 and 5 do not count.
        (f"input|{POOL}~0|{POOL}~0~1|{POOL}~0~1~2|{POOL}~0~1|{POOL}~0|output~1~2~3", True),
    ],
)
def test_valid_cells_connect_and_have_nine_live_edges(space: NB101, text: str, valid: bool) -> None:
    if valid:
        assert space.format(space.parse([text]))
    else:
        with pytest.raises(ArchitectureError, match="not a valid architecture"):
            space.parse([text])


# -- moving about ---------------------------------------------------------------------------------------------------


def test_sample_is_valid_and_seeded(space: NB101, sampled: Rows) -> None:
    assert space.is_valid(sampled).all()
    share = sampled[:, :21].mean(axis=0)
    assert ((share > 0.3) & (share < 0.7)).all()
    assert (space.sample(2000, np.random.default_rng(0)) == sampled).all()


def test_mutation_changes_the_class_and_stays_valid(space: NB101, sampled: Rows) -> None:
    mutated = space.mutate(sampled, np.random.default_rng(1))
    assert space.is_valid(mutated).all()
    different = [a != b for a, b in zip(space.keys(mutated), space.keys(sampled), strict=True)]
    assert np.mean(different) > 0.99


def test_dead_vertices_are_one_edit_from_life(space: NB101) -> None:
    row = space.canonical(space.parse(["input|output~0"]))[0]
    neighbors = space.neighbors(row)
    assert set(space.keys(neighbors)) == set(space.keys(space.parse([f"input|{CONV3}~0|output~0~1"])))


def test_single_edits_lead_from_the_smallest_cell_to_full_ones(space: NB101) -> None:
    rng = np.random.default_rng(2)
    rows = np.repeat(space.parse(["input|output~0"]), 300, axis=0)
    most = np.zeros(300, dtype=int)
    for _ in range(60):
        rows = space.mutate(rows, rng)
        most = np.maximum(most, (space.graph(rows)[1] >= 2).sum(axis=1))
    assert most.max() == 5
    assert np.mean(most >= 3) > 0.8


# -- notation -------------------------------------------------------------------------------------------------------


def test_text_round_trip(space: NB101, sampled: Rows) -> None:
    assert (space.parse(space.format(sampled)) == sampled).all()


def test_short_cells_can_be_written(space: NB101) -> None:
    rows = space.parse([f" input|{CONV1}~0|output~0~1 "])
    assert space.format(rows) == [f"input|{CONV1}~0|{CONV3}~0|{CONV3}~0|{CONV3}~0|{CONV3}~0|output~0~1"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "two to 7 vertices"),
        ("input|" + "|".join([f"{POOL}~0"] * 6) + "|output~1", "two to 7 vertices"),
        (f"{POOL}~0|output~0", "two to 7 vertices"),
        ("input|conv3x3~0|output~1", "Did you mean 'conv3x3-bn-relu'"),
        (f"input|{POOL}~1|output~1", "before it"),
        (f"input|{POOL}~0|output~x", "before it"),
        (f"input|{POOL}~0|output~1~1", "each once"),
        ("input~0|output~0", "before it"),
    ],
)
def test_malformed_text_is_refused(space: NB101, text: str, message: str) -> None:
    with pytest.raises(ArchitectureError, match=message):
        space.parse([text])


def test_records_of_a_table(space: NB101) -> None:
    rows = space.from_table([0b1, 0b110, 0b110101], [2, 3, 4], ["", "2", "10"])
    assert space.format(rows) == space.format(
        space.parse(["input|output~0", f"input|{POOL}|output~0~1", f"input|{CONV1}~0|{CONV3}~1|output~1~2"])
    )


@pytest.mark.parametrize(
    "record",
    [
        ([8], [3], ["0"]),
        ([-1], [3], ["0"]),
        ([5], [8], ["000000"]),
        ([5], [3], ["00"]),
        ([5], [3], ["3"]),
        ([5], [3], [0]),
        ([5.0], [3], ["0"]),
        ([5, 5], [3], ["0"]),
    ],
)
def test_malformed_records_are_refused(space: NB101, record: tuple[Any, Any, Any]) -> None:
    with pytest.raises(ArchitectureError, match=r"[Rr]ecord"):
        space.from_table(*record)


# -- graphs and networks ----------------------------------------------------------------------------------------------


def test_graph_is_pruned(space: NB101) -> None:
    rows = space.parse([f"input|{POOL}~0|{CONV1}~0~1|{CONV3}~1|output~0~2"])
    matrix, ops = space.graph(rows)
    assert np.argwhere(matrix[0]).tolist() == [[0, 1], [0, 2], [0, 6], [1, 2], [2, 6]]
    assert [space.ops[op].name if op >= 0 else None for op in ops[0]] == [
        *("input", POOL, CONV1, None, None, None, "output"),
    ]


def test_graph_agrees_with_the_published_hash(space: NB101, sampled: Rows) -> None:
    matrix, ops = space.graph(sampled)
    again = np.concatenate([matrix[:, *np.array(EDGES).T], np.maximum(ops[:, 1:-1] - 2, 0)], axis=1).astype(np.int64)
    assert space.hashes(again) == space.hashes(sampled)


def test_vertices_share_the_output_channels(space: NB101) -> None:
    row = space.parse([f"input|{POOL}~0|{POOL}~0|{POOL}~0|{CONV3}~1|{POOL}~0|output~2~3~4"])
    edges, _ = space.graph(row)
    assert vertex_channels(128, edges[0]) == {2: 43, 3: 43, 4: 42, 1: 42}
    with pytest.raises(NetworkError, match="stem"):
        NB101(stem=2).network(row[0], CIFAR10)


def test_params_of_the_smallest_cell(space: NB101) -> None:
    def conv(inputs: int, outputs: int, kernel: int) -> int:
        return inputs * outputs * kernel**2 + 2 * outputs

    cells = sum(conv(a, b, 1) for a, b in [(128, 128)] * 3 + [(128, 256)] + [(256, 256)] * 2)
    cells += conv(256, 512, 1) + 2 * conv(512, 512, 1)
    network = space.network(space.parse(["input|output~0"])[0], CIFAR10)
    assert network.params == conv(3, 128, 3) + cells + 512 * 10 + 10
    assert space.hashes(space.parse(["input|output~0"]))[0][:12] in network.name


def count_macs(module: NetworkModule, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], int]:
    """Run the module; return its output and the multiplications of convolutions and matrices for one image."""
    macs: list[int] = []

    def hook(layer: nn.Module, _: Any, output: torch.Tensor) -> None:
        macs.append(output[0].numel() * layer.get_parameter("weight")[0].numel())

    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.register_forward_hook(hook)
    with torch.no_grad():
        return module(torch.from_numpy(images)).numpy(), sum(macs)


def random_weights(network: Network, rng: np.random.Generator) -> dict[str, NDArray[np.float32]]:
    """Weights whose batch normalisation does something, and in all its four arrays."""
    weights = init_weights(network, 1)
    for key, value in weights.items():
        if "batchnormalization" in key:
            value[...] = rng.uniform(0.5, 1.5, value.shape)
    return weights


def test_torch_and_onnx_agree_and_costs_are_what_is_built() -> None:
    space, rng = NB101("small"), np.random.default_rng(3)
    images = rng.standard_normal((2, *DIGITS.input_shape)).astype(np.float32)
    for row in space.sample(6, rng):
        network = space.network(row, DIGITS)
        weights = random_weights(network, rng)
        module = to_torch(network, weights).eval()
        expected, macs = count_macs(module, images)
        session = onnxruntime.InferenceSession(to_onnx(network, weights, batch=2).SerializeToString())
        (output,) = session.run(None, {"input": images})
        assert expected.std() > 0
        assert np.abs(output - expected).max() <= 1e-4 * np.abs(expected).max()
        assert network.macs == macs
        assert network.params == sum(parameter.numel() for parameter in module.parameters())


def test_images_too_small_for_the_pooling_are_refused(space: NB101, sampled: Rows) -> None:
    with pytest.raises(NetworkError, match="does not fit"):
        space.network(sampled[0], Task("tiny", (3, 2, 2), 10))


# -- published figures -----------------------------------------------------------------------------------------------


@pytest.mark.data
def test_hashes_are_the_published_ones(space: NB101, data_dir: Path) -> None:
    table = records(data_dir)
    assert len(table) == 20_000
    assert space.hashes(rows_of(space, table)) == [record["hash"] for record in table]


@pytest.mark.data
def test_params_are_the_published_ones(space: NB101, data_dir: Path) -> None:
    table = records(data_dir)[::20]
    built = [space.network(row, CIFAR10).params for row in rows_of(space, table)]
    assert built == [int(record["params"]) for record in table]


@pytest.mark.data
@pytest.mark.slow
def test_all_params_are_the_published_ones(space: NB101, data_dir: Path) -> None:
    table = records(data_dir)
    built = [space.network(row, CIFAR10).params for row in rows_of(space, table)]
    assert built == [int(record["params"]) for record in table]


@pytest.mark.slow
def test_there_are_423624_classes_with_as_many_hashes(space: NB101) -> None:
    rows = space.enumerate_classes()
    assert rows.shape == (423_624, 26)
    assert (rows == enumerate_classes()).all()
    assert space.is_valid(rows).all()
    assert (np.diff(pack(rows)) > 0).all()
    assert (space.canonical(rows) == rows).all()
    assert len(set(space.hashes(rows))) == 423_624


@pytest.mark.slow
def test_classes_can_be_drawn_uniformly(space: NB101) -> None:
    """Cells with all five inner vertices are 0.3 % of the rows, but 85 % of the classes."""
    drawn = [draw(20_000, np.random.default_rng(0)) for draw in (space.sample_classes, space.sample)]
    by_class, by_row = (((space.graph(rows)[1] >= 2).sum(axis=1) == 5).mean() for rows in drawn)
    assert by_class == pytest.approx(0.848, abs=0.01)
    assert by_row == pytest.approx(0.003, abs=0.002)


def test_packed_rows_sort_as_rows_do(sampled: Rows) -> None:
    order = np.argsort(pack(sampled))
    np.testing.assert_array_equal(sampled[order], sampled[np.lexsort(sampled.T[::-1])])
    np.testing.assert_array_equal(unpack(pack(sampled)), sampled)


def test_classes_are_cached(space: NB101, sampled: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = class_numbers(sampled)
    monkeypatch.setattr(classes, "_numbers", lambda: numbers)
    first = enumerate_classes(tmp_path / "cache")
    monkeypatch.delattr(classes, "_numbers")
    assert (first == space.canonical(sampled)).all()
    assert (enumerate_classes(tmp_path / "cache") == first).all()
    (path,) = (tmp_path / "cache").iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(TableError, match="Delete it"):
        enumerate_classes(tmp_path / "cache")
