"""`nasflow collect`, started as users start it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from devices import load_latencies
from nasflow.collection import LOG
from nasflow.config import composed
from nasflow.jobs.collect import DATASET, choose
from searchspaces.arch import ArchBatch
from searchspaces.errors import TableError
from searchspaces.nb201 import NB201
from searchspaces.table import Column, Table
from tests.nasflow.test_cli import in_this_process, nasflow

FAST = ("device.rounds=2", "device.runs_per_round=2", "device.restarts=1")
SPACE = NB201(scale="small")


@pytest.fixture(autouse=True)
def lock_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine-wide lock of the test's own."""
    path = tmp_path / "machine.lock"
    monkeypatch.setenv("NASFLOW_LOCK", str(path))
    return path


def collect(folder: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = in_this_process("collect", *FAST, f"hydra.run.dir={folder}", *arguments)
    assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    done.stderr = " ".join(done.stderr.split())
    return done


def logged(folder: Path) -> list[dict]:
    """Whole entries of the log that tell of a measurement."""
    lines = (folder / LOG).read_text().split("\n")[:-1]
    return [entry for entry in map(json.loads, lines) if "row" in entry]


def times_measured(folder: Path) -> Counter:
    return Counter((entry["device"], entry["repeat"], *entry["row"]) for entry in logged(folder))


def test_a_dataset_says_what_was_measured_and_how(tmp_path: Path) -> None:
    done = collect(tmp_path, "n=6", "devices=[local,local_int8]")
    assert "6 architectures, 0 measurements failed" in done.stdout
    table = load_latencies(tmp_path / DATASET, SPACE, ["local", "local_int8"], complete=True)
    assert list(table.columns) == ["local_latency_ms", "local_int8_latency_ms"]
    column = table.columns["local_int8_latency_ms"]
    assert (column.unit, column.direction) == ("ms", "minimize")
    assert "int8, 1 thread, batch 1" in column.provenance
    assert len(set(SPACE.keys(table.archs.rows))) == 6
    assert {"schema", "protocol", "environment", "config"} <= table.provenance.keys()
    facts = table.provenance["devices"]["local_int8"]
    assert facts["options"]["precision"] == "int8"
    assert facts["plan"]["rounds"] == 2
    assert {"processor", "onnxruntime", "governor"} <= facts["environment"].keys()
    assert len(facts["load_average"]) == 2
    assert facts["identity"] != table.provenance["devices"]["local"]["identity"]

    stored = pq.read_table(tmp_path / DATASET).to_pydict()
    assert [len(samples) for samples in stored["local.samples_ms"]] == [4] * 6
    assert all(len(set(stored[f"{name}.job"])) == 6 for name in table.provenance["devices"])
    counts = [json.loads(text) for text in stored["local_int8.operators"]]
    assert all(any("QLinearConv" in op for op in count) for count in counts)


def test_the_same_command_measures_nothing_and_a_larger_one_the_rest(tmp_path: Path) -> None:
    collect(tmp_path, "n=4")
    first = (tmp_path / LOG).read_bytes()
    assert "Nothing was left to measure" in collect(tmp_path, "n=4").stdout
    assert (tmp_path / LOG).read_bytes() == first
    collect(tmp_path, "n=6")
    collect(tmp_path, "n=3", "device=local_batch8")
    assert (tmp_path / LOG).read_bytes().startswith(first)
    assert Counter(times_measured(tmp_path).values()) == {1: 9}
    table = load_latencies(tmp_path / DATASET, SPACE)
    assert np.isnan(table.column("local_batch8_latency_ms")).sum() == 3, "all of the folder is in it"
    assert table.provenance["devices"]["local_batch8"]["missing"] == 3
    with pytest.raises(TableError, match=r"lacks 3 of 6 latencies, the first of \|"):
        load_latencies(tmp_path / DATASET, SPACE, complete=True)


def test_architectures_come_from_a_table_or_a_text_file_one_of_each_class(tmp_path: Path) -> None:
    rows = SPACE.from_index(range(40))
    text, table = tmp_path / "archs.txt", tmp_path / "archs.parquet"
    text.write_text("# cells\n\n" + "\n".join(SPACE.format(rows)) + "\n")
    Table(ArchBatch(SPACE, rows), {"a": np.zeros(40)}, [Column("a")]).save(table)
    classes = len(set(SPACE.keys(rows)))
    assert 4 < classes < 40
    for path in (text, table):
        collect(tmp_path / path.suffix, f"archs={path}", "n=4")
        collect(tmp_path / path.suffix, f"archs={path}")
        found = load_latencies(tmp_path / path.suffix / DATASET, SPACE, complete=True)
        assert len(found) == classes
        np.testing.assert_array_equal(np.sort(SPACE.keys(found.archs.rows)), np.unique(SPACE.keys(rows)))
        assert found.lookup(ArchBatch(SPACE, rows), "local_latency_ms").shape == (40,), "by class"
    text.write_text("|a~0|\n")
    assert f"Line 1 of {text}" in collect(tmp_path / "wrong", f"archs={text}", code=2).stderr
    assert "ask for at most these" in collect(tmp_path / "many", f"archs={table}", "n=40", code=2).stderr
    assert "cannot be read" in collect(tmp_path / "none", f"archs={tmp_path / 'no.txt'}", code=2).stderr


def test_draws_begin_alike_and_all_is_one_of_every_class() -> None:
    few, many, other, every = (
        choose(composed("collect", words), SPACE) for words in (["n=5"], [], ["n=5", "seed=1"], ["n=all"])
    )
    assert len(many) == 500
    np.testing.assert_array_equal(few.rows, many.rows[:5])
    assert not np.array_equal(few.rows, other.rows)
    assert len(every) == len(set(every.keys())) == len(SPACE.enumerate_classes())
    assert not np.array_equal(every.rows, SPACE.enumerate_classes())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("space.stem=8", "space.stem: was absent, is now 8"),
        ("task.size=16", "task.size: was 8, is now 16"),
        ("device.threads=2", "local.options.threads: was 1, is now 2"),
        ("device.rounds=3", "local.plan.rounds: was 2, is now 3"),
        ("device.name=other", "'local' and 'other' have the same options"),
        ("noise=2", "at least 5 models, but noise=2"),
    ],
)
def test_changed_settings_are_refused(folder: Path, change: str, says: str) -> None:
    before = (folder / LOG).read_bytes()
    code = 2 if change.startswith(("device.name", "noise")) else 1
    message = collect(folder, "n=3", change, code=code).stderr
    assert says in message
    assert code == 2 or "or another hydra.run.dir to start anew" in message
    assert (folder / LOG).read_bytes() == before


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("begun")
    collect(path, "n=3")
    return path


