import json
import logging
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from onnx import helper
from scipy.stats import kendalltau

from devices import Device, anchor_networks, exclusive, heavy_work, local, trimmed_mean
from devices.protocol import collect
from devices.session import Resident
from nasflow.config import composer, instantiate
from searchspaces.errors import DeviceError
from searchspaces.nb201 import NB201
from searchspaces.network import to_onnx
from searchspaces.task import Task
from tests.devices.test_protocol import Machine

CONF = Path(__file__).parents[2] / "conf" / "device"


def _device(**arguments):
    return Device(**{"rounds": 3, "runs_per_round": 3, "restarts": 2} | arguments)


OPTIMISED = helper.make_model(
    helper.make_graph([helper.make_node("Conv", [], [])], "optimised", [], [])
).SerializeToString()


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def cells():
    """Ten small cells, from the one with the fewest multiplications to the one with the most."""
    space, task = NB201("small"), Task("images", (1, 8, 8), 10)
    networks = [space.network(row, task) for row in space.sample(200, np.random.default_rng(0))]
    networks.sort(key=lambda network: network.macs)
    return [networks[i] for i in np.linspace(0, 199, 10).astype(int)]


@pytest.fixture
def simulated(monkeypatch):
    """Models by graph name take as many ms as the name says; the speed is set by the test."""
    machine = Machine()

    def load(model, config, batch, rng, keep=False, optimised=None):
        ms = 2.0 if model == b"anchor" else float(model)
        return Resident(machine.model(str(model), ms), OPTIMISED if keep else optimised)

    monkeypatch.setattr(local, "load", load)
    monkeypatch.setattr(local, "collect", partial(collect, clock=machine.clock))
    monkeypatch.setattr(Device, "_anchors", [b"anchor"])
    return machine


def test_a_measurement_says_what_was_measured_and_how(network, rng):
    device = _device()
    model = device.prepare(network)
    (result,) = device.measure([model], rng)
    assert 0 < result.latency_ms < 1000
    assert result.std_ms >= 0
    assert result.samples_ms.shape == (6, 3)
    assert result.anchor_ms.shape == (6,)
    assert result.reference_ms > 0
    normal = result.samples_ms / result.anchor_ms[:, None] * result.reference_ms
    assert result.latency_ms == pytest.approx(trimmed_mean(normal))
    assert sum(count for op, count in result.operators.items() if op.endswith("Conv")) == 2
    assert result.job == device.job(model)
    expected = {"processor", "onnxruntime", "governor", "load_average", "cores", "threads", "affinity", "provider"}
    assert result.environment.keys() >= expected | {"optimisation", "batch", "precision", "protocol"}


def test_the_record_is_json_and_keeps_every_sample(network, rng):
    device = _device()
    (result,) = device.measure([device.prepare(network)], rng)
    record = json.loads(json.dumps(result.record(), allow_nan=False))
    np.testing.assert_allclose(record["samples_ms"], result.samples_ms, atol=1e-4)
    assert record["latency_ms"] == result.latency_ms
    assert record["environment"]["threads"] == 1


def test_two_measurements_agree_on_the_order(cells, rng, tmp_path):
    device = Device()
    models = [device.prepare(network) for network in cells]
    state = tmp_path / "anchors.json"
    first, second = (np.array([r.latency_ms for r in device.measure(models, rng, state=state)]) for _ in range(2))
    assert kendalltau(first, second).statistic > 0.6
    assert kendalltau(first, [network.macs for network in cells]).statistic > 0.4


def test_models_measured_one_at_a_time_compare_with_models_measured_together(cells, rng, tmp_path):
    models = [Device().prepare(cells[i]) for i in (0, 9)]
    state = tmp_path / "anchors.json"
    together = [r.latency_ms for r in Device().measure(models, rng, state=state)]
    alone = [Device().measure([model], rng, state=state)[0].latency_ms for model in models]
    np.testing.assert_allclose(alone, together, rtol=0.5)
    assert alone[0] < alone[1]


def test_a_machine_that_became_slower_gives_the_same_latency(simulated, rng, tmp_path):
    state = tmp_path / "anchors.json"
    (before,) = _device().measure([b"3.0"], rng, state=state)
    simulated.slowdown = lambda now: 1.7
    (resumed,) = _device().measure([b"3.0"], rng, state=state)
    (anew,) = _device().measure([b"3.0"], rng)
    assert before.latency_ms == pytest.approx(3.0)
    assert resumed.latency_ms == pytest.approx(3.0)
    assert resumed.samples_ms == pytest.approx(np.full((6, 3), 5.1))
    assert resumed.reference_ms == before.reference_ms == pytest.approx(2.0)
    assert anew.latency_ms == pytest.approx(5.1)


