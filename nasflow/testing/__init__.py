"""Contracts that plug-in authors inherit tests from; pytest is needed to import this package."""

from nasflow.testing.devices import DeviceContract
from nasflow.testing.networks import calibrated_weights, counted, outputs
from nasflow.testing.predictors import PredictorContract
from nasflow.testing.proxies import ProxyContract
from nasflow.testing.spaces import SpaceContract
from nasflow.testing.strategies import StrategyContract

__all__ = [
    "DeviceContract",
    "PredictorContract",
    "ProxyContract",
    "SpaceContract",
    "StrategyContract",
    "calibrated_weights",
    "counted",
    "outputs",
]
