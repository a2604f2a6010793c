"""What a measurement ran on."""

import os
import platform
from functools import lru_cache
from pathlib import Path
from typing import Any

import onnxruntime

_CPUFREQ = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_BOARD = Path("/proc/device-tree/model")


@lru_cache(maxsize=1)
def machine() -> dict[str, str]:
    """Return what makes latencies comparable: processor and ONNX Runtime version."""
    return {"processor": _processor(), "onnxruntime": onnxruntime.__version__}


def environment() -> dict[str, Any]:
    """Return machine, system, governor (None where the system has none) and the present load, JSON-able."""
    return machine() | {
        "system": platform.platform(),
        "cores": cores(),
        "governor": _read(_CPUFREQ),
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


def cores() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    for line in (_read(Path("/proc/cpuinfo")) or "").splitlines():
        if line.lower().startswith(("model name", "hardware")):
            return line.partition(":")[2].strip()
    return _read(_BOARD) or platform.processor() or platform.machine()


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip("\0\n ")
    except OSError:
        return None