def test_settings_bind_from_the_first_measurement_on(tmp_path: Path) -> None:
    collect(tmp_path, f"archs={tmp_path / 'not_there.txt'}", code=2)
    collect(tmp_path, "n=2", "device.rounds=3")
    assert "was 3, is now 2" in collect(tmp_path, "n=2", code=1).stderr


def test_a_log_of_another_machine_or_other_models_is_refused(folder: Path, tmp_path: Path) -> None:
    text = (folder / LOG).read_text()
    (tmp_path / LOG).write_text(text.replace('"onnxruntime":"', '"onnxruntime":"0.', 1))
    assert "onnxruntime: was" in collect(tmp_path, "n=4", code=1).stderr
    job = logged(folder)[0]["measurement"]["job"]
    (tmp_path / LOG).write_text(text.replace(job, "0" * 64))
    assert "builds another model for device 'local'" in collect(tmp_path, "n=4", code=1).stderr
    (tmp_path / LOG).write_text("{}\n" + text)
    assert "made with other settings" in collect(tmp_path, "n=4", code=1).stderr


def test_devices_are_named_in_one_way(tmp_path: Path) -> None:
    done = collect(tmp_path, "n=3", "device=local", "devices=[local,local_int8]", code=2)
    assert "not both" in done.stderr
    assert "share the name 'local'" in collect(tmp_path, "n=3", "devices=[local,local]", code=2).stderr
    assert "local_int8" in collect(tmp_path, "n=3", "devices=[local_int4]", code=2).stderr


def test_noise_is_told_from_a_fresh_process(tmp_path: Path) -> None:
    command = ("collect", *FAST, "n=8", "noise=6", "repeats=2", f"hydra.run.dir={tmp_path}")
    done = nasflow(*command)
    assert "measured again (2)" in done.stdout
    assert done.stdout.count("Kendall tau") == 2
    assert Counter((entry["repeat"]) for entry in logged(tmp_path)) == {0: 8, 1: 6, 2: 6}
    assert "Only 4 models were measured" in collect(tmp_path / "few", "n=4", "noise=5").stdout
    reports = load_latencies(tmp_path / DATASET, SPACE).provenance["devices"]["local"]["noise"]
    assert [report["kendall_tau"]["n"] for report in reports] == [6, 6]
    assert [pair["gap"] for pair in reports[0]["pairs"]] == [0.05, 0.1]
    before = (tmp_path / LOG).read_bytes()
    assert "Kendall tau" in collect(tmp_path, "n=8").stdout, "the report stays with the dataset"
    collect(tmp_path, "n=8", "noise=6", "repeats=2")
    assert (tmp_path / LOG).read_bytes() == before


