"""The shipped latencies: random cells, on variants of one machine."""

from pathlib import Path

import numpy as np
import pytest

import searchspaces.nb201
from devices import load_latencies
from nasflow.config import composed, instantiate, plain
from nasflow.statistics import spearman
from nasflow.suites import Cell
from searchspaces.nb201 import NB201
from searchspaces.table import Table

PATH = Path(searchspaces.nb201.__file__).with_name("latencies.parquet")
DIGITS = PATH.with_name("digits.parquet")


@pytest.fixture(scope="module")
def table() -> Table:
    return load_latencies(PATH, NB201("small"), complete=True)


def test_each_of_six_devices_has_all_figures(table: Table) -> None:
    assert table.by_class
    assert len(table) == len(set(table.archs.keys())) == 300
    devices = table.provenance["devices"]
    assert len(devices) >= 6
    assert set(table.columns) == {f"{name}_latency_ms" for name in devices}
    assert PATH.stat().st_size < 1e6


def test_it_says_how_it_was_measured_and_what_it_is_worth(table: Table) -> None:
    assert {"command", "config", "environment", "schema", "protocol"} <= set(table.provenance)
    for name, facts in table.provenance["devices"].items():
        assert facts["measured"] == 300
        assert {"options", "identity", "environment", "governors", "spread_percent", "references_ms"} <= set(facts)
        (noise,) = facts["noise"]
        assert noise["kendall_tau"]["value"] > 0.85, name


def test_devices_differ_by_more_than_their_noise(table: Table) -> None:
    figures = {name: table.column(name) for name in table.columns}
    names = list(figures)
    alike = [spearman(figures[a], figures[b]).value for i, a in enumerate(names) for b in names[:i]]
    assert min(alike) < 0.9
    assert max(alike) < 0.999


def test_it_agrees_with_latencies_collected_another_time(table: Table) -> None:
    digits = Table.load(DIGITS, NB201("small"))
    theirs = digits.lookup(table.archs, "latency_ms")
    assert spearman(table.column("local_latency_ms"), theirs).value > 0.9


def test_devices_are_learned_from_others() -> None:
    config = plain(composed("bench", ["suite=latency_local"]).suite)
    config["tasks"] = {"shipped": config["tasks"]["shipped"]}
    suite = instantiate(config)
    found = {
        method: np.mean([suite.run(Cell("shipped", method, 20, seed))["spearman"] for seed in range(3)])
        for method in ("gp", "gp_alone", "macs")
    }
    assert found["gp"] > 0.88
    assert found["gp"] > found["gp_alone"] > found["macs"] + 0.3
