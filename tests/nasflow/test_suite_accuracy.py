"""The suites of accuracy predictors, on small tables."""

from pathlib import Path

import numpy as np
import pytest

from nasflow.suites import AccuracyFewShot, Cell, Learnable, Suite
from nasflow.suites.few_shot import held_out
from nasflow.testing.predictors import target
from predictors.accuracy.gaussian import GaussianProcessPredictor
from predictors.base import Prediction, Predictor
from predictors.encodings import OneHot, OpPairs, Topology, ZeroCost
from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError
from searchspaces.nb101 import NB101
from searchspaces.nb201 import NB201
from searchspaces.table import Column, Table
from tests.searchspaces.imports import only, source

METHODS = {
    "ridge": {"overrides": ["predictor=ridge"], "encoding": "onehot"},
    "gp": {"overrides": ["predictor=gp"], "encoding": "onehot"},
    "gp_transfer": {"overrides": ["predictor=gp"], "encoding": "onehot", "transfer": True},
    "gp_scores": {"overrides": ["predictor=gp"], "encoding": "scores", "seeds": 1},
}


def tabled(space, path: Path, n: int = 400) -> str:
    archs = ArchBatch.sample(space, n, np.random.default_rng(1))
    archs = ArchBatch(space, np.unique(archs.rows, axis=0))
    noise = np.random.default_rng(2).normal(size=len(archs)) * 0.05
    figures = target(archs) + noise
    figures[::10] = np.nan
    Table(archs, {"accuracy": figures}, [Column("accuracy", direction="maximize")]).save(path)
    return str(path)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Learnable]:
    folder = tmp_path_factory.mktemp("tables")
    path = tabled(NB201(), folder / "a.parquet")
    small = Learnable(NB201("small"), tabled(NB201("small"), folder / "b.parquet"), "accuracy", [], {})
    cells = Learnable(NB101(), tabled(NB101(), folder / "c.parquet"), "accuracy", [], {})
    encodings = {"onehot": OneHot()}
    published = [{"method": "other", "samples": 30, "kendall_tau": 0.5, "source": "a paper"}]
    return {
        "alone": Learnable(NB201(), path, "accuracy", [10, 30], encodings, published=published),
        "scaled": Learnable(NB201(), path, "accuracy", [10], encodings, source=small, source_samples=100),
        "foreign": Learnable(NB201(), path, "accuracy", [10], encodings, source=cells, source_samples=100),
        "absent": Learnable(NB201(), str(folder / "absent.parquet"), "accuracy", [10], encodings),
    }


@pytest.fixture(scope="module")
def suite(tasks: dict[str, Learnable]) -> AccuracyFewShot:
    return AccuracyFewShot(tasks, METHODS, seeds=3, test=100)


def test_it_is_a_suite_of_the_tables_that_are_there(suite: AccuracyFewShot) -> None:
    assert isinstance(suite, Suite)
    assert suite.tasks == ("alone", "scaled", "foreign")
    assert suite.samples == (10, 30)
    (row,) = suite.published
    assert (row.method, row.samples, row.metric, row.mean, row.source) == ("other", 30, "kendall_tau", 0.5, "a paper")


def test_more_samples_rank_better_and_seeds_differ(suite: AccuracyFewShot) -> None:
    found = {(n, seed): suite.run(Cell("alone", "gp", n, seed)) for n in (10, 30) for seed in range(3)}
    few, more = (np.mean([found[n, seed]["kendall_tau"] for seed in range(3)]) for n in (10, 30))
    assert 0.1 < few < more < 1
    assert found[10, 0] != found[10, 1]
    assert suite.run(Cell("alone", "gp", 10, 0))["kendall_tau"] == found[10, 0]["kendall_tau"]
    for figures in found.values():
        assert figures["spearman"] > figures["kendall_tau"]
        assert 0.3 < figures["within_90"] <= 1
        assert figures["fit_s"] > 0