# -- faults ------------------------------------------------------------------------------------------------------------


def started(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "nasflow.cli", "collect", *FAST, f"hydra.run.dir={folder}", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(condition, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def entries_in(folder: Path) -> int:
    return (folder / LOG).read_bytes().count(b"\n") if (folder / LOG).exists() else 0


def test_kills_and_torn_lines_lose_and_repeat_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    command = ("n=24", "residents=2", "device.rounds=10")
    for _ in range(2):
        before = entries_in(tmp_path)
        process = started(tmp_path, *command)
        wait_for(lambda before=before: entries_in(tmp_path) > before + 2)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kept = logged(tmp_path)
        assert len(kept) < 24, "killed in the middle"
        with (tmp_path / LOG).open("ab") as log:  # as a write that a power cut ends leaves it
            log.write((tmp_path / LOG).read_bytes().split(b"\n")[2][: int(rng.integers(1, 300))])
    collect(tmp_path, *command)
    measured = times_measured(tmp_path)
    assert len(measured) == 24
    assert set(measured.values()) == {1}
    assert logged(tmp_path)[: len(kept)] == kept, "what had been measured was not touched"
    undisturbed = in_this_process("collect", *FAST, *command, f"hydra.run.dir={tmp_path / 'other'}")
    assert undisturbed.returncode == 0
    tables = [load_latencies(path / DATASET, SPACE, complete=True) for path in (tmp_path, tmp_path / "other")]
    assert len({tuple(sorted(SPACE.keys(table.archs.rows))) for table in tables}) == 1


_LIMITED = """
import resource, signal, sys
from nasflow.cli import main
from searchspaces.jsonlines import JsonLines

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

def append(log, entries, original=JsonLines.append):
    limit({log})
    try:
        original(log, entries)
    finally:
        limit({all})

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
JsonLines.append = append
limit({all})
sys.exit(main(sys.argv[1:]))
"""


def with_full_disk(folder: Path, log: int, everything: int) -> str:
    """Collect with files limited to a number of bytes; return what is told."""
    script = _LIMITED.format(log=log, all=everything)
    arguments = ["collect", *FAST, f"hydra.run.dir={folder}", "n=24", "residents=4"]
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    return " ".join(done.stderr.split())


def test_a_full_disk_is_told_and_continued_after(tmp_path: Path) -> None:
    told = with_full_disk(tmp_path, 8000, 8000)
    assert "The optimised graph of model 'anchor2_large' cannot be written" in told
    assert "Make room in the folder for temporary files" in told
    assert not logged(tmp_path), "no model was blamed"
    assert "measurements.jsonl cannot be written: File too large" in with_full_disk(tmp_path, 12000, 10**9)
    kept = logged(tmp_path)
    assert 0 < len(kept) < 24
    collect(tmp_path, "n=24", "residents=4")
    assert logged(tmp_path)[: len(kept)] == kept
    assert Counter(times_measured(tmp_path).values()) == {1: 24}


def test_a_second_collection_in_a_folder_is_refused(tmp_path: Path) -> None:
    process = started(tmp_path, "n=2000", "residents=2")
    try:
        wait_for(lambda: entries_in(tmp_path) > 3)
        assert "Another process collects in" in collect(tmp_path, "n=6", code=1).stderr
    finally:
        process.kill()
        process.communicate()
    collect(tmp_path, "n=6")


_HOLDER = "from devices import heavy_work; import sys\nwith heavy_work(): print('held', flush=True); sys.stdin.read()"


def test_a_machine_in_use_is_waited_for(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    process = started(tmp_path, "n=3")
    try:
        assert process.stdout is not None
        told = ""
        while "Waiting for heavy work" not in told:
            line = process.stdout.readline()
            assert line, told
            told += line
        assert not logged(tmp_path)
    finally:
        holder.communicate("")
    rest, _ = process.communicate(timeout=120)
    assert process.returncode == 0, rest
    assert len(logged(tmp_path)) == 3
