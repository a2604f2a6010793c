"""What a network costs to run."""

from devices.anchor import anchor_networks
from devices.device import Device
from devices.environment import environment
from devices.lock import exclusive, heavy_work, lock_path
from devices.measurement import Measurement
from devices.protocol import Estimate, Plan, Rounds, collect, estimate, trimmed_mean
from devices.quantize import quantize
from devices.references import References
from devices.session import SessionConfig

__all__ = [
    "Device",
    "Estimate",
    "Measurement",
    "Plan",
    "References",
    "Rounds",
    "SessionConfig",
    "anchor_networks",
    "collect",
    "environment",
    "estimate",
    "exclusive",
    "heavy_work",
    "lock_path",
    "quantize",
    "trimmed_mean",
]
