"""The suite of proxies' speed."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nasflow.cli import main
from nasflow.config import composed, instantiate
from nasflow.suites import Cell, ProxyThroughput, Suite, proxy_throughput
from nasflow.suites.proxy_throughput import ONE_PASS, one_pass
from proxies import score
from proxies.engine import SHIPPED
from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError
from searchspaces.mobilenet import MobileNet
from searchspaces.nb101 import NB101
from searchspaces.nb201 import NB201
from searchspaces.task import Task

TASK = Task("tiny", (3, 16, 16), 4)
SPACES = [NB201("small"), NB101("small"), MobileNet("small")]


def _suite(**changes: Any) -> ProxyThroughput:
    given = {
        "spaces": {"cells": NB201("small")},
        "task": {"cells": TASK},
        "sets": {"two": ["snip", "plain"], "mixed": ["snip", "nwot"]},
        "archs": 2,
        "batch_size": 4,
    }
    return ProxyThroughput(**given | changes)


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_one_pass_per_proxy_gives_the_same_scores(space: Any) -> None:
    """The plain procedure is an oracle for the shared passes, and what is timed against it does the same work."""
    rng = np.random.default_rng(0)
    data = rng.standard_normal((8, *TASK.input_shape), dtype=np.float32), rng.integers(0, TASK.classes, 8)
    archs = ArchBatch(space, space.sample(3, rng))
    shared = score(archs, TASK, list(ONE_PASS), data, seed=2)
    for i, row in enumerate(archs.rows):
        apart = one_pass(space.network(row, TASK), list(ONE_PASS), data, seed=2)
        for name, value in apart.items():
            assert shared[name][i] == pytest.approx(value, rel=0.03 if name == "grasp" else 1e-3), name


def test_cells_measure_sets_and_single_proxies() -> None:
    suite = _suite()
    assert isinstance(suite, Suite)
    assert suite.methods == (*SHIPPED, "two", "mixed")
    found = suite.run(Cell("cells", "two", 0, 0))
    assert set(found) == {"networks_per_s", "seconds", "seconds_std", "one_pass_seconds", "ratio", "ratio_std"}
    assert found["networks_per_s"] == pytest.approx(1 / found["seconds"])
    assert found["ratio"] == pytest.approx(found["one_pass_seconds"] / found["seconds"])
    for method in ("mixed", "zen"):
        assert set(suite.run(Cell("cells", method, 0, 0))) == {"networks_per_s", "seconds", "seconds_std"}


def test_measures_alone_and_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = False
    counts = []

    @contextmanager
    def exclusive() -> Iterator[None]:
        nonlocal alone
        alone = True
        yield
        alone = False

    def scored(archs: ArchBatch, *arguments: Any) -> object:
        counts.append((alone, torch.get_num_threads(), len(archs)))
        return score(archs, *arguments)

    monkeypatch.setattr(proxy_throughput, "exclusive", exclusive)
    monkeypatch.setattr(proxy_throughput, "score", scored)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        _suite().run(Cell("cells", "plain", 0, 0))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert counts == [(True, 1, 1)] * 3  # the first one warms up


def test_published_figures_stand_beside() -> None:
    suite = _suite(published={"cells": {"source": "a paper", "seconds": {"snip": 2, "jacov": 3.5}}})
    assert [(row.task, row.method, row.metric, row.mean, row.source) for row in suite.published] == [
        ("cells", "snip", "seconds", 2.0, "a paper"),
        ("cells", "jacov", "seconds", 3.5, "a paper"),
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sets": {"two": ["snip", "synflo"]}}, "Unknown proxy 'synflo'. Did you mean 'synflow'"),
        ({"task": {"other": TASK}}, "'cells'"),
        ({"archs": 0}, "suite.archs"),
        ({"batch_size": 1}, "suite.batch_size"),
        ({"seeds": 0}, "suite.seeds"),
    ],
)
def test_refusals(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _suite(**changes)
    assert message in str(caught.value)


def test_the_shipped_sets_cover_all_proxies() -> None:
    suite = instantiate(composed("bench", ["suite=proxy_throughput"]).suite)
    assert set(suite.sets["all"]) == set(SHIPPED)
    assert set(suite.sets["seven"]) == set(ONE_PASS) == {row.method for row in suite.published}
    assert set(suite.sets["seven"]) - set(suite.sets["six"]) == {"grasp"}


def test_settings_tell_what_decides() -> None:
    assert _suite().settings() == _suite().settings()
    for changes in ({"archs": 3}, {"batch_size": 8}, {"sets": {"two": ["snip"]}}, {"spaces": {"cells": NB201("full")}}):
        assert _suite(**changes).settings() != _suite().settings()


def test_runs_from_the_command_line(tmp_path: Path) -> None:
    small = ["suite.spaces.nb201.scale=small", "suite.archs=1", "suite.batch_size=4", "seeds=1"]
    part = ["methods=[plain,six]", f"hydra.run.dir={tmp_path}"]
    assert main(["bench", "suite=proxy_throughput", *small, *part]) == 0
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    measured = {(row["method"], row["metric"]) for row in rows if row["source"] == "measured"}
    assert {("plain", "ratio"), ("six", "networks_per_s"), ("six", "seconds_std")} <= measured
    assert sum(row["source"] != "measured" for row in rows) == len(ONE_PASS)
