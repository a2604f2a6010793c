"""The command line, started as users start it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from searchspaces.errors import StudyError

FAST = ["objective=accuracy_params", "trainer.epochs=1"]


def nasflow(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nasflow.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    done = nasflow("search", *FAST, "budget=4", f"hydra.run.dir={folder}")
    assert f"Report: {folder / 'report.html'}" in done.stdout
    return folder


def test_search_leaves_log_config_report_and_models(run: Path) -> None:
    for name in ("study.journal", "config.yaml", "environment.json", "report.html", "models/models.json"):
        assert (run / name).stat().st_size > 0
    models = json.loads((run / "models" / "models.json").read_text())
    assert models
    for model in models:
        assert model["trained"]
        assert 0 <= model["test_accuracy"] <= 1
        assert (run / model["path"]).with_suffix(".safetensors").exists()
    kept = {path.stem.rpartition("_")[0] for path in (run / "weights").iterdir()}
    assert kept == {Path(model["path"]).stem for model in models}


def test_a_larger_budget_continues(run: Path) -> None:
    done = nasflow("search", *FAST, "budget=5", f"hydra.run.dir={run}")
    assert "Continuing after 4 of 5 evaluations" in done.stdout + done.stderr


def test_a_changed_configuration_is_refused(run: Path) -> None:
    before = (run / "config.yaml").read_text()
    done = nasflow("search", *FAST, "budget=5", "space.stem=4", f"hydra.run.dir={run}", code=1)
    assert "space.stem: was absent, is now 4" in done.stderr.replace("\n", " ")
    assert (run / "config.yaml").read_text() == before


def test_worker_finds_the_budget_spent(run: Path) -> None:
    assert "nothing is left to do" in nasflow("worker", f"run={run}").stdout


def test_report_is_written_anew(run: Path) -> None:
    (run / "report.html").unlink()
    nasflow("report", f"run={run}")
    assert (run / "report.html").exists()


def test_runs_are_compared(run: Path, tmp_path: Path) -> None:
    nasflow("report", f"runs=[{run},{run}]", f"out={tmp_path / 'c.html'}")
    assert (tmp_path / "c.html").stat().st_size > 0


def test_export_of_a_found_model(run: Path, tmp_path: Path) -> None:
    slot = json.loads((run / "models" / "models.json").read_text())[0]["slot"]
    done = nasflow("export", f"run={run}", f"slot={slot}", f"out={tmp_path / 'm.onnx'}")
    assert "test accuracy" in done.stdout
    assert (tmp_path / "m.safetensors").exists()


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_export_of_an_architecture(tmp_path: Path, precision: str) -> None:
    arch = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|skip_connect~0|none~1|avg_pool_3x3~2|"
    out = tmp_path / "m.onnx"
    done = nasflow("export", "space=nb201", f"arch='{arch}'", f"out={out}", f"precision={precision}")
    assert out.stat().st_size > 0
    assert "untrained" in done.stdout


def test_unmet_bounds_end_the_run_with_the_nearest(tmp_path: Path) -> None:
    bound = "+objective.params_m.at_most=1e-6"
    done = nasflow("search", *FAST, "budget=2", bound, f"hydra.run.dir={tmp_path}", code=1)
    text = done.stderr.replace("\n", " ")
    assert "None of the 2 evaluations meets params_m at most 1e-06" in text
    assert "nearest is slot" in text
    assert (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serach"], "Unknown job 'serach'. Did you mean 'search'"),
        (["search", "space=nb20l"], "Unknown space 'nb20l'. Did you mean 'nb201'"),
        (["search", "strategy=evolutoin"], "Did you mean 'evolution'"),
        (["search", "budgte=4"], "Did you mean 'budget'"),
        (["search", "budget=0"], "at least 1"),
        (["search", "budget=many"], "whole number"),
        (["search", "trainer.epochs=two"], "epochs of nasflow.training.Trainer must be int"),
        (["search", "max_failure_rate=2"], "between 0 and 1"),
        (["search", "task=cifar10", "task.folder=/nowhere"], "/nowhere"),
        (["search", "space.sclae=small"], "Did you mean 'space.scale'"),
        (["search", "objective.params_m.at_most=1"], "write +objective.params_m.at_most"),
        (["search", "space.scale=tiny"], "Choose one of: full, small"),
        (["search", "+objective.latency_s.at_most=1"], "No evaluator gives 'latency_s'"),
        (["search", "objective.accuracy.direction=up"], "choose maximize, minimize"),
        (["worker"], "run"),
        (["worker", "run=nowhere"], "not the folder of a search"),
        (["export"], "Give either arch"),
        (["export", "space=nb201", "arch='|nor_conv_3x3~0|'"], "six edges"),
        (["export", "space=nb201", "arch='|a~0|+|a~0|a~1|+|a~0|a~1|a~2|'"], "Unknown operation 'a'"),
        (["report"], "Give either run"),
        (["bench", "methods=[nothing]"], "Unknown method"),
        (["bench", "seeds=0"], "seeds is a whole number, at least 1"),
    ],
)
def test_misuse_gets_one_paragraph(arguments: list[str], message: str, tmp_path: Path) -> None:
    extra = [f"hydra.run.dir={tmp_path}"] if arguments[0] in ("search", "bench") else []
    command = [sys.executable, "-m", "nasflow.cli", *arguments, *extra]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100, cwd=tmp_path)
    assert done.returncode not in (0, -11)
    assert message in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr


def test_a_run_can_be_moved(run: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    nasflow("report", f"run={moved}")
    assert sorted((moved / "models").iterdir(), key=str) == [
        moved / "models" / path.name for path in sorted((run / "models").iterdir(), key=str)
    ]
    assert (moved / "study.journal").read_bytes() == (run / "study.journal").read_bytes()


def test_a_missing_log_loses_no_model(run: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(run, broken)
    (broken / "study.journal").unlink()
    done = nasflow("report", f"run={broken}", code=1)
    assert "is missing. Put it back" in done.stderr.replace("\n", " ")
    assert len(list((broken / "models").iterdir())) == len(list((run / "models").iterdir()))
    assert not (broken / "study.journal").exists()


def test_a_mistake_in_the_first_command_leaves_no_trace(tmp_path: Path) -> None:
    nasflow("search", *FAST, "strategy.population=0", f"hydra.run.dir={tmp_path}", code=2)
    assert not (tmp_path / "study.journal").exists()
    nasflow("search", *FAST, "budget=1", f"hydra.run.dir={tmp_path}")


def test_another_storage_is_refused_on_a_resume(run: Path) -> None:
    before = (run / "config.yaml").read_text()
    done = nasflow("search", *FAST, "budget=5", "storage=sqlite", f"hydra.run.dir={run}", code=2)
    assert "keeps its log in another storage" in done.stderr.replace("\n", " ")
    assert (run / "config.yaml").read_text() == before


def test_untrained_slots_are_not_exported_as_trained(run: Path, tmp_path: Path) -> None:
    kept = {model["slot"] for model in json.loads((run / "models" / "models.json").read_text())}
    dominated = next(slot for slot in range(4) if slot not in kept)
    done = nasflow("export", f"run={run}", f"slot={dominated}", f"out={tmp_path / 'm.onnx'}", code=2)
    assert f"no trained weights of slot {dominated}" in done.stderr.replace("\n", " ")


def test_search_from_python(tmp_path: Path) -> None:
    from nasflow import Search, search

    run, models = search(*FAST, "budget=2", "storage=sqlite", folder=tmp_path / "a (b), c=1")
    assert isinstance(run, Search)
    assert models
    assert (run.folder / "report.html").exists()
    with pytest.raises(StudyError, match="seed: was 0, is now 1"):
        search(*FAST, "budget=2", "storage=sqlite", "seed=1", folder=run.folder)
    assert Search.load(run.folder).config.seed == 0


def test_help_names_the_jobs() -> None:
    text = nasflow("--help").stdout
    assert all(job in text for job in ("search", "worker", "export", "report", "bench"))
    assert "nasflow search: find the best networks" in nasflow("search", "--help").stdout


def test_bench_resumes_from_its_cache(tmp_path: Path) -> None:
    part = ["bench", "suite=build_throughput", "seeds=2", "tasks=[nb201]", "methods=[network]", "suite.archs=2"]
    nasflow(*part, f"hydra.run.dir={tmp_path}")
    first = json.loads((tmp_path / "results.json").read_text())
    assert {row["metric"] for row in first["rows"]} == {"build_ms", "session_ms", "total_ms"}
    assert first["rows"][0]["seeds"] == [0, 1]
    assert set(first["rows"][0]) >= {"task", "method", "samples", "metric", "mean", "std", "seeds", "seconds", "source"}
    files = sorted((tmp_path / "cache").iterdir())
    files[0].write_text("{torn")
    stamp = files[1].stat().st_mtime_ns
    nasflow(*part, f"hydra.run.dir={tmp_path}")
    assert files[1].stat().st_mtime_ns == stamp
    assert json.loads(files[0].read_text())["result"]["metrics"]["total_ms"] > 0
