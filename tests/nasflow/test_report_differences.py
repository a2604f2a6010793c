import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nasflow.jobs.report import labels
from nasflow.objectives import Objectives
from nasflow.report import Compared, write_comparison
from nasflow.report.differences import Difference, differences, purpose, warnings
from nasflow.study.storage import memory
from nasflow.study.study import Study
from searchspaces.errors import ConfigError
from searchspaces.nb201 import NB201
from searchspaces.task import Task

TASK = Task("digits", (1, 8, 8), 10, "small")
GIVEN = {"accuracy": "train", "latency_ms": "device"}


def config(epochs: int = 4, threads: int = 1, **changes: Any) -> dict[str, Any]:
    trainer = {"_target_": "a.Trainer", "epochs": epochs}
    device = {"_target_": "a.Device", "threads": threads}
    return {
        "task": {"_target_": "a.Digits", "scale": "small", "noise": 0.0},
        "space": {"_target_": "a.Cells", "scale": "small"},
        "trainer": trainer,
        "device": device,
        "evaluator": {
            "device": {"_target_": "a.Measure", "device": device},
            "train": {"_target_": "a.Train", "trainer": trainer},
        },
        "strategy": {"_target_": "a.Random"},
        "storage": {"path": f"{epochs}{threads}"},
        "budget": 8,
        "seed": 0,
    } | changes


def run(name: str, given: Mapping[str, Any], reference_ms: float = 0.0, latency: bool = True, **facts: Any) -> Compared:
    goals: dict[str, Any] = {"accuracy": {"direction": "maximize"}}
    goals |= {"latency_ms": {"direction": "minimize"}} if latency else {}
    study = Study(memory(), NB201("small"), Objectives(**goals))
    if reference_ms:
        environment = {"processor": facts.pop("on", "x")}
        note = {"metric": "latency_ms", "reference_ms": reference_ms, "environment": environment}
        result = {"metrics": {"accuracy": 0.9, "latency_ms": 1.0}, "violations": {}, "seconds": 1.0}
        claim = study.claim(0, study.space.sample(1, np.random.default_rng(0))[0], "worker")
        assert claim
        study.finish(claim, result | {"provenance": {"measure": note}})
    providers = {metric: GIVEN[metric] for metric in study.objectives.metrics}
    return Compared(name, study, **({"task": TASK, "config": given, "providers": providers} | facts))


def told(runs: list[Compared]) -> list[str]:
    return [re.sub("<[^>]*>", "", text) for text in warnings(runs, differences(runs))]


def test_equal_settings_are_not_listed_and_budget_seed_and_storage_are_apart() -> None:
    runs = [run("a", config()), run("b", config(budget=20, seed=3, storage={"path": "elsewhere"}, lease_s=1))]
    assert differences(runs) == []
    assert told(runs) == []


def test_a_setting_is_listed_once_with_the_metric_that_it_decides() -> None:
    runs = [run("a", config(epochs=4)), run("b", config(epochs=16)), run("c", config(epochs=16))]
    assert differences(runs) == [Difference("trainer.epochs", ("4", "16", "16"), ("accuracy",))]
    (warning,) = told(runs)
    assert warning.startswith("Accuracy does not compare: trainer.epochs is 4 or 16.")


def test_a_setting_of_an_evaluator_that_no_metric_needs_is_listed_without_warning() -> None:
    runs = [run("a", config(threads=1), latency=False), run("b", config(threads=2), latency=False)]
    (found,) = differences(runs)
    assert (found.key, found.values, purpose(found)) == ("device.threads", ("1", "2"), "nothing that is compared")
    assert told(runs) == []


def test_where_evaluators_are_not_known_any_of_them_may_decide() -> None:
    runs = [run("a", config(threads=1), providers={}), run("b", config(threads=2), providers={})]
    assert differences(runs)[0].decides == ("accuracy", "latency_ms")


def test_components_of_different_classes_differ_as_wholes() -> None:
    other = config(space={"_target_": "a.Blocks", "width": 2}, strategy={"_target_": "a.Evolution", "population": 9})
    runs = [run("a", config()), run("b", other)]
    found = {entry.key: entry.values for entry in differences(runs)}
    assert found["space"] == ("Cells(scale=small)", "Blocks(width=2)")
    assert found["strategy"] == ("Random()", "Evolution(population=9)")
    assert len(found) == 2
    (warning,) = told(runs)
    assert "chose among different networks: space is Cells(scale=small) or Blocks(width=2)" in warning


