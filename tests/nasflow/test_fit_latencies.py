"""`nasflow fit` to a dataset of latencies: what it takes, and what it refuses."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from devices import Device
from nasflow.jobs.collect import DATASET
from predictors.base import saved_facts
from searchspaces.arch import ArchBatch
from searchspaces.nb201 import NB201
from searchspaces.table import Column, Table
from tests.nasflow.test_cli import in_this_process

SPACE = NB201("small")
TINY = ("device.rounds=2", "device.runs_per_round=2", "device.restarts=1")
LINE = ("predictor=latency_macs", "samples=8")


@pytest.fixture(autouse=True)
def lock_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine-wide lock of the test's own."""
    monkeypatch.setenv("NASFLOW_LOCK", str(tmp_path / "machine.lock"))


def fit(folder: Path, *arguments: str, code: int = 0) -> str:
    """Run the job in this process and return what it says, in one line."""
    done = in_this_process("fit", *arguments, f"hydra.run.dir={folder}")
    told = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == code, told
    return told


def dataset(path: Path, space: NB201 = SPACE, unit: str = "ms", provenance: Any = None, **columns: Any) -> Path:
    """Latencies of 40 cells on two devices that rank them differently; `columns` takes their place."""
    archs = ArchBatch(space, space.sample(80, np.random.default_rng(3))).unique()[:40]
    convs = 1.0 + (archs.rows >= 2).sum(axis=1)
    known = {"local": convs + 0.01 * np.arange(len(archs)), "phone": convs**2 + np.sin(np.arange(len(archs)))}
    known |= {name: change(known["local"].copy()) for name, change in columns.items()}
    values = {f"{name}_latency_ms": figures for name, figures in known.items()}
    described = [Column(name, unit if name == "local_latency_ms" else "ms", "minimize") for name in values]
    Table(archs, values, described, provenance).save(path)
    return path


def changed(place: int, value: float) -> Any:
    def change(figures: Any) -> Any:
        figures[place] = value
        return figures

    return change


SAME_DEVICE = {"devices": {"local": {"identity": "x"}, "phone": {"identity": "x"}}}


@pytest.mark.parametrize(
    ("made", "given", "says"),
    [
        ({"local": changed(3, -0.5)}, [], "1 of column 'local_latency_ms' are not: |"),
        ({"local": changed(3, 0.0)}, [], "has 0 ms. Remove these figures, or measure again"),
        ({"local": changed(3, np.inf)}, [], "has inf ms"),
        ({"local": lambda figures: figures * np.nan}, [], "lacks 40 of 40 latencies"),
        ({"unit": "s"}, [], "Latencies are in ms, but column 'local_latency_ms' is in s. Convert"),
        ({"unit": ""}, [], "is in no unit"),
        ({"phone": changed(3, -1.0)}, ["sources=all"], "1 of column 'phone_latency_ms' are not"),
        ({"provenance": SAME_DEVICE}, ["sources=[phone]"], "one device stands there under two names"),
        ({"twin": np.copy}, ["sources=[twin]"], "hold the same figures: one device stands there under two names"),
        ({"space": NB201("full")}, [], "Choose the space and scale that the table was made with"),
        ({"space": NB201("small", stem=3)}, [], "Choose the space and scale that the table was made with"),
        ({"provenance": {"input_shape": [3, 32, 32], "classes": 10}}, [], "networks with input_shape [3, 32, 32]"),
        ({}, ["samples=41"], "has figures of 40 different architectures, but samples=41"),
        ({"local": lambda figures: np.where(np.arange(40) < 7, figures, np.nan)}, [], "of 7 different architectures"),
        ({}, ["samples=1"], "samples is a whole number, at least 2"),
        ({"local": lambda figures: figures * 0 + 2}, [], "all with the same figure"),
        ({}, ["column=local_latency_ms"], "but not both"),
        ({}, ["device.name=lokal"], "Did you mean 'local_latency_ms'"),
        ({}, ["sources=[phon]"], "Unknown source 'phon'. Did you mean 'phone'"),
        ({}, ["sources=[local]"], "Sources are other columns than the target's"),
        ({}, ["sources=phone"], "a list of devices as in 'sources=[local_int8]'"),
        ({}, ["predictor=latency_copy", "encoding=latency"], "needs sources"),
    ],
)
def test_bad_datasets_are_refused(made: Mapping[str, Any], given: list[str], says: str, tmp_path: Path) -> None:
    table = dataset(tmp_path / "table.parquet", **made)
    done = in_this_process("fit", *LINE, f"table={table}", "device=local", *given, f"hydra.run.dir={tmp_path / 'out'}")
    assert done.returncode in (1, 2)
    assert says in " ".join(done.stderr.split())
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_few_unknown_latencies_are_left_out(tmp_path: Path) -> None:
    table = dataset(tmp_path / "table.parquet", local=changed(3, np.nan))
    told = fit(tmp_path / "out", *LINE, f"table={table}", "device=local")
    assert "on 31 architectures" in told, "39 known, of which 8 are learned from"


