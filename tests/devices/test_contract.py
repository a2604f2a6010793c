"""Every device of `conf/device` goes through the contract."""

import pytest

from devices import Device
from nasflow.config import composed, instantiate
from nasflow.testing import DeviceContract
from tests.registry import leaves


@pytest.mark.parametrize("name", leaves("device"))
class TestDevice(DeviceContract):
    @pytest.fixture
    def device(self, name: str) -> Device:
        device = instantiate(composed("search", [f"device={name}"]).device)
        assert isinstance(device, Device)
        return device
