from pathlib import Path
from typing import Any

import numpy as np
import pytest

from devices import Device
from nasflow.config import composed
from nasflow.evaluators import Context, Costs, Evaluator, Measure, Proxies, TableLookup, Train
from nasflow.flow import Search, search
from nasflow.models import load_weights_file, save_weights, weights_path
from nasflow.tasks import Digits
from nasflow.training import Trainer
from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError, TableError
from searchspaces.nb201 import NB201
from searchspaces.network import to_torch
from searchspaces.table import Column, Table
from searchspaces.task import Task
from tests.nasflow.test_cli import nasflow

SPACE = NB201(scale="small")
TASK = Digits()
ARCHS = ArchBatch(SPACE, SPACE.from_index([11, 4242]))


def test_costs_are_those_of_the_networks() -> None:
    evaluation = Costs(SPACE, TASK).evaluate(ARCHS, Context(seeds=[0, 0]))
    networks = [SPACE.network(row, TASK) for row in ARCHS.rows]
    np.testing.assert_allclose(evaluation.columns["params_m"], [network.params / 1e6 for network in networks])
    np.testing.assert_allclose(evaluation.columns["macs_m"], [network.macs / 1e6 for network in networks])
    assert set(evaluation.columns) == set(Costs.provides)


def test_training_repeats_with_the_seed_and_keeps_its_weights(tmp_path: Path) -> None:
    train = Train(SPACE, TASK, Trainer(epochs=2))
    context = Context(seeds=[3, 4], slots=[0, 1], folder=tmp_path, fidelity=1)
    first, second = train.evaluate(ARCHS, context), train.evaluate(ARCHS, context)
    np.testing.assert_array_equal(first.columns["accuracy"], second.columns["accuracy"])
    assert [entry["epochs"] for entry in first.provenance] == [1, 1]
    assert 0.1 < first.columns["accuracy"].max() <= 1
    to_torch(SPACE.network(ARCHS.rows[1], TASK), load_weights_file(weights_path(tmp_path, 1, ARCHS.rows[1])))


def test_latency_is_measured_and_comparable_across_evaluators(tmp_path: Path) -> None:
    device = Device(rounds=4, runs_per_round=3, restarts=1)
    measure = Measure(SPACE, TASK, device, anchors=1)
    context = Context(seeds=[1, 2], folder=tmp_path, front=ARCHS[:1])
    evaluation = measure.evaluate(ARCHS, context)
    assert (evaluation.columns["latency_ms"] > 0).all()
    assert evaluation.provenance[0]["operators"]
    assert list((tmp_path / "anchors").iterdir())
    again = Measure(SPACE, TASK, Device(rounds=4, runs_per_round=3, restarts=1)).evaluate(ARCHS, context)
    ratio = again.columns["latency_ms"] / evaluation.columns["latency_ms"]
    assert ((ratio > 0.5) & (ratio < 2)).all()


def test_a_latency_carries_its_unit() -> None:
    with pytest.raises(ConfigError, match="does not end in '_ms'"):
        Measure(SPACE, TASK, Device(), metric="latency")


def test_a_task_without_images_cannot_be_trained_on() -> None:
    with pytest.raises(ConfigError, match="no images"):
        Train(SPACE, Task("bare", (1, 8, 8), 10), Trainer())


def test_table_gives_its_columns_under_the_asked_names(tmp_path: Path) -> None:
    Table(ARCHS, {"valid": [0.5, 0.75]}, [Column("valid")]).save(tmp_path / "t.parquet")
    lookup = TableLookup(SPACE, str(tmp_path / "t.parquet"), {"accuracy": "valid"})
    assert lookup.evaluate(ARCHS[::-1], Context(seeds=[0, 0])).columns["accuracy"].tolist() == [0.75, 0.5]
    with pytest.raises(TableError, match="valid"):
        TableLookup(SPACE, str(tmp_path / "t.parquet"), {"accuracy": "test"})


# -- tables ---------------------------------------------------------------------------------------------------------

EPOCHS = {"val4": [0.3, 0.4], "val108": [0.9, 0.8], "time4": [20.0, 30.0], "time108": [540.0, 810.0]}
VALS, TIMES = {4: "val4", 108: "val108"}, {4: "time4", 108: "time108"}


