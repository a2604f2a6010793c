"""Every proxy of `conf/proxy` goes through the contract."""

from importlib.resources import files

import pytest
from omegaconf import OmegaConf

from nasflow.config import instantiate
from nasflow.testing import ProxyContract
from proxies import Proxy
from tests.registry import leaves


@pytest.mark.parametrize("name", leaves("proxy"))
class TestProxy(ProxyContract):
    @pytest.fixture
    def proxy(self, name: str) -> Proxy:
        config = OmegaConf.create(files("nasflow.conf").joinpath("proxy", f"{name}.yaml").read_text())
        proxy = instantiate(config)[name]
        assert isinstance(proxy, Proxy)
        return proxy
