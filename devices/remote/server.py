"""What answers a link on the other machine.

Requests are a line of JSON each, with as many bytes after it as it says, and so are the replies. Nothing that is
measured depends on them: this takes jobs in, starts the process that measures, and hands results out.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from shutil import disk_usage
from typing import Any, BinaryIO

import numpy as np

from devices.environment import environment, machine
from devices.remote.queue import RESULTS, JobQueue, Tail
from devices.remote.worker import FAULT, REFERENCES, SPEC, PushedMeter, anchor_path
from devices.session import RefusedModelError
from searchspaces.errors import DeviceError, NasflowError
from searchspaces.files import write_bytes, write_text

MARK = b"nasflow: "
"""Opens the lines by which the runner greets; what a login shell prints before them has no such mark."""

OUTPUT, WORKING = "runner.log", "runner.lock"
_REPLY_BYTES = 4 << 20
_TOLD_BYTES = 1500  # of the output of a runner that died
_ID_FILE = Path("/etc/machine-id")


def serve(base: Path) -> None:
    """Greet, and answer requests until the link ends."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no reply
    _send(replies, MARK + json.dumps({"facts": facts()}).encode() + b"\n")
    server = Server(base)
    for request, payload in _requests(sys.stdin.buffer):
        try:
            reply, data = server.answer(request, payload)
        except RefusedModelError as error:
            reply, data = {"error": str(error), "refused": hashlib.sha256(error.model).hexdigest()}, b""
        except NasflowError as error:
            reply, data = {"error": str(error)}, b""
        except OSError as error:
            reply, data = {"error": f"{error.filename or base}: {error.strerror or error}. Make room, or mend it."}, b""
        except Exception as error:  # whatever it is, it is told there, where somebody sees it
            reply, data = {"error": f"The runner failed with {error!r}. Remove the folder {server.folder}."}, b""
        _send(replies, json.dumps({**reply, "size": len(data)}).encode() + b"\n" + data)


def facts() -> dict[str, Any]:
    """Return what this machine is: kind, identity of the very machine where it has one, and what is installed."""
    number = _text(_ID_FILE).strip()  # not to be told as it is, says its manual page
    unit = hashlib.sha256(f"nasflow:{number}".encode()).hexdigest()[:16] if number else ""
    return {"machine": machine(), "unit": unit, "python": platform.python_version(), "environment": environment()}


def _requests(stream: BinaryIO) -> Iterator[tuple[dict[str, Any], bytes]]:
    for line in stream:
        request = json.loads(line)
        payload = stream.read(request["size"])
        if len(payload) < request["size"]:
            return  # the link was cut
        yield request, payload


def _send(stream: BinaryIO, data: bytes) -> None:
    stream.write(data)
    stream.flush()


class Server:
    """Answers the requests of one link; `open` comes first and names the folder.

    Args:
        base: Holds the folders.

    Attributes:
        folder: The one that was opened.
    """

    def __init__(self, base: Path) -> None:
        self._base = base
        self.folder = base
        self._queue = JobQueue(base)
        self._starts = 0  # of the process that measures, since the last result
        self._told = ""  # what the one before it said last
        self._child: subprocess.Popen[bytes] | None = None

    def answer(self, request: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], bytes]:
        """Do what a request asks for; return the reply and the bytes that go with it."""
        operation = {"open": self._open, "submit": self._submit, "poll": self._poll, "measure": self._measure}
        return operation[request["op"]](request, payload)

    def _open(self, request: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], bytes]:
        """Make a folder ready, or find it so; tell which jobs wait in it and where its results end.

        A new folder needs the anchors' models, which the request brings when it is made again.
        """
        if not re.fullmatch(r"[0-9a-f-]+", request["id"]):
            raise DeviceError(f"{request['id']!r} is no name of a folder of jobs.")
        self.folder = folder = self._base / request["id"]
        anchors = _parts(payload, request["sizes"])
        if not anchors and not (folder / SPEC).exists():
            return {"anchors": False}, b""
        for i, anchor in enumerate(anchors):
            write_bytes(anchor_path(folder, i), anchor)
        write_text(folder / SPEC, json.dumps(request["spec"]))
        if not self._references() and request["references"]:
            write_text(folder / REFERENCES, request["references"])
        if not self._works():
            (folder / FAULT).unlink(missing_ok=True)
        self._queue = JobQueue(folder)
        waiting = [key for key, _, _ in self._queue.open.values()]
        return {"anchors": True, "open": waiting, "end": self._queue.end, "references": self._references()}, b""

    def _submit(self, request: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], bytes]:
        self._queue.submit([tuple(key) for key in request["keys"]], _parts(payload, request["sizes"]))
        return {}, b""

    def _poll(self, request: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], bytes]:
        """Return results from a byte on, and have what waits measured if nobody is at it."""
        fault = None
        if not self._works():
            fault = _text(self.folder / FAULT)
            self._queue.refresh()
            if self._queue.open and not fault:
                self._start()
        self._queue.refresh()  # before results are read: of what is not open, the result is among them
        sizes = [size for _, _, size in self._queue.open.values()]
        data = Tail(self.folder / RESULTS, request["offset"]).read(_REPLY_BYTES)
        if data:
            self._starts = 0
        free = disk_usage(self.folder).free >> 20
        told = f"{self._told} ({free} MB free on its disk)"
        state = {"open": len(sizes), "bytes": sum(sizes), "fault": fault, "starts": self._starts, "told": told}
        return {**state, "references": self._references()}, data

    def _measure(self, request: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], bytes]:
        """Measure models at once, all of them together."""
        models = _parts(payload, request["sizes"])
        own, anchors = models[: request["models"]], models[request["models"] :]
        rng = np.random.default_rng(request["seed"])
        results = PushedMeter(self.folder).measure(own, rng, anchors, self.folder / REFERENCES)
        return {"references": self._references()}, json.dumps([result.record() for result in results]).encode()

    def _references(self) -> str:
        return _text(self.folder / REFERENCES)

    def _works(self) -> bool:
        with (self.folder / WORKING).open("ab") as file:
            return not _try_lock(file)

    def _start(self) -> None:
        """Start the process that measures; it holds the lock by inheriting it, so there is never a second one."""
        self._told = _text(self.folder / OUTPUT)[-_TOLD_BYTES:]
        with (self.folder / WORKING).open("ab") as lock, (self.folder / OUTPUT).open("ab") as output:
            if _try_lock(lock):
                output.truncate(0)
                self._starts += 1
                self._child = subprocess.Popen(
                    [sys.executable, sys.argv[0], "work", str(self.folder)],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=[lock.fileno()],
                    start_new_session=True,
                )


def _try_lock(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _parts(data: bytes, sizes: Sequence[int]) -> list[bytes]:
    ends = np.cumsum(sizes, dtype=np.int64).tolist()
    return [data[end - size : end] for end, size in zip(ends, sizes, strict=True)]


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""
