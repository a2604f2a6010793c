"""What a network costs to run."""

from devices.anchor import anchor_networks
from devices.dataset import check_latencies, latency_column, load_latencies
from devices.device import Device
from devices.environment import environment, machine
from devices.jobs import RESIDENTS, Job, Outcome, run_jobs
from devices.lock import exclusive, heavy_work, lock_path
from devices.measurement import Measurement
from devices.protocol import Estimate, Plan, Rounds, collect, estimate, trimmed_mean
from devices.quantize import quantize
from devices.references import References
from devices.remote.device import SshDevice
from devices.session import RefusedModelError, SessionConfig

__all__ = [
    "RESIDENTS",
    "Device",
    "Estimate",
    "Job",
    "Measurement",
    "Outcome",
    "Plan",
    "References",
    "RefusedModelError",
    "Rounds",
    "SessionConfig",
    "SshDevice",
    "anchor_networks",
    "check_latencies",
    "collect",
    "environment",
    "estimate",
    "exclusive",
    "heavy_work",
    "latency_column",
    "load_latencies",
    "lock_path",
    "machine",
    "quantize",
    "run_jobs",
    "trimmed_mean",
]
