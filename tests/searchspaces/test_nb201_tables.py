import bz2
import csv
import gzip
import json
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from searchspaces.arch import ArchBatch
from searchspaces.errors import ArchitectureError, TableError
from searchspaces.genes import Rows
from searchspaces.nb201 import NB201
from searchspaces.nb201.dialects import NASLIB_EDGES, NASLIB_OPS, from_naslib, to_naslib, without_dead
from searchspaces.nb201.space import CELLS, EDGES, OPS
from searchspaces.nb201.tables import CsvFigures, CsvScores, expand
from tests.searchspaces.imports import Hostile, only, source

SPACE = NB201(scale="full")
LABELS = {"title": "T", "files": "F", "url": "U", "licence": "L"}


@pytest.fixture(scope="module")
def everything() -> Rows:
    return SPACE.from_index(np.arange(CELLS))


# -- notations ---------------------------------------------------------------------------------------------------


def test_every_cell_survives_every_notation(everything: Rows) -> None:
    np.testing.assert_array_equal(from_naslib(to_naslib(everything)), everything)
    np.testing.assert_array_equal(SPACE.from_index(SPACE.index(everything)), everything)
    np.testing.assert_array_equal(SPACE.parse(SPACE.format(everything)), everything)
    assert len(np.unique(to_naslib(everything), axis=0)) == CELLS


def test_naslib_numbers_edges_by_their_source_and_has_its_own_operations() -> None:
    """NASLib's EDGE_LIST is (1, 2), (1, 3), (1, 4), (2, 3), … with nodes from 1 on."""
    assert NASLIB_EDGES == ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))
    arch = "|avg_pool_3x3~0|+|skip_connect~0|none~1|+|nor_conv_1x1~0|avg_pool_3x3~1|nor_conv_1x1~2|"
    assert to_naslib(SPACE.parse([arch])).tolist() == [[4, 0, 3, 1, 4, 3]]
    assert SPACE.format(from_naslib([(4, 0, 3, 1, 4, 3)])) == [arch]


@pytest.mark.parametrize("tuples", [[(0, 0, 0)], [(0, 0, 0, 0, 0, 5)], [(0, 0, 0, 0, 0, -1)], [(0.0,) * 6]])
def test_other_tuples_are_refused(tuples: list[tuple[float, ...]]) -> None:
    with pytest.raises(ArchitectureError, match="NASLib"):
        from_naslib(tuples)


# Validation accuracies after 200 epochs of one seed, from NASLib's competition/data/nasbench201/cifar10/train.json.
NASLIB_ACCURACIES = {
    (1, 3, 4, 3, 2, 2): 87.88, (1, 4, 1, 2, 3, 4): 63.41, (1, 4, 4, 4, 0, 4): 66.66, (3, 1, 4, 1, 1, 2): 72.19,
    (0, 0, 1, 4, 4, 0): 58.35, (2, 4, 1, 0, 1, 1): 10.00, (1, 4, 4, 1, 4, 3): 76.37, (2, 1, 2, 1, 3, 3): 89.25,
    (3, 2, 4, 3, 1, 1): 70.88, (4, 1, 0, 0, 0, 0): 60.01, (4, 3, 1, 2, 2, 1): 79.88, (4, 4, 4, 0, 1, 3): 74.96,
}  # fmt: skip


@pytest.mark.data
def test_naslib_tuples_mean_the_same_cells(data_dir: Path) -> None:
    _, table = only(source("nb201_accuracy").tables(data_dir / "nb201" / "cifar10_accuracy.csv.gz"))
    found = table.lookup(ArchBatch(SPACE, from_naslib(list(NASLIB_ACCURACIES))), "valid_acc_200ep")
    np.testing.assert_allclose(found, list(NASLIB_ACCURACIES.values()), atol=1.5)


def test_dead_operations_are_dropped(everything: Rows) -> None:
    pruned = without_dead(everything)
    np.testing.assert_array_equal(without_dead(pruned), pruned)
    assert len(np.unique(pruned, axis=0)) == 9_445
    assert SPACE.keys(pruned) == SPACE.keys(everything)
    none, conv = OPS.index("none"), OPS.index("nor_conv_3x3")
    row = np.full((1, 6), none)
    row[0, [EDGES.index((0, 1)), EDGES.index((0, 3)), EDGES.index((2, 3))]] = conv
    expected = np.full((1, 6), none)
    expected[0, EDGES.index((0, 3))] = conv
    np.testing.assert_array_equal(without_dead(row), expected)


