"""Models that wait in a folder to be measured, and what came of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from devices.jobs import Key
from searchspaces.errors import DeviceError
from searchspaces.files import locked, write_bytes
from searchspaces.jsonlines import JsonLines

JOBS, RESULTS, MODELS, LOCK = "jobs.jsonl", "results.jsonl", "models", "queue.lock"


class Tail:
    """Reads the whole lines that a growing file has gained.

    Args:
        path: The file; it may not be there yet.
        offset: Byte at which to begin, the start of a line.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        self.path, self.offset = path, offset

    def read(self, limit: int = -1) -> bytes:
        """Return the lines since the last call; of more than `limit` bytes, the first ones, but one at least.

        A line that is still being written, or was torn by a power cut, is left for later: it has no end yet.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                data = file.read(limit)
                if limit >= 0 and b"\n" not in data:
                    data += file.readline()
        except FileNotFoundError:
            return b""
        data = data[: data.rfind(b"\n") + 1]
        self.offset += len(data)
        return data


class JobQueue:
    """Jobs of one device, each with a model and a ticket; a key whose job failed may come again under a new one.

    Args:
        folder: Where all of it stands, so that any process can go on.

    Attributes:
        open: Jobs without a result by ticket, the oldest first: keys, and SHA-256 and bytes of the models.
        finished: Number of results.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.open: dict[str, tuple[Key, str, int]] = {}
        self.finished = 0
        self._measured: set[Key] = set()
        self._tickets = 0
        self._jobs, self._results = Tail(folder / JOBS), Tail(folder / RESULTS)
        self.refresh()

    @property
    def end(self) -> int:
        """Byte up to which results were taken in."""
        return self._results.offset

    def refresh(self) -> None:
        """Take in what others have written.

        Raises:
            DeviceError: If a line is damaged.
        """
        results = self._results.read()  # first, so that the job of each is among those read after it
        try:
            for line in self._jobs.read().splitlines():
                entry = json.loads(line)
                self.open[entry["ticket"]] = (tuple(entry["key"]), entry["model"], entry["bytes"])
                self._tickets += 1
            for line in results.splitlines():
                entry = json.loads(line)
                self.open.pop(entry["ticket"], None)
                self.finished += 1
                if "measurement" in entry:
                    self._measured.add(tuple(entry["key"]))
        except (ValueError, KeyError, TypeError) as error:
            raise DeviceError(
                f"Jobs or results in {self.folder} are damaged: {error!r}. Remove that folder; what was not fetched "
                "from it yet is then measured again."
            ) from error

    def submit(self, keys: Sequence[Key], models: Sequence[bytes]) -> None:
        """Add jobs, all or none; those that wait already or are measured are left out."""
        with locked(self.folder / LOCK):
            self.refresh()
            known = self._measured | {key for key, _, _ in self.open.values()}
            entries: list[dict[str, Any]] = []
            for key, model in zip(keys, models, strict=True):
                if key in known:
                    continue
                name = sha256(model).hexdigest()
                write_bytes(self._path(name), model)
                ticket = str(self._tickets + len(entries))
                entries.append({"ticket": ticket, "key": key, "model": name, "bytes": len(model)})
            if entries:
                JsonLines(self.folder / JOBS).append(entries)
            self.refresh()

    def model(self, name: str) -> bytes:
        """Return a job's model.

        Raises:
            DeviceError: If it was damaged.
        """
        try:
            data = self._path(name).read_bytes()
        except OSError as error:
            raise DeviceError(f"The model {name[:12]} cannot be read on the device: {error.strerror}.") from error
        if sha256(data).hexdigest() != name:
            raise DeviceError(f"The model {name[:12]} was damaged on the device. Its next transfer replaces it.")
        return data

    def finish(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Add results, which are on the disk on return, and remove the models that nothing needs any more."""
        JsonLines(self.folder / RESULTS).append(dict(entry) for entry in entries)
        with locked(self.folder / LOCK):  # nobody is between writing a model and writing its job
            self.refresh()
            needed = {name for _, name, _ in self.open.values()}
            for path in (self.folder / MODELS).glob("*.onnx"):
                if path.stem not in needed:
                    path.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self.folder / MODELS / f"{name}.onnx"
