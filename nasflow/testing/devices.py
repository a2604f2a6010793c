"""The contract of devices, as tests to inherit.

Example:
    >>> class TestMyDevice(DeviceContract):
    ...     @pytest.fixture
    ...     def device(self):
    ...         return Device(name="board", threads=4)
"""

from pathlib import Path

import numpy as np
import pytest

from devices import Device
from searchspaces.errors import DeviceError
from searchspaces.network import INPUT, Network, NetworkBuilder


def chain(width: int, layers: int = 3) -> Network:
    """Return a chain of convolutions on images of 16 × 16; wider ones take longer."""
    builder = NetworkBuilder(f"chain{width}", (3, 16, 16))
    x = INPUT
    for _ in range(layers):
        x = builder.conv_bn(x, width, 3)
    return builder.build(builder.classifier(x, 10))


class DeviceContract:
    """What every device must fulfil; a subclass gives the fixture `device`."""

    @pytest.fixture
    def device(self) -> Device:
        """The device under test."""
        raise NotImplementedError("A subclass of DeviceContract gives the fixture `device`.")

    def test_larger_networks_take_longer(self, device: Device, tmp_path: Path) -> None:
        """Networks whose work differs by far are ranked by it, with raw samples and spread."""
        models = [device.prepare(chain(width)) for width in (4, 32, 128)]
        results = device.measure(models, np.random.default_rng(0), state=tmp_path / "anchors.json")
        latencies = [result.latency_ms for result in results]
        assert latencies == sorted(latencies)
        assert latencies[0] > 0
        for result in results:
            assert result.samples_ms.shape[0] == result.anchor_ms.shape[0]
            assert result.std_ms >= 0
            assert sum(result.operators.values()) > 0

    def test_figures_carry_over_between_calls(self, device: Device, tmp_path: Path) -> None:
        """A model measured again, against the same anchors, has about the same latency."""
        model, state = device.prepare(chain(64)), tmp_path / "anchors.json"
        first, second = (
            device.measure([model], np.random.default_rng(seed), state=state)[0].latency_ms for seed in (0, 1)
        )
        assert 0.6 < first / second < 1.7

    def test_jobs_are_identified_by_what_is_measured(self, device: Device) -> None:
        """The same model is the same job, another one is another."""
        first, second = (device.prepare(chain(width)) for width in (4, 8))
        assert device.job(first) == device.job(first) != device.job(second)

    def test_refused_models_are_explained(self, device: Device) -> None:
        """What is no model raises an error of one paragraph."""
        with pytest.raises(DeviceError, match=r"\w+ \w+ \w+"):
            device.measure([b"no model"], np.random.default_rng(0))