# -- CSV ---------------------------------------------------------------------------------------------------------

COLUMNS = {"acc": ("%", "maximize"), "params_m": ("1e6", "minimize")}


def write_csv(path: Path, indices: Any, acc: Any = None) -> Path:
    with gzip.open(path, "wt", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["index", "arch", *COLUMNS])
        for place, index in enumerate(indices):
            value = index / 1000 if acc is None else acc[place]
            writer.writerow([index, SPACE.format(SPACE.from_index([index]))[0], value, 0.5])
    return path


def figures(rows: int, kind: type[CsvFigures] = CsvFigures) -> CsvFigures:
    return kind(**LABELS, table_name="mine", rows=rows, columns=COLUMNS)


def test_csv_figures_are_looked_up_by_cell(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv.gz", [40, 3, 17], [1.5, "", 3.5])
    ((name, table),) = figures(3).tables(path)
    assert name == "mine"
    assert table.columns["acc"].unit == "%"
    assert table.columns["acc"].direction == "maximize"
    np.testing.assert_array_equal(table.lookup(ArchBatch(SPACE, SPACE.from_index([17, 40])), "acc"), [3.5, 1.5])
    with pytest.raises(TableError, match="no 'acc' for 1 of 1"):
        table.lookup(ArchBatch(SPACE, SPACE.from_index([3])), "acc")


def test_an_index_of_another_cell_is_named_by_line(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv.gz", [1, 2, 3])
    text = gzip.decompress(path.read_bytes()).decode().replace("\n2,", "\n5,")
    path.write_bytes(gzip.compress(text.encode()))
    with pytest.raises(TableError, match="gives in line 3 the index 5 to .* whose official index is 2"):
        only(figures(3).tables(path))


def test_an_unknown_cell_names_the_file(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv.gz", [1, 2, 3])
    text = gzip.decompress(path.read_bytes()).decode().replace("nor_conv_3x3", "nor_conv_7x7")
    path.write_bytes(gzip.compress(text.encode()))
    with pytest.raises(TableError, match="t.csv.gz is not a table of NAS-Bench-201 cells.*operation 'nor_conv_7x7'"):
        only(figures(3).tables(path))


def test_scores_spread_to_cells_that_are_the_same_network(tmp_path: Path, everything: Rows) -> None:
    alive = np.flatnonzero((without_dead(everything) == everything).all(axis=1))
    _, table = only(figures(len(alive), CsvScores).tables(write_csv(tmp_path / "t.csv.gz", alive)))
    assert len(table) == CELLS
    found = table.lookup(ArchBatch(SPACE, everything), "acc")
    np.testing.assert_allclose(found, SPACE.index(without_dead(everything)) / 1000)
    assert "dead operations" in table.provenance["notes"]


def test_a_cell_of_its_own_keeps_its_figures() -> None:
    cells = SPACE.from_index(np.arange(99))
    pruned = without_dead(cells)
    place = int(np.argmax((cells != pruned).any(axis=1)))
    dead, alive = cells[place], pruned[place]
    rows, values = expand(np.stack([alive, dead]), np.array([[1.0], [2.0]]))
    assert values[(rows == dead).all(axis=1)].tolist() == [[2.0]]
    assert values[(rows == alive).all(axis=1)].tolist() == [[1.0]]
    assert {tuple(row) for row in without_dead(rows)} == {tuple(alive)}


# -- NASLib ------------------------------------------------------------------------------------------------------


def scores_of(index: int) -> dict[str, Any]:
    scores = {"synflow": {"score": index + 0.5, "time": 1.0}, "params": {"score": 2.0, "time": 0.1}}
    return {"id": index, "val_accuracy": 90.0 - index, **scores}


def test_naslib_scores_of_every_data_set(tmp_path: Path) -> None:
    tuples = to_naslib(SPACE.from_index(np.arange(40)))
    entries = {str(tuple(map(int, key))): scores_of(i) for i, key in enumerate(tuples)}
    first = dict(list(entries.items())[:5])
    (tmp_path / "zc.json").write_text(json.dumps({"cifar10": entries, "ImageNet16-120": first}))
    found = dict(source("nb201_naslib").tables(tmp_path / "zc.json"))
    assert list(found) == ["naslib_cifar10", "naslib_imagenet16_120"]
    table = found["naslib_cifar10"]
    assert set(table.columns) == {"params", "synflow", "val_accuracy"}
    assert [table.columns[name].direction for name in ("params", "synflow")] == ["minimize", None]
    np.testing.assert_allclose(
        table.lookup(ArchBatch(SPACE, SPACE.from_index(np.arange(40))), "synflow"), np.arange(40) + 0.5
    )
    assert 5 <= len(found["naslib_imagenet16_120"]) < len(table)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"cifar10": {"(0, 0)": scores_of(0)}}, "6 whole numbers"),
        ({"cifar10": {"__import__('os').getcwd()": scores_of(0)}}, "truncated, damaged or another file"),
        ({"cifar10": {"'abc'": scores_of(0)}}, "written as a tuple of numbers"),
        ({"cifar10": {"(0, 0, 0, 0, 0, 0)": {"id": 1}}}, "has no scores"),
        ([1, 2], "truncated, damaged or another file"),
    ],
)
def test_other_json_is_refused(tmp_path: Path, content: Any, reason: str) -> None:
    (tmp_path / "zc.json").write_text(json.dumps(content))
    with pytest.raises(TableError, match=f"zc.json is not NASLib's JSON.*({reason})"):
        list(source("nb201_naslib").tables(tmp_path / "zc.json"))


