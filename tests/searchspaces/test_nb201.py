"""NAS-Bench-201: identity, notation, networks, and agreement with the published figures."""

import csv
import gzip
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from searchspaces.errors import ArchitectureError
from searchspaces.genes import Mask, Rows
from searchspaces.nb201 import NB201
from searchspaces.network import init_weights, to_onnx, to_torch
from searchspaces.task import Task

CIFAR10 = Task("cifar10", (3, 32, 32), 10)
DIGITS = Task("digits", (1, 8, 8), 10, "small")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
NONE, SKIP, CONV1, CONV3 = range(4)
CELL = "|skip_connect~0|+|none~0|nor_conv_1x1~1|+|nor_conv_3x3~0|avg_pool_3x3~1|skip_connect~2|"


@pytest.fixture(scope="module")
def space() -> NB201:
    return NB201()


@pytest.fixture(scope="module")
def every_row(space: NB201) -> Rows:
    return space.from_index(np.arange(15_625))


def dead_free(rows: Rows) -> Mask:
    """Cells all of whose operations lie between input and output; also the cell without operations."""
    present = rows != NONE
    reached, used = np.zeros((2, len(rows), 4), dtype=bool)
    reached[:, 0] = used[:, 3] = True
    for edge, (source, target) in enumerate(EDGES):
        reached[:, target] |= present[:, edge] & reached[:, source]
    for edge, (source, target) in reversed(list(enumerate(EDGES))):
        used[:, source] |= present[:, edge] & used[:, target]
    sources, targets = np.array(EDGES).T
    return np.asarray((~present | (reached[:, sources] & used[:, targets])).all(axis=1))


def outputs(rows: Rows, width: int = 4) -> NDArray[np.float64]:
    """Outputs of the cells, where every operation is a random nonlinear function of a vector."""
    rng = np.random.default_rng(0)
    matrices = rng.standard_normal((5, width, width))
    nodes = np.zeros((4, len(rows), width))
    nodes[0] = rng.standard_normal(width)
    for edge, (source, target) in enumerate(EDGES):
        values = np.stack([np.tanh(nodes[source] @ matrix) for matrix in matrices])
        values[NONE], values[SKIP] = 0, nodes[source]
        nodes[target] += values[rows[:, edge], np.arange(len(rows))]
    return np.asarray(nodes[3])


# -- identity -------------------------------------------------------------------------------------------------------


def test_indices_and_strings_are_one_to_one(space: NB201, every_row: Rows) -> None:
    assert (space.index(every_row) == np.arange(15_625)).all()
    assert len(set(space.format(every_row))) == 15_625
    assert (space.parse(space.format(every_row)) == every_row).all()


@pytest.mark.data
def test_indices_are_the_official_ones(space: NB201, data_dir: Path) -> None:
    official = torch.load(data_dir / "help" / "nasbench201" / "str_arch2idx.pt", weights_only=True)
    texts, indices = list(official), np.array(list(official.values()))
    assert len(official) == 15_625
    assert (space.index(space.parse(texts)) == indices).all()
    assert space.format(space.from_index(indices)) == texts


def test_there_are_4930_classes_and_9445_cells_without_dead_operations(space: NB201, every_row: Rows) -> None:
    canonical = space.canonical(every_row)
    assert len(np.unique(canonical, axis=0)) == 4_930
    assert dead_free(every_row).sum() == 9_445
    assert dead_free(canonical).all()
    assert (space.canonical(canonical) == canonical).all()


def test_enumerate_classes_gives_them_in_row_order(space: NB201, every_row: Rows) -> None:
    classes = space.enumerate_classes()
    assert classes.shape == (4_930, 6)
    np.testing.assert_array_equal(classes, np.unique(space.canonical(every_row), axis=0))


def test_classes_are_the_distinct_functions_of_the_input(space: NB201, every_row: Rows) -> None:
    functions = np.round(outputs(every_row), 9) + 0.0
    canonical = np.unique(space.canonical(every_row), axis=0, return_inverse=True)[1]
    computed = np.unique(functions, axis=0, return_inverse=True)[1]
    pairs = set(zip(canonical.tolist(), computed.tolist(), strict=True))
    assert len(pairs) == canonical.max() + 1 == computed.max() + 1


def test_active_genes_are_exactly_those_whose_change_changes_the_class(space: NB201, every_row: Rows) -> None:
    canonical, changes = space.canonical(every_row), np.zeros(every_row.shape, dtype=bool)
    for gene in range(6):
        for step in range(1, 5):
            changed = every_row.copy()
            changed[:, gene] = (every_row[:, gene] + step) % 5
            changes[:, gene] |= (space.canonical(changed) != canonical).any(axis=1)
    assert (space.active(every_row) == changes).all()
    assert 0.5 < changes.mean() < 1


