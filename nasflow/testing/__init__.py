"""Contracts that plug-in authors inherit tests from; pytest is needed to import this package."""

from nasflow.testing.networks import calibrated_weights, counted, outputs
from nasflow.testing.spaces import SpaceContract

__all__ = ["SpaceContract", "calibrated_weights", "counted", "outputs"]
