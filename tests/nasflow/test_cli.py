"""The command line, started as users start it."""

import errno
import io
import json
import logging
import os
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import onnx
import pytest

from nasflow.cli import MISUSED, _explain, main
from nasflow.flow import Search
from nasflow.training import onnx_accuracy
from searchspaces.errors import StudyError

FAST = ["objective=accuracy_params", "trainer.epochs=1"]


def nasflow(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command as users do, in a process of its own; what only reads or is to be refused, in this one."""
    command = [sys.executable, "-m", "nasflow.cli", *arguments]
    if code == MISUSED or arguments[0] in ("report", "export"):
        done = in_this_process(*arguments)
    else:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def in_this_process(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command without the seconds that a new process takes to import everything; nothing is left changed."""
    root = logging.getLogger()
    handlers, level, environment = root.handlers[:], root.level, dict(os.environ)
    out, err = io.StringIO(), io.StringIO()
    try:
        with redirect_stdout(out), redirect_stderr(err):
            code = main(list(arguments))
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        os.environ.clear()
        os.environ.update(environment)
    return subprocess.CompletedProcess(list(arguments), code, out.getvalue(), err.getvalue())


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
    kept = (run / ".hydra" / "overrides.yaml").read_text()
    assert kept == "- objective=accuracy_params\n- trainer.epochs=1\n- budget=5\n", "what was accepted last"


def records(run: Path) -> dict[str, bytes]:
    """What a folder holds of how its run was started."""
    paths = [run / "config.yaml", run / "environment.json", *(run / ".hydra").iterdir()]
    return {path.name: path.read_bytes() for path in paths}


def test_a_changed_configuration_is_refused(run: Path) -> None:
    before = records(run)
    done = nasflow("search", *FAST, "budget=5", "space.stem=4", f"hydra.run.dir={run}", code=1)
    assert "space.stem: was absent, is now 4" in done.stderr.replace("\n", " ")
    assert records(run) == before


def test_a_mistaken_resume_changes_no_record(run: Path) -> None:
    before = records(run)
    nasflow("search", *FAST, "budget=0", f"hydra.run.dir={run}", code=2)
    assert records(run) == before


def test_worker_finds_the_budget_spent(run: Path) -> None:
    assert "nothing is left to do" in nasflow("worker", f"run={run}").stdout


def test_what_killed_writers_left_is_removed(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    left = [copy / place / "x.bin.999999999.partial" for place in (".", "weights", "models")]
    for path in left:
        path.write_bytes(b"half")
    nasflow("worker", f"run={copy}")
    assert not any(path.exists() for path in left)


def test_a_missing_environment_is_no_fault(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    for text in (None, "{torn"):
        (copy / "environment.json").unlink() if text is None else (copy / "environment.json").write_text(text)
        (copy / "report.html").unlink()
        done = nasflow("report", f"run={copy}")
        assert "What the run ran on is not known" in done.stdout + done.stderr
        assert (copy / "report.html").stat().st_size > 0


def test_faults_of_files_are_told_apart() -> None:
    absent, _ = _explain(["report"], FileNotFoundError(errno.ENOENT, "No such file", "a.json"))
    assert "a.json" in absent
    assert "space" not in absent
    assert "Free space" in _explain(["report"], OSError(errno.ENOSPC, "No space left on device"))[0]


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


def test_export_of_a_found_model_for_integers_and_batches(run: Path, tmp_path: Path) -> None:
    slot = json.loads((run / "models" / "models.json").read_text())[0]["slot"]
    out = tmp_path / "m.onnx"
    done = nasflow("export", f"run={run}", f"slot={slot}", f"out={out}", "precision=int8", "batch=4")
    assert "at int8, batch 4," in done.stdout
    model = onnx.load(out)
    assert "QuantizeLinear" in {node.op_type for node in model.graph.node}
    assert {"mean", "std", "input_shape"} <= {entry.key for entry in model.metadata_props}
    accuracy = onnx_accuracy(out.read_bytes(), Search.load(run).task)
    assert f"test accuracy {accuracy:.4g}" in done.stdout


def test_what_a_slot_brings_itself_is_not_overridden(run: Path, tmp_path: Path) -> None:
    slot = json.loads((run / "models" / "models.json").read_text())[0]["slot"]
    out = tmp_path / "m.onnx"
    given = ["space=mobilenet", "task.noise=1", "seed=3"]
    done = nasflow("export", f"run={run}", f"slot={slot}", f"out={out}", *given, code=2)
    assert "so space=mobilenet, task.noise=1, seed=3 would change nothing" in done.stderr.replace("\n", " ")
    assert not out.exists()
    done = nasflow("export", "arch='|a~0|'", f"slot={slot}", f"out={out}", code=2)
    assert "Give either arch" in done.stderr


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_export_of_an_architecture(tmp_path: Path, precision: str) -> None:
    arch = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|skip_connect~0|none~1|avg_pool_3x3~2|"
    out = tmp_path / "m.onnx"
    done = nasflow("export", "space=nb201", f"arch='{arch}'", f"out={out}", f"precision={precision}")
    assert out.stat().st_size > 0
    assert "untrained" in done.stdout


def test_int8_is_calibrated_on_images_of_the_networks_size(tmp_path: Path) -> None:
    """In batches of any size, and without remarks of the quantizer on the way."""
    arch = "r152|k5e3,k3e3|k5e4,k5e3|k3e4,k3e4,k5e4|k3e4,k5e3,k7e4|k3e6,k3e3,k5e3,k5e3"
    out = tmp_path / "m.onnx"
    done = nasflow("export", "space=mobilenet", f"arch='{arch}'", f"out={out}", "precision=int8", "batch=130")
    assert out.stat().st_size > 0
    assert done.stdout.startswith(f"{out}: r140|")
    cell = "|nor_conv_3x3~0|+|nor_conv_3x3~0|skip_connect~1|+|skip_connect~0|nor_conv_1x1~1|avg_pool_3x3~2|"
    done = nasflow("export", "space=nb201", f"arch='{cell}'", f"out={out}", "precision=int8")
    assert "Created a copy" not in done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == 1


def test_showing_the_configuration_loads_no_images() -> None:
    shown = nasflow("search", "--cfg", "job", "task=cifar10", "task.folder=/nowhere", "objective=accuracy_params")
    assert "folder: /nowhere" in shown.stdout


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
        (["search", "+reference.accuracy=0.5"], "has none for latency_ms"),
        (["search", "reference={accuracy:0.5,latency_ms:1,latency:2}"], "Did you mean 'latency_ms'"),
        (["search", "reference={accuracy:0.5,latency_ms:fast}"], "that of latency_ms is 'fast'"),
        (["search", "reference=0.5"], "reference gives each optimised metric a number"),
        (["search", "storage=postgres", "storage.url=postgresql+psycopg://me:pw@host/n"], "url holds a password"),
        (["search", "storage=postgres", "storage.url=${oc.env:NASFLOW_NOT_SET}"], "'NASFLOW_NOT_SET' not found"),
        (["search", "space.scale=tiny"], "Choose one of: full, small"),
        (["search", "+objective.latency_s.at_most=1"], "No evaluator gives 'latency_s'"),
        (["search", "objective.accuracy.direction=up"], "choose maximize, minimize"),
        (["worker"], "run"),
        (["worker", "run=nowhere", "wait_s=0"], "not the folder of a search"),
        (["export"], "Give either arch"),
        (["export", "space=nb201", "arch='|nor_conv_3x3~0|'"], "six edges"),
        (["export", "space=nb201", "arch='|a~0|+|a~0|a~1|+|a~0|a~1|a~2|'"], "Unknown operation 'a'"),
        (["report"], "Give either run"),
        (["bench", "methods=[nothing]"], "Unknown method"),
        (["bench", "seeds=0"], "seeds is a whole number, at least 1"),
    ],
)
def test_misuse_gets_one_paragraph(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    extra = [f"hydra.run.dir={tmp_path}"] if arguments[0] in ("search", "bench") else []
    done = in_this_process(*arguments, *extra)
    assert done.returncode != 0
    assert message in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr
    if arguments[0] == "search":
        assert {path.name for path in tmp_path.iterdir()} <= {"search.log"}, "nothing was begun"


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
    from nasflow import search

    run, models = search(*FAST, "budget=2", "storage=sqlite", folder=tmp_path / "a (b), c=1")
    assert isinstance(run, Search)
    assert models
    assert (run.folder / "report.html").exists()
    with pytest.raises(StudyError, match="seed: was 0, is now 1"):
        search(*FAST, "budget=2", "storage=sqlite", "seed=1", folder=run.folder)
    assert Search.load(run.folder).config.seed == 0


def test_search_from_an_application_of_ones_own(tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    script.write_text(APPLICATION)
    (tmp_path / "mine.yaml").write_text("lr: 0.1\n")
    command = [sys.executable, str(script), f"hydra.run.dir={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300, cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == "0.5"


# Composes as nasflow.search() does, then goes on with a configuration of its own.
APPLICATION = """
import hydra
from nasflow.config import composed

@hydra.main(config_path=".", config_name="mine", version_base="1.3")
def main(config):
    composed("search")
    print(hydra.compose("mine", overrides=["lr=0.5"]).lr)

main()
"""


# A plug-in of Hydra that runs each job of a sweep in a forked process, on a pickled copy of the task, and hands the
# result back as a pickle: what launchers such as joblib's and submitit's do.
LAUNCHER = """
import multiprocessing, pickle
from hydra.core.config_store import ConfigStore
from hydra.core.utils import run_job
from hydra.plugins.launcher import Launcher

class Elsewhere(Launcher):
    def setup(self, *, hydra_context, task_function, config):
        self.context, self.config, self.task = hydra_context, config, pickle.dumps(task_function)

    def launch(self, job_overrides, initial_job_idx):
        return [self.away(i, list(given)) for i, given in enumerate(job_overrides, initial_job_idx)]

    def away(self, i, given):
        ours, theirs = multiprocessing.get_context("fork").Pipe(duplex=False)
        process = multiprocessing.get_context("fork").Process(target=self.job, args=(i, given, theirs))
        process.start()
        result = pickle.loads(ours.recv_bytes())
        process.join()
        return result

    def job(self, i, given, theirs):
        config = self.context.config_loader.load_sweep_config(self.config, given)
        config.hydra.job.num, config.hydra.job.id = i, str(i)
        task = pickle.loads(self.task)
        done = run_job(task, config, "hydra.sweep.dir", "hydra.sweep.subdir", self.context)
        theirs.send_bytes(pickle.dumps(done))

node = {"_target_": "hydra_plugins.elsewhere.Elsewhere"}
ConfigStore.instance().store(group="hydra/launcher", name="elsewhere", node=node)
"""


@pytest.mark.parametrize(
    ("values", "code", "messages"),
    [
        ("precision=fp32,fp32", 0, []),
        ("precision=fp32,fp17", 2, ["Unknown precision 'fp17'"]),
        ("precision=fp17,int9", 2, ["Unknown precision 'fp17'", "Unknown precision 'int9'"]),
        ("space.scale=small,full precision=fp32", 0, []),
    ],
)
@pytest.mark.parametrize("launcher", ["basic", "elsewhere"])
def test_errors_of_a_sweep_survive_every_launcher(
    tmp_path: Path, launcher: str, values: str, code: int, messages: list[str]
) -> None:
    arch = "arch='|none~0|+|none~0|skip_connect~1|+|skip_connect~0|none~1|avg_pool_3x3~2|'"
    given = ["export", "-m", f"hydra/launcher={launcher}", f"hydra.sweep.dir={tmp_path}", *values.split()]
    (tmp_path / "hydra_plugins").mkdir()
    (tmp_path / "hydra_plugins" / "elsewhere.py").write_text(LAUNCHER)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "nasflow.cli", *given, arch, f"out={tmp_path}/${{hydra:job.num}}.onnx"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=300, cwd=tmp_path, env=environment
    )
    assert done.returncode == code, done.stderr
    told = done.stderr.replace("\n", " ")
    assert all(message in told for message in messages)
    assert "Traceback" not in told
    fine = [value not in ("fp17", "int9") for value in values.split()[0].partition("=")[2].split(",")]
    assert [(tmp_path / f"{i}.onnx").exists() for i in range(2)] == fine, "the others went on"


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