# -- text -------------------------------------------------------------------------------------------------------------


def test_string_of_a_cell(space: NB201) -> None:
    assert space.parse([CELL]).tolist() == [[1, 0, 2, 3, 4, 1]]
    assert space.format(space.parse([f" {CELL}\n"])) == [CELL]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "six edges"),
        (CELL.replace("none~0|", ""), "has 5: 0→1, 1→2"),
        (CELL.replace("skip_connect~2|", "skip_connect~2|none~3|"), "has 7"),
        (CELL.replace("skip_connect~2", "skip_connect~1"), "six edges"),
        (CELL.replace("nor_conv_1x1", "nor_conv_1x"), "Did you mean 'nor_conv_1x1'"),
    ],
)
def test_malformed_strings_are_refused(space: NB201, text: str, message: str) -> None:
    with pytest.raises(ArchitectureError, match=message):
        space.parse([text])


@pytest.mark.parametrize("index", [-1, 15_625, 1.0, [0, 20_000]])
def test_indices_outside_the_list_are_refused(space: NB201, index: Any) -> None:
    with pytest.raises(ArchitectureError, match="0 to 15624"):
        space.from_index(index)


# -- networks --------------------------------------------------------------------------------------------------------


def test_networks_of_edge_cases_agree_in_torch_and_onnx() -> None:
    space, rng = NB201("small"), np.random.default_rng(1)
    images = rng.standard_normal((2, *DIGITS.input_shape)).astype(np.float32)
    edge_cases = np.array([[NONE] * 6, [SKIP] * 6])
    rows = np.concatenate([space.parse([CELL]), edge_cases, space.sample(4, rng)])
    for row in rows:
        network = space.network(row, DIGITS)
        weights = init_weights(network, 1)
        for key, value in weights.items():
            if "batchnormalization" in key:
                value[...] = rng.uniform(0.5, 1.5, value.shape)
        with torch.no_grad():
            expected = to_torch(network, weights).eval()(torch.from_numpy(images)).numpy()
        session = onnxruntime.InferenceSession(to_onnx(network, weights, batch=2).SerializeToString())
        (output,) = session.run(None, {"input": images})
        assert np.abs(output - expected).max() <= 1e-4 * np.abs(expected).max()


def edge_params(op: int) -> int:
    """Parameters of one edge over three stages of five cells."""
    kernel = {CONV1: 1, CONV3: 3}[op]
    return sum(5 * (kernel**2 * channels**2 + 2 * channels) for channels in (16, 32, 64))


def compare_params(space: NB201, data_dir: Path, every: int) -> tuple[int, int]:
    """Build every n-th cell without dead operations; return how many these are and how many differ in a known way.

    The published value is a mean over up to three runs, in some of which a few cells with a skip connection on the
    edge 0→1 lack the parameters of one edge.
    """
    with gzip.open(data_dir / "nb201" / "cifar10_accuracy.csv.gz", "rt") as file:
        table = list(csv.DictReader(file))
    rows, published = space.parse([r["arch"] for r in table]), np.array([float(r["params_m"]) for r in table])
    assert (space.index(rows) == [int(record["index"]) for record in table]).all()
    chosen = np.flatnonzero(dead_free(rows))[::every]
    rows, published = rows[chosen], published[chosen]
    missing = np.array([space.network(row, CIFAR10).params for row in rows]) - 1e6 * published
    half_a_digit = 0.501 * 10 ** (np.floor(np.log10(published)) + 1)  # of six significant ones, in parameters
    differ = np.abs(missing) > half_a_digit
    for row, lack in zip(rows[differ], missing[differ], strict=True):
        edges = [edge_params(op) for op in {CONV1, CONV3} & set(row.tolist())]
        shares = [edge * share for edge in edges for share in (1 / 3, 1 / 2, 2 / 3)]
        assert row[0] == SKIP
        assert min(abs(lack - share) for share in shares) < 5
    return len(rows), int(differ.sum())


@pytest.mark.data
def test_params_are_the_published_ones(space: NB201, data_dir: Path) -> None:
    checked, differ = compare_params(space, data_dir, every=10)
    assert checked == 945
    assert differ < 30


@pytest.mark.data
@pytest.mark.slow
def test_all_params_but_131_are_the_published_ones(space: NB201, data_dir: Path) -> None:
    assert compare_params(space, data_dir, every=1) == (9_445, 131)
