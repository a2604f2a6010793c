from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from devices import Device, Job, Outcome
from nasflow.collection import Collection, alone
from nasflow.tabulation import distinct
from nasflow.tasks import Digits
from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError, DeviceError, StudyError
from searchspaces.nb201 import NB201

SPACE = NB201(scale="small")
PLAN = {"rounds": 2, "runs_per_round": 2, "restarts": 1}


@pytest.fixture(autouse=True)
def lock_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NASFLOW_LOCK", str(tmp_path / "machine.lock"))


class Picky(Device):
    """Refuses the networks in `broken`, by cutting their models short."""

    broken: frozenset[str] = frozenset()

    def prepare(self, network, weights=None, images=None):  # type: ignore[no-untyped-def]
        model = super().prepare(network, weights, images)
        return model[: len(model) // 2] if network.name in self.broken else model


class Elsewhere(Device):
    """A device whose machine is said to be another one."""

    processor = "another"

    @property
    def machine(self) -> dict[str, str]:
        return super().machine | {"processor": self.processor}


def archs(n: int) -> ArchBatch:
    return distinct(SPACE, n, np.random.default_rng(0))


def opened(folder: Path, *devices: Device, **arguments: object) -> Collection:
    return Collection(folder, SPACE, Digits(), devices or (Device(**PLAN),), {"a": 1}, **arguments)  # type: ignore[arg-type]


def test_refused_models_are_told_and_tried_again(tmp_path: Path) -> None:
    device = Picky(**PLAN)
    names = [SPACE.network(row, Digits()).name for row in archs(6).rows]
    device.broken = frozenset(names[1:3])
    opened(tmp_path, device).run(archs(6))
    collection = opened(tmp_path, device)
    assert len(collection.failures()) == 2
    assert all(" on local: ONNX Runtime" in line and line.startswith("|") for line in collection.failures())
    table, details = collection.table({})
    assert np.isnan(table.column("local_latency_ms")).tolist() == [f in archs(6).rows[1:3].tolist() for f in
                                                                   table.archs.rows.tolist()]
    assert sum(job is None for job in details["local.job"]) == 2
    assert table.provenance["devices"]["local"]["missing"] == 2
    device.broken = frozenset()
    assert len(collection.missing(archs(6), "local")) == 2
    collection.run(archs(6))
    assert not collection.failures()
    assert not np.isnan(opened(tmp_path, device).table({})[0].column("local_latency_ms")).any()


def test_too_many_refused_models_end_it(tmp_path: Path) -> None:
    device = Picky(**PLAN)
    device.broken = frozenset(SPACE.network(row, Digits()).name for row in archs(60).rows)
    collection = opened(tmp_path, device)
    with pytest.raises(StudyError, match=r"(\d+) of \1 evaluations failed, more than max_failure_rate=0.5 .* refuses"):
        collection.run(archs(60))
    assert 20 <= len(collection.failures()) < 60
    with pytest.raises(StudyError, match="No model was measured"):
        collection.table({})
    other = opened(tmp_path / "other", device, max_failure_rate=1.0)
    other.run(archs(24))
    assert len(other.failures()) == 24


def test_rows_of_one_class_are_measured_once(tmp_path: Path) -> None:
    rows = SPACE.from_index(range(30))
    collection = opened(tmp_path)
    collection.run(ArchBatch(SPACE, rows))
    assert len(collection.entries("local")) == len(set(SPACE.keys(rows))) < 30
    assert not len(collection.missing(ArchBatch(SPACE, rows), "local"))


def test_another_runner_takes_the_same_jobs(tmp_path: Path) -> None:
    """What measures elsewhere gets jobs and may yield their outcomes in any order, or lose its connection."""

    def runner(device: Device, jobs: Sequence[Job], rng: np.random.Generator, state: Path, residents: int
               ) -> Iterator[list[Outcome]]:
        for i, job in enumerate(reversed(jobs)):
            if i == 3:
                raise DeviceError("The connection was lost.")
            assert job.prepare().startswith(b"\x08")
            record = {"latency_ms": 1.0 + sum(job.key), "job": device.job(job.prepare())}
            yield [Outcome(job.key, SimpleNamespace(record=lambda record=record: record))]  # type: ignore[arg-type]

    told: list[tuple[int, int]] = []
    for expected in (3, 6):
        collection = opened(tmp_path)
        with pytest.raises(DeviceError, match="connection"):
            collection.run(archs(7), runner=runner, report=lambda *count: told.append(count))
        assert len(collection.entries("local")) == expected
    assert told == [(i, 7) for i in range(1, 7)]
    entries = opened(tmp_path).entries("local")
    assert all(entry["measurement"]["latency_ms"] == 1.0 + sum(entry["row"]) for entry in entries)


def test_devices_of_one_folder_differ(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="share the name 'local'"):
        opened(tmp_path, Device(), Device(threads=1, batch=2))
    with pytest.raises(ConfigError, match="'a' and 'b' have the same options"):
        opened(tmp_path, Device("a"), Device("b", rounds=3))
    opened(tmp_path, Device("a", **PLAN)).run(archs(1))
    with pytest.raises(ConfigError, match="'a' and 'c' have the same options"):
        opened(tmp_path, Device("c"))
    opened(tmp_path, Device("c", batch=2))


def test_each_device_stays_on_its_machine(tmp_path: Path) -> None:
    here, there = Device(**PLAN), Elsewhere("there", **PLAN)
    assert here.identity != there.identity
    for device in (here, there):
        opened(tmp_path / device.name, device).run(archs(1))
    table = opened(tmp_path / "there", there).table({})[0]
    assert table.columns["there_latency_ms"].provenance.startswith("device there: another, ONNX Runtime")
    assert table.provenance["devices"]["there"]["machine"]["processor"] == "another"
    opened(tmp_path / "local", here, there)
    there.processor = "a third"
    with pytest.raises(StudyError, match=r'there\.machine\.processor: was "another", is now "a third"'):
        opened(tmp_path / "there", there)


def test_one_collection_at_a_time(tmp_path: Path) -> None:
    with alone(tmp_path), pytest.raises(StudyError, match="Another process collects"), alone(tmp_path):
        pass
    with alone(tmp_path):
        pass