def test_what_makes_no_sense_is_passed_over(suite: AccuracyFewShot) -> None:
    assert suite.run(Cell("alone", "gp_scores", 10, 0)) == {}, "the task has no such encoding"
    assert suite.run(Cell("scaled", "gp", 30, 0)) == {}, "the task has not that number of samples"
    assert suite.run(Cell("alone", "gp_transfer", 10, 0)) == {}, "the task has no source"
    assert suite.run(Cell("foreign", "gp_transfer", 10, 0)) == {}, "it cannot learn from another space"


def test_a_source_of_the_same_cells_helps(suite: AccuracyFewShot) -> None:
    alone, helped = (
        np.mean([suite.run(Cell("scaled", name, 10, seed))["kendall_tau"] for seed in range(3)])
        for name in ("gp", "gp_transfer")
    )
    assert helped > alone + 0.1


def test_settings_tell_what_decides_a_cell(suite: AccuracyFewShot, tasks: dict[str, Learnable]) -> None:
    cells = [Cell(t, m, 10, 0) for t, m in (("alone", "gp"), ("scaled", "gp"), ("alone", "ridge"))]
    told = [suite.cell_settings(cell) for cell in cells]
    assert len({str(entry) for entry in told}) == 3
    other = {"alone": Learnable(NB201(), tasks["alone"].table, "accuracy", [10], {"onehot": OneHot() + Topology()})}
    assert AccuracyFewShot(other, METHODS).cell_settings(cells[0]) != told[0], "another encoding under that name"


def test_training_and_test_architectures_are_apart() -> None:
    class Spy(Predictor):
        def _fit(self, archs, y, sources):
            self.seen = set(archs.keys())

        def _predict(self, archs):
            known = np.array([key in self.seen for key in archs.keys()])  # noqa: SIM118
            return Prediction(np.where(known, target(archs), 0) + np.arange(len(archs)) * 1e-9, np.ones(len(archs)))

        _state = _restore = None

    space = NB201()
    archs = ArchBatch(space, space.from_index(np.arange(4000)))
    found = held_out(Spy(), archs[:2000], target(archs)[:2000], archs[2000:], target(archs)[2000:])
    assert found["kendall_tau"] > 0.1, "cells of one class are found again"
    assert abs(found["kendall_tau_unseen"]) < 0.06, "and told apart from those that are new"


def test_mistakes_are_told(tasks: dict[str, Learnable]) -> None:
    with pytest.raises(ConfigError, match="None of the suite's tables is there"):
        AccuracyFewShot({"absent": tasks["absent"]}, METHODS)
    with pytest.raises(ConfigError, match="Half of t has"):
        task = Learnable(NB201(), tasks["alone"].table, "accuracy", [300], {"onehot": OneHot()})
        AccuracyFewShot({"t": task}, METHODS).run(Cell("t", "gp", 300, 0))


@pytest.mark.data
def test_figures_on_published_tables(data_dir: Path) -> None:
    """Two seeds of what the suite measures under ten, with room for chance."""
    _, accuracy = only(source("nb201_accuracy").tables(data_dir / "nb201" / "cifar10_accuracy.csv.gz"))
    _, scores = only(source("nb201_zero_cost").tables(data_dir / "nb201" / "cifar10_zero_cost.csv.gz"))
    figures = accuracy.column("valid_acc_200ep")
    encoding = OneHot() + Topology() + OpPairs() + ZeroCost(scores)
    for n, least in ((8, 0.55), (78, 0.78)):
        taus = []
        for seed in range(2):
            order = np.random.default_rng(seed).permutation(len(figures))
            train, test = order[:n], order[7813:10000]
            predictor = GaussianProcessPredictor(encoding, seed=seed)
            found = held_out(predictor, accuracy.archs[train], figures[train], accuracy.archs[test], figures[test])
            taus.append(found["kendall_tau"])
        assert np.mean(taus) > least
