"""The suite that correlates proxies with known results."""

import logging
from pathlib import Path

import numpy as np
import pytest

from nasflow.suites import Cell, ProxyCorrelation, Ranked, Suite
from nasflow.tasks import Digits
from proxies import score
from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError
from searchspaces.jsonlines import JsonLines
from searchspaces.nb201 import NB201
from searchspaces.table import Column, Table

SPACE = NB201(scale="small")


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A table of 30 cells: their true size, and one cell whose figure is not known."""
    archs = ArchBatch(SPACE, SPACE.from_index(np.arange(30)))
    size = score(archs, Digits(), ["params"])["params"]
    size[4] = np.nan
    Table(archs, {"size": size}, [Column("size")]).save(tmp_path / "t.parquet")
    return str(tmp_path / "t.parquet")


def suite(path: str, folder: Path, n: int = 12) -> ProxyCorrelation:
    published = {"source": "a paper", "spearman": {"synflow": 0.7}}
    tasks = {"cells": Ranked(SPACE, Digits(), path, "size", published), "gone": Ranked(SPACE, Digits(), "no", "size")}
    return ProxyCorrelation(tasks, str(folder), (n,), seeds=2, batch_size=8)


def test_correlations_are_those_of_scores_and_figures(path: str, tmp_path: Path, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        made = suite(path, tmp_path)
    assert isinstance(made, Suite)
    assert "gone is left out" in caplog.text
    assert made.tasks == ("cells",)
    found = {method: made.run(Cell("cells", method, 12, 0)) for method in made.methods}
    assert found["params"]["spearman"] == pytest.approx(1)
    assert found["params"]["networks"] == 12
    assert all(-1 <= entry["kendall_tau_low"] <= entry["kendall_tau"] <= 1 for entry in found.values())
    assert found["synflow"]["spearman"] > 0
    (row,) = made.published
    assert (row.method, row.mean, row.source) == ("synflow", 0.7, "a paper")


def test_networks_are_scored_once_for_all_proxies_and_starts(path: str, tmp_path: Path) -> None:
    first = suite(path, tmp_path)
    first.run(Cell("cells", "snip", 12, 1))
    first.run(Cell("cells", "vote", 12, 1))
    log = JsonLines(tmp_path / "cells_seed1.jsonl")
    assert len(log.read()) == 13
    second = suite(path, tmp_path)
    assert second.run(Cell("cells", "vote", 12, 1)) == first.run(Cell("cells", "vote", 12, 1))
    assert len(log.read()) == 13


def test_mistakes_are_told(path: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="knows 29 networks, but samples has 30"):
        suite(path, tmp_path, 30).run(Cell("cells", "params", 30, 0))
    with pytest.raises(ConfigError, match="None of the suite's tables is there"):
        ProxyCorrelation({"gone": Ranked(SPACE, Digits(), "no", "size")}, str(tmp_path))