def test_figures_of_a_second_folder_compare_with_those_of_the_first(simulated, rng, tmp_path):
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    assert _device().known_times(first) == {}
    _device().measure([b"3.0"], rng, state=first)
    times = _device().known_times(first)
    assert list(times.values()) == pytest.approx([2.0]), "there is one simulated anchor"
    simulated.slowdown = lambda now: 1.7
    _device().adopt(times, second)
    assert _device().known_times(second) == times
    assert _device().measure([b"3.0"], rng, state=second)[0].latency_ms == pytest.approx(3.0)
    own = tmp_path / "own.json"
    _device().measure([b"3.0"], rng, state=own)
    _device().adopt(times, own)
    assert _device().measure([b"3.0"], rng, state=own)[0].latency_ms == pytest.approx(5.1), "it has times of its own"
    _device(batch=2).adopt(times, tmp_path / "other.json")
    assert _device(batch=2).known_times(tmp_path / "other.json") == {}, "they are of another device"


def test_without_a_state_one_object_stays_on_one_scale(simulated, rng):
    device = _device()
    device.measure([b"3.0"], rng)
    simulated.slowdown = lambda now: 1.7
    assert device.measure([b"3.0"], rng)[0].latency_ms == pytest.approx(3.0)


def test_given_anchors_are_measured_along_once_and_normalise_from_then_on(simulated, rng, tmp_path, monkeypatch):
    state = tmp_path / "anchors.json"
    device = _device()
    simulated.log.clear()
    assert len(device.measure([b"3.0"], rng, anchors=[b"8.0", b"8.0"], state=state)) == 1
    assert json.loads(state.read_text())["references_ms"][device.job(b"8.0")] == pytest.approx(8.0)
    # From now on the anchor of 2 ms, at its speed, and that of 8 ms, slower by 1.21, share in the pace of 4 ms.
    slow = simulated.model("slow", 8.0 * 1.21)
    load = local.load

    def load_slower(model, *rest, **named):
        return Resident(slow, OPTIMISED) if model == b"8.0" else load(model, *rest, **named)

    monkeypatch.setattr(local, "load", load_slower)
    (result,) = device.measure([b"4.0"], rng, anchors=[b"8.0"], state=state)
    assert result.latency_ms == pytest.approx(4.0 / 1.1)
    assert result.anchor_ms == pytest.approx(np.full(6, 2.2))


def test_devices_that_share_a_state_have_anchors_of_their_own(network, rng, tmp_path):
    state = tmp_path / "anchors.json"
    for device in (_device(), _device(optimisation="disabled"), _device(), _device(name="other")):
        device.measure([device.prepare(network)], rng, state=state)
    assert len(json.loads(state.read_text())["references_ms"]) == 2 * len(anchor_networks())


def test_drift_that_does_not_end_is_flagged_and_logged(simulated, rng, caplog):
    simulated.slowdown = lambda now: 1 + int(now / 11) * 7919 % 10 / 5
    with caplog.at_level(logging.WARNING):
        (result,) = _device(rounds=6).measure([b"3.0"], rng)
    assert result.drifted > 0
    assert result.redone > 0
    assert "speed changed" in caplog.text


def test_jobs_are_identified_by_model_and_session_not_by_name_or_form(network):
    model = to_onnx(network)
    device = _device()
    job = device.job(model)
    assert job == device.job(model.SerializeToString(deterministic=True)) == _device(name="other", rounds=5).job(model)
    others = [_device(threads=2), _device(optimisation="basic"), _device(affinity=[0])]
    model.graph.node[0].name = "changed"
    assert len({job, device.job(model), *(other.job(to_onnx(network)) for other in others)}) == 5


def test_batches_and_precision_are_those_of_the_device(network, rng):
    for device in (_device(batch=4), _device(precision="int8")):
        (result,) = device.measure([device.prepare(network)], rng)
        integer = any("QLinearConv" in op for op in result.operators)
        assert integer == (device.precision == "int8")
    assert device.prepare(network) == _device(precision="int8").prepare(network)