# -- HELP --------------------------------------------------------------------------------------------------------


@pytest.fixture
def help_folder(tmp_path: Path, everything: Rows) -> Path:
    (tmp_path / "latency").mkdir()
    order = {arch: CELLS - 1 - i for i, arch in enumerate(SPACE.format(everything))}  # any order will do
    torch.save(order, tmp_path / "str_arch2idx.pt")
    torch.save([float(CELLS - i) for i in range(CELLS)], tmp_path / "latency" / "pixel3.pt")
    return tmp_path


def test_latencies_follow_the_order_of_their_file(help_folder: Path, everything: Rows) -> None:
    ((name, table),) = source("nb201_help").tables(help_folder)
    assert name == "help_latency"
    np.testing.assert_array_equal(
        table.lookup(ArchBatch(SPACE, everything), "pixel3_latency_ms"), np.arange(CELLS) + 1.0
    )
    facts = table.provenance["files"]
    assert set(facts) == {"str_arch2idx.pt", "pixel3.pt"}
    assert not facts["pixel3.pt"]["as_published"]


def test_an_order_that_is_not_over_all_cells_is_refused(help_folder: Path, everything: Rows) -> None:
    order = {arch: i for i, arch in enumerate(SPACE.format(everything[:100]))}
    torch.save(order, help_folder / "str_arch2idx.pt")
    with pytest.raises(TableError, match="str_arch2idx.pt must be a mapping of all 15,625 arch strings.*100 entries"):
        only(source("nb201_help").tables(help_folder))
    (help_folder / "str_arch2idx.pt").unlink()
    with pytest.raises(TableError, match="There is no file .*str_arch2idx.pt"):
        only(source("nb201_help").tables(help_folder))
    with pytest.raises(TableError, match="is no folder. Expected is the folder data/nasbench201"):
        only(source("nb201_help").tables(help_folder / "nowhere"))


# -- NATS-Bench --------------------------------------------------------------------------------------------------


def run_of(index: int, seed: int, epochs: int) -> dict[str, Any]:
    def at(split: str, value: float) -> dict[str, float]:
        return {f"{split}@{epoch}": value if epoch == epochs - 1 else 0.0 for epoch in range(epochs)}

    accuracy = index + seed / 1000
    return {
        "train_times": OrderedDict((epoch, 2.0) for epoch in range(epochs)),
        "eval_times": at("x-valid", 3.0),
        "eval_acc1es": at("x-valid", accuracy) | at("x-test", accuracy + 1) | at("ori-test", accuracy + 2),
        "params": np.float64(0.5),
        "flop": 50.0,
        "latency": [np.float64(0.016)],
    }


def cell(index: int) -> dict[str, Any]:
    arch = SPACE.format(SPACE.from_index([index]))[0]
    content = OrderedDict()
    for epochs, seeds in (("12", [111, 777]), ("200", [777, 888])):
        sets = ("cifar10-valid", "cifar10", "cifar100", "ImageNet16-120")
        runs = {(dataset, seed): run_of(index, seed, int(epochs)) for dataset in sets for seed in seeds}
        content[epochs] = {
            "arch_index": index, "arch_str": arch, "all_results": runs, "dataset_seed": dict.fromkeys(sets, seeds)
        }  # fmt: skip
    return content


