from pathlib import Path

import numpy as np
import pytest

from devices import Device
from nasflow.evaluators import Context, Costs, Evaluator, Measure, Proxies, TableLookup, Train
from nasflow.models import load_weights_file, save_weights, weights_path
from nasflow.tasks import Digits
from nasflow.training import Trainer
from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError, TableError
from searchspaces.nb201 import NB201
from searchspaces.network import to_torch
from searchspaces.table import Column, Table
from searchspaces.task import Task

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
