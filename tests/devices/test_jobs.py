import time

import numpy as np
import pytest

from devices import Device, Job, RefusedModelError, run_jobs
from devices import jobs as jobs_module
from devices.session import SessionConfig, load
from nasflow.testing.devices import chain
from searchspaces.errors import DeviceError, NetworkError

PLAN = {"rounds": 2, "runs_per_round": 2, "restarts": 1}


class Watched(Device):
    """Notes how many models each batch that was measured to the end had."""

    def __init__(self, seconds=0.0, **arguments):
        super().__init__(**PLAN | arguments)
        self.batches, self.seconds = [], seconds

    def measure(self, models, rng, anchors=(), state=None):
        time.sleep(self.seconds)
        results = super().measure(models, rng, anchors, state)
        self.batches.append(len(models))
        return results


def _job(device, width, broken=False):
    def prepare():
        if broken == "network":
            raise NetworkError("This one cannot be built.")
        model = device.prepare(chain(width))
        return model[: len(model) // 2] if broken else model

    return Job((width,), prepare)


def _run(device, jobs, tmp_path, **arguments):
    return list(run_jobs(device, jobs, np.random.default_rng(0), tmp_path / "anchors.json", **arguments))


def test_all_models_are_measured_in_batches_of_bounded_size(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs_module, "_BATCH_SECONDS", 1e9)
    device = Watched()
    batches = _run(device, [_job(device, width) for width in range(1, 24)], tmp_path, residents=10)
    assert [outcome.key for batch in batches for outcome in batch] == [(width,) for width in range(1, 24)]
    assert all(outcome.measurement.latency_ms > 0 for batch in batches for outcome in batch)
    assert device.batches == [8, 10, 5], "the first ones tell how long a model takes"


def test_slow_models_are_measured_fewer_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs_module, "_BATCH_SECONDS", 0.0)
    device = Watched()
    _run(device, [_job(device, width) for width in range(1, 12)], tmp_path)
    assert device.batches == [8, 1, 1, 1]


def test_what_every_batch_costs_anyway_does_not_make_batches_small(tmp_path, monkeypatch):
    """Anchors, and rounds for their sake, take the same time for one model as for many."""
    monkeypatch.setattr(jobs_module, "_BATCH_SECONDS", 0.5)
    device = Watched(seconds=0.6)
    _run(device, [_job(device, width) for width in range(1, 24)], tmp_path, residents=10)
    assert device.batches == [8, 10, 5]


def test_large_models_are_measured_fewer_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs_module, "_BATCH_BYTES", 2000)
    device = Watched()
    batches = _run(device, [_job(device, width) for width in range(1, 7)], tmp_path)
    assert len(batches) > 2
    assert sum(device.batches) == 6


def test_what_cannot_be_built_or_is_refused_does_not_stop_the_others(tmp_path):
    device = Watched()
    faults = {2: "network", 5: True, 6: True}
    batches = _run(device, [_job(device, width, faults.get(width, False)) for width in range(1, 9)], tmp_path)
    outcomes = {outcome.key[0]: outcome for batch in batches for outcome in batch}
    assert sorted(outcomes) == list(range(1, 9))
    assert {width for width, outcome in outcomes.items() if outcome.measurement is None} == set(faults)
    assert outcomes[2].error == "This one cannot be built."
    assert "refuses a file of" in outcomes[5].error
    assert all(not outcomes[width].error for width in (1, 3, 4, 7, 8))


def test_a_batch_of_nothing_but_faults_is_told(tmp_path):
    device = Watched()
    ((outcome,),) = _run(device, [_job(device, 3, "network")], tmp_path)
    assert outcome.measurement is None
    ((outcome,),) = _run(device, [_job(device, 3, True)], tmp_path)
    assert outcome.measurement is None


def test_a_fault_of_the_machine_is_not_blamed_on_models(tmp_path):
    device = Watched(threads=1000)
    with pytest.raises(DeviceError, match="asks for 1000 threads") as caught:
        _run(device, [_job(device, 3)], tmp_path)
    assert not isinstance(caught.value, RefusedModelError)


def test_a_folder_for_temporary_files_that_cannot_be_written_is_not_blamed_on_models(tmp_path, monkeypatch):
    model, config, rng = Device().prepare(chain(2)), SessionConfig(), np.random.default_rng(0)

    class Folder:
        def __init__(self, **_):
            pass

        def __enter__(self):
            return str(tmp_path / "not" / "there")

        def __exit__(self, *_):
            return None

    monkeypatch.setattr("devices.session.TemporaryDirectory", Folder)
    with pytest.raises(DeviceError, match="optimised graph of .* cannot be written") as caught:
        load(model, config, 1, rng, keep=True)
    assert not isinstance(caught.value, RefusedModelError)
    with pytest.raises(RefusedModelError):
        load(model[:100], config, 1, rng, keep=True)