def write_packed(path: Path, content: Any) -> None:
    path.write_bytes(bz2.compress(pickle.dumps(content)))


@pytest.fixture
def nats(tmp_path: Path, everything: Rows) -> Path:
    write_packed(tmp_path / "meta.pickle.pbz2", {"meta_archs": SPACE.format(everything), "total_archs": CELLS})
    for index in (11, 40):
        write_packed(tmp_path / f"{index:06d}.pickle.pbz2", cell(index))
    return tmp_path


def test_nats_runs_become_means_and_seeds(nats: Path) -> None:
    found = dict(source("nb201_nats", partial=True).tables(nats))
    assert list(found) == ["nats_cifar10", "nats_cifar100", "nats_imagenet16_120"]
    for name, offset in (("nats_cifar10", 2), ("nats_cifar100", 1), ("nats_imagenet16_120", 1)):
        table = found[name]
        archs = ArchBatch(SPACE, SPACE.from_index([40, 11]))
        np.testing.assert_allclose(table.lookup(archs, "valid_acc_12ep"), [40.444, 11.444])
        np.testing.assert_allclose(table.lookup(archs, "valid_acc_200ep_seed888"), [40.888, 11.888])
        np.testing.assert_allclose(table.lookup(archs, "test_acc_200ep"), np.array([40.8325, 11.8325]) + offset)
        assert table.lookup(archs, "train_time_200ep_s").tolist() == [400, 400]
        assert table.lookup(archs, "valid_time_s").tolist() == [3, 3]
        assert table.lookup(archs, "latency_batch256_ms").tolist() == [16, 16]
        columns = ("valid_acc_12ep", "train_time_12ep_s", "macs_m", "latency_batch256_ms")
        assert [table.columns[column].unit for column in columns] == ["%", "s", "1e6", "ms"]
        assert table.columns["params_m"].direction == "minimize"


def test_an_incomplete_folder_is_refused(nats: Path) -> None:
    with pytest.raises(TableError, match=r"must hold 15,625 files .* has 2; the first missing is 000000.*partial=true"):
        list(source("nb201_nats").tables(nats))


def test_damaged_and_swapped_cells_are_named(nats: Path) -> None:
    path = nats / "000040.pickle.pbz2"
    write_packed(path, cell(41))
    with pytest.raises(TableError, match="000040.pickle.pbz2 must hold NATS-Bench's runs of cell 40.*holds cell 41"):
        list(source("nb201_nats", partial=True).tables(nats))
    write_packed(path, {"12": cell(40)["12"]})
    with pytest.raises(TableError, match="000040.pickle.pbz2 is not NATS-Bench's runs of cell 40.*it lacks '200'"):
        list(source("nb201_nats", partial=True).tables(nats))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(TableError, match="000040.pickle.pbz2 is not NATS-Bench's runs of cell 40: it is truncated"):
        list(source("nb201_nats", partial=True).tables(nats))


def test_a_hostile_cell_runs_nothing(nats: Path, tmp_path: Path) -> None:
    write_packed(nats / "000040.pickle.pbz2", Hostile(tmp_path / "ran"))
    with pytest.raises(TableError, match="000040.pickle.pbz2 is a pickle that calls for .*system"):
        list(source("nb201_nats", partial=True).tables(nats))
    assert not (tmp_path / "ran").exists()


def test_a_list_of_other_cells_is_refused(nats: Path, everything: Rows) -> None:
    write_packed(nats / "meta.pickle.pbz2", {"meta_archs": SPACE.format(everything[::-1])})
    with pytest.raises(TableError, match="meta.pickle.pbz2 is not .* in official order"):
        list(source("nb201_nats", partial=True).tables(nats))


# -- HW-NAS-Bench ------------------------------------------------------------------------------------------------


def write_hw(path: Path, everything: Rows, **other: Any) -> Path:
    order = everything[::-1]
    part = {
        "config": [{"arch_str": arch, "C": 16} for arch in SPACE.format(order)],
        "fpga_latency": list(np.arange(CELLS) / 2),
        "fpga_energy": np.arange(CELLS) + 1.0,
        "eyeriss_arithmetic_intensity": [1.0] * CELLS,
        **other,
    }
    path.write_bytes(pickle.dumps({"nasbench201": {"cifar10": part, "ImageNet16-120": part}, "fbnet": {}}, 2))
    return path


