"""The shipped table: all classes of cells, trained on digits."""

from pathlib import Path

import numpy as np
import pytest

import searchspaces.nb201
from nasflow.flow import search
from nasflow.statistics import reliability, spearman
from searchspaces.nb201 import NB201
from searchspaces.table import Table

PATH = Path(searchspaces.nb201.__file__).with_name("digits.parquet")


@pytest.fixture(scope="module")
def table() -> Table:
    return Table.load(PATH, NB201("small"))


def test_every_class_is_there_once_with_all_figures(table: Table) -> None:
    assert table.by_class
    assert len(table) == len(set(table.archs.keys())) == 4930
    every = NB201("small")
    assert (table.positions(type(table.archs)(every, every.from_index(np.arange(15625)))) >= 0).all()
    assert not any(np.isnan(table.column(name)).any() for name in table.columns)
    assert PATH.stat().st_size < 2e6
    assert {"command", "config", "environment", "reliability", "joined"} <= set(table.provenance)


@pytest.mark.parametrize("name", ["accuracy", "test_accuracy"])
def test_the_mean_of_the_seeds_is_reliable(table: Table, name: str) -> None:
    seeds = np.stack([table.column(f"{name}.seed{i}") for i in range(3)], axis=1)
    np.testing.assert_allclose(table.column(name), seeds.mean(axis=1))
    found = reliability(seeds)
    assert found == pytest.approx(table.provenance["reliability"][name])
    assert found > 0.85


def test_figures_make_sense(table: Table) -> None:
    assert spearman(table.column("accuracy"), table.column("test_accuracy")).value > 0.9
    assert spearman(table.column("accuracy"), -table.column("loss")).value > 0.9
    assert 0.3 < spearman(table.column("accuracy"), table.column("params_m")).value < 0.9
    assert (table.column("latency_ms") > 5 * np.median(table.column("latency_std_ms"))).all()


def test_a_search_in_it_needs_no_data(tmp_path: Path) -> None:
    run, models = search("evaluator=table", "objective=accuracy_latency", "budget=60", folder=tmp_path)
    assert len(run.study.log()) == 60
    assert models
    assert {"accuracy", "latency_ms", "params_m"} <= set(models[0].metrics)
    assert "accuracy.seed0" not in models[0].metrics
