"""The suite of latency predictors, on a small table of made-up devices."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nasflow.config import composed, instantiate, plain
from nasflow.suites import Cell, Comparison, DeviceTask, LatencyFewShot, latency_few_shot
from nasflow.suites.base import UnavailableError
from predictors.base import Prediction, Predictor, SourceSamples
from predictors.choosers import Random, Strata
from predictors.encodings import Concatenation, LayerCosts, OneHot, OpCounts, ZeroCost
from predictors.latency.help import HELP
from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError
from searchspaces.fbnet import FBNet
from searchspaces.nb201 import NB201
from searchspaces.table import Column, Table
from searchspaces.unreduced import Unreduced
from tests.searchspaces.imports import only, source

METHODS = {
    "gp": {"overrides": ["predictor=latency_gp"], "encoding": "all", "transfer": True},
    "gp_alone": {"overrides": ["predictor=latency_gp"], "encoding": "all"},
    "copy": {"overrides": ["predictor=latency_copy"], "encoding": "all", "transfer": True},
    "macs": {"overrides": ["predictor=latency_macs", "~predictor.encoding"], "encoding": "costs", "chooser": "macs"},
    "many": {"overrides": ["predictor=latency_gp"], "encoding": "all", "samples": [60], "seeds": 1},
    "other": {"overrides": ["predictor=latency_gp"], "encoding": "absent"},
}
SPACE = NB201("small")
DEVICES = {"cpu": [0.1, 0.1, 1, 4, 0.6], "gpu": [0.1, 0.2, 1, 1.1, 1.4], "both": [0.1, 0.15, 1, 2.2, 1.1]}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    archs = ArchBatch(SPACE, SPACE.from_index(np.random.default_rng(5).permutation(15625)[:400]))
    rng = np.random.default_rng(6)
    figures = {
        f"{name}_latency_ms": (0.5 + np.array(per_op)[archs.rows].sum(axis=1)) * np.exp(0.02 * rng.normal(size=400))
        for name, per_op in DEVICES.items()
    }
    figures["both_latency_ms"][:20] = np.nan
    path = tmp_path_factory.mktemp("tables") / "latency.parquet"
    Table(archs, figures, [Column(name, unit="ms") for name in figures]).save(path)
    return str(path)


def device_task(path: str, **changed) -> DeviceTask:
    costs = LayerCosts()
    encodings = {"all": Concatenation([costs, OneHot(), OpCounts()]), "costs": costs}
    arguments = {
        "sources": ["cpu", "gpu"],
        "targets": ["both", "gpu"],
        "encodings": encodings,
        "choosers": {"random": Random(), "macs": Strata(costs, "log macs")},
        "source_samples": 150,
        "unreduced": True,
        "published": [{"method": "other", "samples": 20, "spearman": 0.5, "source": "a paper"}],
    }
    return DeviceTask(SPACE, path, **{**arguments, **changed})


@pytest.fixture(scope="module")
def suite(path: str) -> LatencyFewShot:
    tasks = {"T": device_task(path), "absent": device_task(path + ".no")}
    return LatencyFewShot(tasks, METHODS, samples=[8, 20], seeds=3)


def test_it_is_a_suite_of_the_tables_that_are_there(suite: LatencyFewShot) -> None:
    assert isinstance(suite, Comparison)
    assert suite.tasks == ("T",)
    assert suite.samples == (8, 20, 60)
    (row,) = suite.published
    assert (row.task, row.method, row.metric, row.mean, row.source) == ("T", "other", "spearman", 0.5, "a paper")


def test_only_what_was_measured_on_all_devices_counts(suite: LatencyFewShot) -> None:
    task = suite._devices["T"]
    assert len(task.archs) == 380
    assert isinstance(task.archs.space, Unreduced)
    assert np.isfinite(task.figures("both")).all()


def test_other_devices_and_more_samples_help(suite: LatencyFewShot) -> None:
    found = {
        (method, n): np.mean([suite.run(Cell("T", method, n, seed))["spearman"] for seed in range(3)])
        for method in ("gp", "gp_alone", "copy", "macs")
        for n in (8, 20)
    }
    assert found["gp", 8] > found["gp_alone", 8] + 0.02
    assert found["gp_alone", 20] > found["gp_alone", 8]
    assert found["gp", 20] > 0.95
    assert found["gp", 20] > found["copy", 20]
    assert found["gp", 20] > found["macs", 20] > 0.2


def test_cells_repeat_themselves_whatever_ran_before(suite: LatencyFewShot, path: str) -> None:
    cell = Cell("T", "gp", 20, 1)
    suite.run(Cell("T", "gp", 8, 0))
    warm = suite.run(cell)
    cold = LatencyFewShot({"T": device_task(path)}, METHODS, samples=[20]).run(cell)
    assert {k: v for k, v in warm.items() if not k.endswith("_s")} == {
        k: v for k, v in cold.items() if not k.endswith("_s")
    }
    assert warm["spearman"] > warm["kendall_tau"] > 0.5
    assert 0.5 < warm["within_90"] <= 1
    assert warm["adapt_s"] > 0
    assert warm["score_1000_s"] > 0
    assert suite.run(Cell("T", "gp", 20, 2))["spearman"] != warm["spearman"]


def test_what_makes_no_sense_is_passed_over(suite: LatencyFewShot) -> None:
    assert suite.run(Cell("T", "other", 20, 0)) == {}, "the task has no such encoding"
    assert suite.run(Cell("T", "gp", 60, 0)) == {}, "that number is of another method alone"
    assert suite.run(Cell("T", "many", 20, 0)) == {}
    assert suite.run(Cell("T", "many", 60, 1)) == {}, "it runs under one seed"
    assert suite.run(Cell("T", "many", 60, 0))["spearman"] > 0.97


class Spy(Predictor):
    """Notes what it was shown."""

    seen: list[tuple[set[bytes], set[bytes], set[bytes]]]

    def __init__(self) -> None:
        self.seen = []

    def _fit(self, archs, y, sources):
        self.samples = set(archs.keys())
        self.others = {key for source in sources for key in source.archs.keys()}  # noqa: SIM118 (a method)

    def _predict(self, archs):
        self.seen.append((self.samples, self.others, set(archs.keys())))
        return Prediction(np.arange(1.0, len(archs) + 1), np.ones(len(archs)))

    _state = _restore = None


@pytest.mark.parametrize(("more", "measured", "left"), [({}, 150, 210), ({"source_samples": 200}, 200, 160)])
def test_samples_sources_and_tests_are_apart(
    path: str, more: dict[str, int], measured: int, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite, spy = LatencyFewShot({"T": device_task(path)}, {"gp": METHODS["gp"] | more}, samples=[20]), Spy()
    monkeypatch.setattr(suite._kept, "predictor", lambda *_: spy)
    suite.run(Cell("T", "gp", 20, 0))
    assert len(spy.seen) == 2, "one for each target device"
    for samples, others, tested in spy.seen:
        assert (len(samples), len(others), len(tested)) == (20, measured, left)
        assert not samples & others
        assert not tested & (samples | others)


def test_references_are_among_the_samples(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[ArchBatch, ArchBatch, Sequence[SourceSamples]]] = []

    def held_out(_: Predictor, archs: ArchBatch, y: Any, test: ArchBatch, truth: Any, sources: Any) -> dict[str, float]:
        seen.append((archs, test, sources))
        return dict.fromkeys(("spearman", "kendall_tau", "within_90", "fit_s", "score_1000_s"), 0.0)

    monkeypatch.setattr(latency_few_shot, "held_out", held_out)
    method = {"overrides": ["predictor=latency_help"], "encoding": "all", "transfer": True, "references": True}
    methods = {"help": method, "gp": METHODS["gp"] | {"references": True}}
    suite = LatencyFewShot({"T": device_task(path)}, methods, samples=[5, 10, 12])
    for samples, more in ((10, 0), (12, 2)):
        seen.clear()
        assert suite.run(Cell("T", "help", samples, 0))
        (archs, test, sources), _ = seen
        known, unknown = set(sources[0].archs.keys()), set(test.keys())
        assert [key in known for key in archs.keys()] == [True] * 10 + [False] * more  # noqa: SIM118 (a method)
        assert not unknown & (known | set(archs.keys()))
        assert len(test) == 230 - more
    assert suite.run(Cell("T", "help", 5, 0)) == {}, "they are more than that"
    with pytest.raises(ConfigError, match="gp asks for references, which only latency_help has"):
        suite.run(Cell("T", "gp", 12, 0))


def test_published_references_are_measured_everywhere(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[ArchBatch, Sequence[SourceSamples], HELP]] = []

    def held_out(predictor: HELP, archs: ArchBatch, y: Any, test: ArchBatch, *more: Any) -> dict[str, float]:
        seen.append((archs, more[1], predictor))
        return dict.fromkeys(("spearman", "kendall_tau", "within_90", "fit_s", "score_1000_s"), 0.0)

    monkeypatch.setattr(latency_few_shot, "held_out", held_out)
    method = {"overrides": ["predictor=latency_help"], "encoding": "all", "transfer": True, "references": True}
    task = device_task(path, references=[30, 399, 20])
    suite = LatencyFewShot({"T": task}, {"help": method}, samples=[5])
    wanted = task.lookup.table.archs[[30, 399, 20]]
    settings = suite.cell_settings(Cell("T", "help", 5, 0))
    assert settings["references"] == [30, 399, 20]
    for seed in range(2):
        seen.clear()
        assert suite.run(Cell("T", "help", 5, seed))
        (archs, sources, predictor), _ = seen
        assert np.array_equal(archs.rows[:3], wanted.rows)
        assert all(np.array_equal(source.archs.rows[:3], wanted.rows) for source in sources)
        assert np.array_equal(predictor.references_of(sources).rows, wanted.rows)
        assert [(len(archs), len(source.archs)) for source in sources] == [(5, 150)] * 2
    with pytest.raises(ConfigError, match=r"No architectures \[3, 400\] of .* were measured on all devices"):
        _ = device_task(path, references=[30, 3, 400]).anchors


def test_a_method_whose_scores_are_not_there_is_left_out(path: str, tmp_path: Path) -> None:
    encodings = {"scores": ZeroCost(tmp_path / "no.parquet")}
    methods = {"a": {"overrides": ["predictor=latency_gp"], "encoding": "scores"}}
    suite = LatencyFewShot({"T": device_task(path, encodings=encodings)}, methods)
    with pytest.raises(UnavailableError, match="Method 'a' reads a table that is not there"):
        suite.cell_settings(Cell("T", "a", 20, 0))


def test_sources_may_be_devices_of_another_space(path: str, tmp_path: Path) -> None:
    """Chains of blocks of which few were measured, and cells that take time for the same reason."""
    space = FBNet("small")
    archs = ArchBatch.sample(space, 200, np.random.default_rng(1)).unique()
    figures = np.exp(LayerCosts().encode(archs)[:, 0])
    chains = tmp_path / "chains.parquet"
    Table(archs, {"phone_latency_ms": figures}, [Column("phone_latency_ms", unit="ms")]).save(chains)
    given = {"sources": [], "targets": ["phone"], "encodings": {"costs": LayerCosts()}, "unreduced": False}
    task = replace(device_task(path, **given), space=space, table=str(chains), elsewhere=device_task(path))
    assert [(s.name, len(s.archs), s.archs.space.name) for s in task.learned_from(0)] == [
        ("cpu", 150, "nb201_unreduced"), ("gpu", 150, "nb201_unreduced")
    ]
    assert task.settings != replace(task, elsewhere=device_task(path, source_samples=100)).settings
    assert replace(task, elsewhere=device_task("absent")).missing == ["absent"]
    quick = ["predictor=latency_multi_predict", "predictor.epochs=20", "predictor.repeats=1", "predictor.folds=0"]
    methods = {
        "learned": {"overrides": quick, "encoding": "costs", "transfer": True},
        "gp": {"overrides": ["predictor=latency_gp"], "encoding": "all", "transfer": True},
    }
    suite = LatencyFewShot({"far": task}, methods, samples=[10])
    assert suite.run(Cell("far", "learned", 10, 0))["spearman"] > 0.8
    assert suite.run(Cell("far", "gp", 10, 0)) == {}, "its encoding is of one space"


def test_settings_tell_what_decides_a_cell(suite: LatencyFewShot, path: str) -> None:
    cell = Cell("T", "gp", 20, 0)
    told = suite.cell_settings(cell)
    assert told == suite.cell_settings(Cell("T", "gp", 8, 2))
    assert told != suite.cell_settings(Cell("T", "gp_alone", 20, 0))
    of_more = LatencyFewShot({"T": device_task(path)}, {"gp": METHODS["gp"] | {"source_samples": 100}})
    assert told != of_more.cell_settings(cell)
    another = {"random": Strata(LayerCosts(), "log params")}
    for changed in (
        {"targets": ["both"]},
        {"source_samples": 100},
        {"encodings": {"all": OneHot()}},
        {"choosers": another},
    ):
        other = LatencyFewShot({"T": device_task(path, **changed)}, METHODS)
        assert other.cell_settings(cell) != told


def test_devices_are_chosen_where_only_their_numbers_are_given(path: str) -> None:
    sources, targets = device_task(path, sources=None, targets=1).devices
    assert sorted([*sources, *targets]) == sorted(DEVICES)
    assert targets != ["both"], "which is like either source"
    assert [len(part) for part in device_task(path, sources=1, targets=1).devices] == [1, 1]
    task = device_task(path, sources=2, targets=None)
    assert task.settings["targets"] == targets
    assert LatencyFewShot({"T": task}, METHODS).run(Cell("T", "gp", 20, 0))["spearman"] > 0.9
    with pytest.raises(ConfigError, match="Name both the sources and the targets"):
        device_task(path, sources=2).devices  # noqa: B018 (a property)


def test_mistakes_are_told(path: str) -> None:
    with pytest.raises(ConfigError, match="None of the suite's tables is there"):
        LatencyFewShot({"T": device_task(path + ".no")}, METHODS)
    with pytest.raises(ConfigError, match="T has 380 architectures, too few for 370 of the sources"):
        LatencyFewShot({"T": device_task(path, source_samples=370)}, METHODS).run(Cell("T", "gp", 20, 0))
    with pytest.raises(ConfigError, match="chooser 'macs'"):
        task = device_task(path, choosers={"random": Random()})
        LatencyFewShot({"T": task}, METHODS).run(Cell("T", "macs", 20, 0))


@pytest.mark.data
def test_figures_on_published_tables(data_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One seed of a task of FBNet and 20 samples, on part of the table and with room for chance."""
    _, table = only(source("fbnet_help").tables(data_dir / "help" / "fbnet"))
    part = {name: table.column(name)[:1500] for name in table.columns}
    (tmp_path / "fbnet").mkdir()
    Table(table.archs[:1500], part, list(table.columns.values())).save(tmp_path / "fbnet" / "help_latency.parquet")
    monkeypatch.setenv("NASFLOW_DATA", str(tmp_path))
    config = plain(composed("bench", ["suite=latency_few_shot"]).suite)
    config["tasks"] = {"F2": config["tasks"]["F2"]}
    suite = instantiate(config)
    found = {method: suite.run(Cell("F2", method, 20, 100)) for method in ("gp", "copy")}
    assert found["gp"]["spearman"] > 0.93
    assert found["copy"]["spearman"] < 0.7, "the source devices are of another kind"
    assert 0.7 < found["gp"]["within_90"] < 1