@pytest.fixture
def by_epoch(tmp_path: Path) -> str:
    columns = [Column(name, "s" if "time" in name else "share") for name in EPOCHS]
    Table(ARCHS, EPOCHS, columns).save(tmp_path / "epochs.parquet")
    return str(tmp_path / "epochs.parquet")


@pytest.mark.parametrize(
    ("fidelity", "accuracy", "seconds"), [(None, [0.9, 0.8], [540, 810]), (108, [0.9, 0.8], [540, 810]),
                                          (4.0, [0.3, 0.4], [20, 30])]
)
def test_tables_have_figures_and_costs_by_fidelity(
    by_epoch: str, fidelity: float | None, accuracy: list[float], seconds: list[float]
) -> None:
    lookup = TableLookup(SPACE, by_epoch, {"accuracy": VALS, "final": "val108"}, seconds=TIMES)
    found = lookup.evaluate(ARCHS, Context(seeds=[0, 0], fidelity=fidelity))
    assert found.columns["accuracy"].tolist() == accuracy
    assert found.columns["final"].tolist() == EPOCHS["val108"]
    assert found.provenance == [{"seconds": second} for second in seconds]
    with pytest.raises(ConfigError, match="Fidelity 12 .* fidelities 4, 108"):
        lookup.evaluate(ARCHS, Context(seeds=[0, 0], fidelity=12))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"columns": ["val4"]}, "map metrics to columns"),
        ({"columns": {"accuracy": ["val4"]}}, "is neither"),
        ({"columns": {"accuracy": {"early": "val4"}}}, "is neither"),
        ({"columns": {"accuracy": {4: 5}}}, "is neither"),
        ({"columns": {"accuracy": {}}}, "is neither"),
        ({"seconds": "val4"}, "'val4' is in share"),
    ],
)
def test_malformed_columns_are_explained(by_epoch: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TableLookup(SPACE, by_epoch, **arguments)


def test_a_missing_figure_names_the_way_out(by_epoch: str) -> None:
    archs = ArchBatch(SPACE, SPACE.from_index([11, 12]))
    with pytest.raises(TableError, match=r"evaluator\.table\.pool=true"):
        TableLookup(SPACE, by_epoch).evaluate(archs, Context(seeds=[0, 0]))


def partial_table(path: Path, n: int = 60, best: float = 0.99, **columns: Any) -> Table:
    """Accuracies of `n` scattered cells, and one cell more whose accuracy is not known."""
    archs = ArchBatch(SPACE, SPACE.from_index(np.random.default_rng(0).permutation(15625)[: n + 1]))
    accuracy = np.append(np.linspace(0.1, best, n), np.nan)
    values = {"accuracy": accuracy, "train_s": np.arange(n + 1) + 1.0} | columns
    described = [Column(name, "s" if name == "train_s" else "") for name in values]
    table = Table(archs, values, described)
    table.save(path)
    return table


def test_content_is_what_is_looked_up_not_how_it_is_written(tmp_path: Path) -> None:
    path, other = tmp_path / "t.parquet", tmp_path / "u.parquet"
    columns = {"accuracy": "accuracy"}
    partial_table(path)
    content = TableLookup(SPACE, str(path), columns).content
    assert content.startswith("61 rows, sha256 ")
    partial_table(other, note=np.zeros(61))
    assert TableLookup(SPACE, str(other), columns, pool=True, content=content).content == content
    assert TableLookup(SPACE, str(other)).content != content
    partial_table(other, best=0.98)
    with pytest.raises(TableError, match="holds other figures than when the study began"):
        TableLookup(SPACE, str(other), columns, content=content)


ASKED = ["evaluator=table", "evaluator.table.columns={accuracy:accuracy}", "evaluator.table.pool=true",
         "evaluator.table.seconds=train_s", "objective=accuracy", "space=nb201"]


@pytest.mark.parametrize("strategy", ["random", "evolution", "nsga2", "tpe"])
def test_a_search_moves_only_in_the_pool_and_a_resumed_one_ends_alike(strategy: str, tmp_path: Path) -> None:
    table = partial_table(tmp_path / "t.parquet")
    asked = [*ASKED, f"evaluator.table.path={tmp_path}/t.parquet", f"strategy={strategy}"]
    search(*asked, "budget=20", folder=tmp_path / "resumed")
    resumed, models = search(*asked, "budget=40", folder=tmp_path / "resumed")
    whole, _ = search(*asked, "budget=40", folder=tmp_path / "whole")
    records = resumed.study.records()
    assert [r.row.tolist() for r in records] == [r.row.tolist() for r in whole.study.records()]
    assert {r.state for r in records} == {"complete"}
    places = table.positions(ArchBatch(SPACE, [r.row for r in records]))
    assert len(set(places)) == len(records) == 40
    assert [r.provenance["tablelookup"]["seconds"] for r in records] == (places + 1).tolist()
    assert models[0].metrics["accuracy"] == max(r.metrics["accuracy"] for r in records)


def test_a_search_ends_when_it_has_seen_the_pool(tmp_path: Path) -> None:
    table = partial_table(tmp_path / "t.parquet", n=15)
    run, models = search(*ASKED, f"evaluator.table.path={tmp_path}/t.parquet", "budget=50", folder=tmp_path / "run")
    classes = len(set(SPACE.keys(table.archs.rows[:-1])))
    assert len(run.study.records()) == classes
    assert models[0].metrics["accuracy"] > 0.9


def test_two_tables_limit_a_search_to_what_both_hold(tmp_path: Path) -> None:
    partial_table(tmp_path / "t.parquet")
    second = partial_table(tmp_path / "u.parquet", n=30)
    shared = second.pool(["accuracy"]).rows
    given = f"path:{tmp_path}/u.parquet,pool:true,columns:{{second:accuracy}}"
    more = f"{{_target_:nasflow.evaluators.TableLookup,{given}}}"
    asked = [*ASKED, f"evaluator.table.path={tmp_path}/t.parquet", f"+evaluator.second={more}"]
    pool = Search(composed("search", asked), tmp_path).pool
    assert pool is not None
    assert {row.tobytes() for row in pool.rows} == {row.tobytes() for row in shared}


def test_the_command_line_searches_in_a_pool_and_refuses_a_changed_table(tmp_path: Path) -> None:
    partial_table(tmp_path / "t.parquet")
    asked = ["search", *ASKED, f"evaluator.table.path={tmp_path}/t.parquet", f"hydra.run.dir={tmp_path}/run"]
    nasflow(*asked, "budget=10")
    assert "Continuing after 10 of 12" in (done := nasflow(*asked, "budget=12")).stdout + done.stderr
    partial_table(tmp_path / "t.parquet", n=61)
    told = " ".join(nasflow(*asked, "budget=14", code=1).stderr.split())
    assert 'evaluator.table.content: was "61 rows, sha256' in told
    with pytest.raises(TableError, match="61 rows, sha256 .* and is now 62 rows"):
        Search.load(tmp_path / "run").run()  # as a worker does
    (tmp_path / "t.parquet").unlink()
    assert Search.load(tmp_path / "run").write()  # a report takes no table


@pytest.mark.parametrize(
    "evaluator",
    [
        Costs(SPACE, TASK),
        Train(SPACE, TASK, Trainer()),
        Measure(SPACE, TASK, Device()),
        Proxies(SPACE, TASK, ["synflow", "nwot"]),
    ],
)
def test_evaluators_fulfil_the_interface(evaluator: Evaluator) -> None:
    assert isinstance(evaluator, Evaluator)
    assert evaluator.cost in ("cheap", "expensive")


def test_weights_survive_whatever_their_memory_layout(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(2, 0, 1)
    save_weights(tmp_path / "w.safetensors", {"a.weight": array})
    np.testing.assert_array_equal(load_weights_file(tmp_path / "w.safetensors")["a.weight"], array)


def test_proxies_are_metrics_under_their_names() -> None:
    evaluation = Proxies(SPACE, TASK, ["synflow", "snip"]).evaluate(ARCHS, Context(seeds=[0, 0]))
    assert set(evaluation.columns) == {"synflow", "snip"}
    assert all(np.isfinite(column).all() for column in evaluation.columns.values())
    again = Proxies(SPACE, TASK, ["snip"]).evaluate(ARCHS, Context(seeds=[9, 9]))
    np.testing.assert_array_equal(again.columns["snip"], evaluation.columns["snip"])