def test_another_evaluator_of_a_metric() -> None:
    table = {"_target_": "a.Lookup", "path": "/a", "content": "3 rows"}
    tabular = config(evaluator=config()["evaluator"] | {"table": table})
    runs = [run("a", config()), run("b", tabular, providers=GIVEN | {"accuracy": "table"})]
    found = {entry.key: entry.decides for entry in differences(runs)}
    assert found == {"evaluator.table": ("accuracy",), "evaluator of accuracy": ("accuracy",)}
    moved = config(evaluator=tabular["evaluator"] | {"table": table | {"path": "/b"}})
    assert differences([run("a", tabular), run("b", moved)]) == []  # the same content


def test_task_and_scale() -> None:
    task = {"_target_": "a.Digits", "scale": "full", "noise": 0.5}
    texts = told([run("a", config()), run("b", config(task=task, space={"_target_": "a.Cells", "scale": "full"}))])
    assert len(texts) == 2
    assert texts[0].startswith("The task differs: task.noise is 0.0 or 0.5.")
    assert "space.scale is small or full" in texts[1]


def test_latencies_relative_to_other_references() -> None:
    runs = [run("a", config(), 0.25), run("b", config(), 0.30)]
    assert [entry.values for entry in differences(runs)] == [("0.25", "0.3")]
    (warning,) = told(runs)
    assert "Latency is on scales up to 20.0% apart" in warning and "(0.25 or 0.3 ms)" in warning
    assert told([run("a", config(), 0.25), run("b", config(), 0.25)]) == []
    (machines,) = told([run("a", config(), 0.25, on="x"), run("b", config(), 0.30, on="y")])
    assert "Latency does not compare: processor that latency was measured on is x or y" in machines
    (devices,) = told([run("a", config(threads=1), 0.25), run("b", config(threads=2), 0.30)])
    assert "Latency does not compare: device.threads is 1 or 2" in devices  # no word of scales


def test_other_tasks_are_refused(tmp_path: Path) -> None:
    for task in (Task("letters", (1, 8, 8), 10, "small"), Task("digits", (1, 8, 8), 2, "small")):
        runs = [run("a", config()), run("b", config(), task=task)]
        with pytest.raises(ConfigError, match=f"'b' for {task.name} with {task.classes} classes"):
            write_comparison(tmp_path / "c.html", runs)
    assert not (tmp_path / "c.html").exists()


def test_page_warns_first(tmp_path: Path) -> None:
    runs = [run("a", config(epochs=4), 0.25), run("b", config(epochs=16), 0.25)]
    html = write_comparison(tmp_path / "c.html", runs).read_text()
    assert 0 < html.index('<p class="notice"><strong>Accuracy does not compare') < html.index("<table>")
    assert "trainer.<wbr>epochs" in html.partition('<section id="settings"')[2]
    html = write_comparison(tmp_path / "d.html", [runs[0], runs[0]]).read_text()
    assert "notice" not in html.partition("</style>")[2]
    assert "differ in nothing but budget and seed" in html


def test_labels(tmp_path: Path) -> None:
    def folder(name: str, *overrides: str) -> Path:
        path = tmp_path / name / ".hydra" / "overrides.yaml"
        path.parent.mkdir(parents=True)
        path.write_text("".join(f"- {text}\n" for text in overrides))
        return tmp_path / name

    sweep = [folder(f"sweep/{i}", "task=digits", f"budget={i + 5}", f"seed={i}") for i in range(2)]
    assert labels(sweep) == ["seed=0 (sweep/0)", "seed=1 (sweep/1)"]
    other = folder("other/0", "task=digits", "budget=5")
    assert labels([sweep[0], other]) == ["seed=0 (sweep/0)", "other/0"]
    deep = [folder(f"{name}/x/run", "seed=2") for name in ("a", "b")]
    assert labels(deep) == ["a/x/run", "b/x/run"]
    assert labels([other, other]) == ["other/0", "other/0"]
    long = folder("long", f"strategy={'x' * 90}")
    assert labels([long, other])[0] == f"strategy={'x' * 50}… (long)"
    (tmp_path / "none").mkdir()
    assert labels([tmp_path / "none", other]) == ["none", "task=digits (other/0)"]