def test_hw_nas_bench_costs_by_data_set(tmp_path: Path, everything: Rows) -> None:
    found = dict(source("nb201_hw_nas_bench").tables(write_hw(tmp_path / "hw.pickle", everything)))
    assert list(found) == ["hw_nas_bench_cifar10", "hw_nas_bench_imagenet16_120"]
    table = found["hw_nas_bench_cifar10"]
    archs = ArchBatch(SPACE, everything)
    np.testing.assert_array_equal(table.lookup(archs, "fpga_latency_ms"), np.arange(CELLS)[::-1] / 2)
    np.testing.assert_array_equal(table.lookup(archs, "fpga_energy_mj"), np.arange(CELLS)[::-1] + 1)
    assert (table.columns["fpga_energy_mj"].unit, table.columns["fpga_energy_mj"].direction) == ("mJ", "minimize")
    assert table.columns["eyeriss_arithmetic_intensity"].direction is None


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"fpga_latency": [1.0]}, "15,625 cells and figures .* fpga_latency_ms for 'cifar10'"),
        ({"fpga_size": [1.0] * CELLS}, "'fpga_size' is none of latency"),
        ({"config": [{"arch_str": "x"}]}, "six edges"),
    ],
)
def test_other_costs_are_refused(tmp_path: Path, everything: Rows, other: dict[str, Any], reason: str) -> None:
    path = write_hw(tmp_path / "hw.pickle", everything, **other)
    with pytest.raises(TableError, match=f"hw.pickle .*{reason}"):
        list(source("nb201_hw_nas_bench").tables(path))


# -- published files ---------------------------------------------------------------------------------------------


@pytest.mark.data
def test_published_accuracies(data_dir: Path, everything: Rows) -> None:
    _, table = only(source("nb201_accuracy").tables(data_dir / "nb201" / "cifar10_accuracy.csv.gz"))
    archs = ArchBatch(SPACE, everything)
    assert table.lookup(archs, "valid_acc_200ep").max() == 91.6067
    assert table.lookup(archs, "test_acc_200ep").max() == 94.3733
    assert table.provenance["licence"] == "MIT"


@pytest.mark.data
def test_nats_and_the_accuracies_derived_from_it_agree(data_dir: Path) -> None:
    archs = ArchBatch(SPACE, SPACE.from_index([11]))
    _, derived = only(source("nb201_accuracy").tables(data_dir / "nb201" / "cifar10_accuracy.csv.gz"))
    sample = data_dir / "samples" / "NATS-tss-v1_0-3ffb9-simple"
    nats = dict(source("nb201_nats", partial=True).tables(sample))["nats_cifar10"]
    for column in derived.columns:
        np.testing.assert_allclose(nats.lookup(archs, column), derived.lookup(archs, column), atol=5e-5)
    assert all(fact["as_published"] for fact in nats.provenance["files"].values())
    assert nats.lookup(archs, "train_time_200ep_s")[0] == pytest.approx(200 * 12.462056795756022)


@pytest.mark.data
def test_published_latencies(data_dir: Path) -> None:
    """Figures of the first cell from the README of HW-NAS-Bench, which HELP took over."""
    _, table = only(source("nb201_help").tables(data_dir / "help" / "nasbench201"))
    first = ArchBatch(SPACE, SPACE.from_index([0]))
    assert table.lookup(first, "raspi4_latency_ms")[0] == 10.481976820010459
    assert table.lookup(first, "eyeriss_latency_ms")[0] == 3.645620000000001
    assert table.lookup(first, "fpga_latency_ms")[0] == 2.57296
    assert len(table.columns) == 27
    assert all(fact["as_published"] for fact in table.provenance["files"].values())


@pytest.mark.data
def test_published_scores_cover_all_cells(data_dir: Path, everything: Rows) -> None:
    _, table = only(source("nb201_zero_cost").tables(data_dir / "nb201" / "cifar10_zero_cost.csv.gz"))
    assert len(table) == CELLS
    assert all(np.isfinite(table.column(name)).all() for name in table.columns)
    assert table.lookup(ArchBatch(SPACE, SPACE.from_index([0])), "synflow")[0] == 46.36094
    _, quantized = only(source("nb201_int8").tables(data_dir / "nb201" / "int8_accuracy.csv.gz"))
    assert np.isnan(quantized.column("int8_acc_seed888")).sum() == 34


def test_notations_are_over_the_same_operations() -> None:
    assert sorted(NASLIB_OPS) == sorted(OPS)