def test_a_device_of_other_options_is_refused(tmp_path: Path) -> None:
    facts = {"options": Device(threads=2).options, "identity": "x"}
    table = dataset(tmp_path / "table.parquet", provenance={"devices": {"local": facts}})
    told = fit(tmp_path / "out", *LINE, f"table={table}", "device=local", code=2)
    assert "were measured with threads 2 and not 1: that is another device" in told
    fit(tmp_path / "out", *LINE, f"table={table}", "device=local", "device.threads=2")


def test_sources_are_learned_from_and_named(tmp_path: Path) -> None:
    """The copy of the best source can only be right where it has got the figures of that device."""
    table = dataset(tmp_path / "table.parquet", quick=np.sqrt)
    copy = ("predictor=latency_copy", "encoding=onehot", "samples=8", f"table={table}", "device=local")
    told = fit(tmp_path / "all", *copy, "sources=all")
    facts = saved_facts(tmp_path / "all" / "predictor.safetensors")["facts"]
    assert facts["target"]["sources"] == ["phone_latency_ms", "quick_latency_ms"]
    assert facts["results"]["Kendall tau-b"]["value"] == pytest.approx(1.0), told
    other = fit(tmp_path / "all", *copy, "sources=[phone]", code=2)
    assert "fitted with other settings (sources: was" in other
    fit(tmp_path / "one", *copy, "sources=[phone]")
    known = saved_facts(tmp_path / "one" / "predictor.safetensors")["facts"]["results"]["Kendall tau-b"]["value"]
    assert known < 1


def test_no_other_device_is_no_source(tmp_path: Path) -> None:
    archs = ArchBatch(SPACE, SPACE.from_index(range(20)))
    path = tmp_path / "table.parquet"
    Table(archs, {"a_latency_ms": np.arange(1.0, 21)}, [Column("a_latency_ms", "ms")]).save(path)
    told = fit(tmp_path / "out", *LINE, f"table={path}", "column=a_latency_ms", "sources=all", code=2)
    assert "beside 'a_latency_ms' it has none" in told


def test_a_collected_dataset_is_fitted_to_by_its_devices_name(tmp_path: Path) -> None:
    done = in_this_process("collect", *TINY, "n=14", f"hydra.run.dir={tmp_path / 'set'}")
    assert done.returncode == 0, done.stderr
    given = ("predictor=latency_auto", "encoding=latency", "device=local", f"table={tmp_path / 'set' / DATASET}")
    fit(tmp_path / "out", *given, "samples=8")
    target = saved_facts(tmp_path / "out" / "predictor.safetensors")["facts"]["target"]
    assert (target["column"], target["unit"], target["sources"]) == ("local_latency_ms", "ms", [])
    assert (target["input_shape"], target["classes"]) == ([1, 8, 8], 10)
    assert target["device"]["options"] == {**Device().options, "affinity": None}
    assert target["device"]["identity"] == Device().identity
    refused = fit(tmp_path / "other", *given, "samples=8", "task.size=16", code=2)
    assert "classes 10, but task 'digits_16' has input_shape [1, 16, 16]" in refused