def test_models_lowered_for_another_device_are_refused(network, rng):
    with pytest.raises(DeviceError, match=r"batch 4: build the model with Device\.prepare"):
        _device(batch=4).measure([_device().prepare(network)], rng)
    with pytest.raises(DeviceError, match="measures at int8, but model 'tiny' runs as"):
        _device(precision="int8").measure([_device().prepare(network)], rng)
    with pytest.raises(DeviceError, match="measures at fp32, but model 'tiny' runs as"):
        _device().measure([_device(precision="int8").prepare(network)], rng)


def test_a_refused_model_frees_the_machine(network, rng):
    with pytest.raises(DeviceError, match="no ONNX model"):
        _device().measure([_device().prepare(network), b"junk"], rng)
    with heavy_work(timeout_s=0.0):
        pass


def test_measuring_is_exclusive(network, rng):
    device = _device()
    model = device.prepare(network)
    with heavy_work(), pytest.raises(DeviceError, match="heavy_work"):
        device.measure([model], rng)
    with exclusive():
        assert len(device.measure([model], rng)) == 1
    assert device.measure([], rng) == []


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot pin")
def test_affinity_holds_while_measuring_and_ends_after(network, rng, monkeypatch):
    before = os.sched_getaffinity(0)
    chosen = max(before)
    seen = []

    def watched(*arguments):
        seen.append(os.sched_getaffinity(0))
        return collect(*arguments)

    monkeypatch.setattr(local, "collect", watched)
    device = _device(affinity=[chosen])
    (result,) = device.measure([device.prepare(network)], rng)
    assert all(processors == {chosen} for processors in seen)
    assert os.sched_getaffinity(0) == before
    assert result.environment["affinity"] == [chosen]
    with pytest.raises(DeviceError, match="may use"):
        _device(affinity=[10_000]).measure([device.prepare(network)], rng)
    with pytest.raises(DeviceError, match="asks for 2 threads, but may use 1"):
        _device(affinity=[chosen], threads=2).measure([device.prepare(network)], rng)


def test_more_threads_than_processors_are_refused(network, rng):
    with pytest.raises(DeviceError, match="asks for 4096 threads"):
        _device(threads=4096).measure([_device().prepare(network)], rng)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"provider": "CPUExecutionProvidr"}, "Did you mean 'CPUExecutionProvider'"),
        ({"precision": "int4"}, "fp32, int8"),
        ({"batch": 0}, "batch=0"),
        ({"provider": "NPUExecutionProvider"}, "CPUExecutionProvider"),
        ({"rounds": 0}, "rounds=0"),
    ],
)
def test_wrong_arguments_are_refused(wrong, message):
    with pytest.raises(DeviceError, match=message):
        Device(**wrong)


def test_the_anchors_are_the_same_networks_in_every_run():
    # Latencies recorded with one anchor do not compare with those of another: a change needs a new VERSION.
    facts = [(network.name, network.macs, network.params, len(network.nodes)) for network in anchor_networks()]
    assert facts == [
        ("anchor2_large", 23356032, 181034, 72),
        ("anchor2_middle", 245840, 4122, 64),
        ("anchor2_small", 20520, 402, 24),
    ]


@pytest.mark.parametrize("name", sorted(path.stem for path in CONF.glob("*.yaml")))
def test_configurations_build_devices(name):
    assert (CONF / f"{name}.yaml").read_text().startswith(f"# nasflow search device={name}")
    with composer():
        from hydra import compose

        config = compose(f"device/{name}", ["device.host=pi"] if name == "ssh" else []).device
    device = instantiate(config)
    assert isinstance(device, Device)
    assert device.name == name


def test_a_device_is_known_again_under_another_name():
    options = [{}, {"name": "other"}, {"threads": 2}, {"batch": 2}, {"precision": "int8"}, {"optimisation": "basic"}]
    first, same, *others = (Device(**arguments).identity for arguments in options)
    assert first == same
    assert len({first, *others}) == 5


def test_seconds_are_those_in_which_models_and_anchors_ran(simulated, rng, tmp_path):
    state = tmp_path / "anchors.json"
    before = simulated.now
    (first,) = _device().measure([b"3.0"], rng, state=state)
    assert first.batch_seconds == pytest.approx((simulated.now - before) / 1e3), "the anchors' first measuring as well"
    before = simulated.now
    (second,) = _device().measure([b"3.0"], rng, state=state)
    assert 0 < second.batch_seconds < first.batch_seconds
    assert second.batch_seconds == pytest.approx((simulated.now - before) / 1e3)
