"""The known times of anchors, kept in a file so that all measurements of a folder are on one scale."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

from searchspaces.errors import DeviceError
from searchspaces.files import write_text


class References:
    """Times in ms by key, of one machine.

    Args:
        machine: What the times hold for, see `devices.environment.machine`.
        path: JSON file that keeps them, written whole or not at all; None keeps them in memory.

    Raises:
        DeviceError: If the file is corrupt or was written on another kind of machine.
    """

    def __init__(self, machine: Mapping[str, str], path: Path | None = None) -> None:
        self._machine = dict(machine)
        self._path = path
        self._times: dict[str, float] = {}
        if path is not None and path.exists():
            self._times = self._read(path)

    def get(self, key: str) -> float | None:
        """Return a known time in ms, or None."""
        return self._times.get(key)

    def add(self, times: Mapping[str, float]) -> None:
        """Keep times in ms for good.

        Raises:
            DeviceError: If the file cannot be written.
        """
        self._times.update(times)
        if self._path is not None and times:
            self._write(self._path)

    def _read(self, path: Path) -> dict[str, float]:
        try:
            content = json.loads(path.read_text())
            machine = {str(key): str(value) for key, value in content["machine"].items()}
            times = {str(key): float(value) for key, value in content["references_ms"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DeviceError(
                f"The anchors' times in {path} cannot be read ({type(error).__name__}: {error}). Restore the file; "
                "without it, latencies measured from now on are on another scale than those measured before."
            ) from error
        if not all(math.isfinite(time) and time > 0 for time in times.values()):
            raise DeviceError(f"The anchors' times in {path} must be positive, but are {times}. Restore the file.")
        if machine != self._machine:
            raise DeviceError(
                f"Latencies measured here do not compare with those measured before: {path} was written on {machine}, "
                f"this machine is {self._machine}. Go on there, or begin in a new folder."
            )
        return times

    def _write(self, path: Path) -> None:
        content = {"machine": self._machine, "references_ms": self._times}
        try:
            write_text(path, json.dumps(content, indent=1))
        except OSError as error:
            raise DeviceError(
                f"The anchors' times cannot be written to {path}: {error.strerror}. Make room or make the folder "
                "writable, then run the same command again."
            ) from error
