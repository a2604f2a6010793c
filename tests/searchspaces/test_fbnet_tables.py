import csv
import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError, TableError
from searchspaces.fbnet import FBNet
from searchspaces.fbnet.tables import ARCHS, SCORES, read_archs
from tests.searchspaces.imports import only, source

SPACE = FBNet(scale="cifar")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "latency").mkdir()
    rows = np.unique(SPACE.sample(ARCHS + 10, np.random.default_rng(0)), axis=0)[:ARCHS]
    torch.save(rows.tolist(), tmp_path / "arch.pt")
    torch.save([float(i + 1) for i in range(ARCHS)], tmp_path / "latency" / "fpga.pt")
    with gzip.open(tmp_path / "scores.csv.gz", "wt", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["index", *SCORES])
        writer.writerows([index, *[index / 10] * len(SCORES)] for index in reversed(range(ARCHS)))
    return tmp_path


def test_latencies_belong_to_their_network(folder: Path) -> None:
    name, table = only(source("fbnet_help").tables(folder))
    assert name == "help_latency"
    archs = ArchBatch(SPACE, read_archs(folder / "arch.pt"))
    assert table.lookup(archs, "fpga_latency_ms").tolist() == [i + 1.0 for i in range(ARCHS)]
    assert set(table.provenance["files"]) == {"arch.pt", "fpga.pt"}


def test_scores_belong_to_their_network(folder: Path) -> None:
    name, table = only(source("fbnet_zero_cost", archs=str(folder / "arch.pt")).tables(folder / "scores.csv.gz"))
    assert name == "zero_cost"
    archs = ArchBatch(SPACE, read_archs(folder / "arch.pt"))
    np.testing.assert_allclose(table.lookup(archs, "synflow"), np.arange(ARCHS) / 10)
    assert [table.columns[name].direction for name in ("flops", "synflow")] == ["minimize", None]


def test_scores_need_the_numbering(folder: Path) -> None:
    with pytest.raises(ConfigError, match="give source.archs="):
        only(source("fbnet_zero_cost").tables(folder / "scores.csv.gz"))


def test_an_index_that_stands_twice_is_refused(folder: Path) -> None:
    path = folder / "scores.csv.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()).replace(b"\n17,", b"\n18,")))
    with pytest.raises(TableError, match="scores.csv.gz must have each index from 0 to 4999 once"):
        only(source("fbnet_zero_cost", archs=str(folder / "arch.pt")).tables(path))


@pytest.mark.parametrize(
    ("content", "reason"),
    [([[0] * 22], "but has 1"), ([[9] * 22] * ARCHS, "choices 0 to 8"), ([[0] * 21] * ARCHS, "22"), ("x", "invalid")],
)
def test_other_architectures_are_refused(folder: Path, content: Any, reason: str) -> None:
    torch.save(content, folder / "arch.pt")
    with pytest.raises(TableError, match=f"arch.pt .*a list of 5,000 architectures of 22 operations.*{reason}"):
        only(source("fbnet_help").tables(folder))


def test_truncated_files_are_told(folder: Path) -> None:
    path = folder / "latency" / "fpga.pt"
    path.write_bytes(path.read_bytes()[: -path.stat().st_size // 2])
    with pytest.raises(TableError, match="fpga.pt is not a list of 5,000 latencies in ms.*truncated"):
        only(source("fbnet_help").tables(folder))
    with pytest.raises(TableError, match="is no folder. Expected is the folder data/fbnet"):
        only(source("fbnet_help").tables(folder / "nowhere"))


@pytest.mark.data
def test_published_files(data_dir: Path) -> None:
    _, latency = only(source("fbnet_help").tables(data_dir / "help" / "fbnet"))
    assert (len(latency), len(latency.columns)) == (5_000, 27)
    assert all(fact["as_published"] for fact in latency.provenance["files"].values())
    archs = str(data_dir / "help" / "fbnet" / "arch.pt")
    _, scores = only(source("fbnet_zero_cost", archs=archs).tables(data_dir / "fbnet" / "zero_cost.csv.gz"))
    assert scores.lookup(latency.archs[:1], "params").tolist() == [1_790_500]
