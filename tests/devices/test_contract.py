"""Every device of `conf/device` goes through the contract; `ssh`, which needs a host, does so in the system tier."""

import pytest

from devices import Device
from nasflow.config import composed, instantiate
from nasflow.testing import DeviceContract
from tests.registry import leaves


@pytest.mark.parametrize("name", [name for name in leaves("device") if name != "ssh"])
class TestDevice(DeviceContract):
    @pytest.fixture
    def device(self, name: str) -> Device:
        device = instantiate(composed("search", [f"device={name}"]).device)
        assert isinstance(device, Device)
        return device
