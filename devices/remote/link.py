"""A link to the runner: requests and replies over the pipes of a process."""

import json
import os
import selectors
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from devices.remote.bundle import boot_arguments, runner
from devices.remote.server import MARK
from searchspaces.errors import DeviceError

STALLED_S = 90.0
"""Time without a byte after which a link counts as lost."""
_BANNER_BYTES = 1 << 20
_BLOCK = 1 << 16


class LinkLostError(Exception):
    """The link ended or stalled; what was asked for may have been done or not."""


class RefusedError(DeviceError):
    """The runner refuses a model.

    Attributes:
        digest: The model's SHA-256.
    """

    def __init__(self, message: str, digest: str) -> None:
        super().__init__(message)
        self.digest = digest


Explain = Callable[[int | None, str], Exception]
"""Makes of an exit status and of what the process told the error to raise: `LinkLostError`, or one that is final."""


class Link:
    """Starts the runner and talks to it.

    Args:
        where: What to call the other machine.
        command: Starts a program there, given its words.
        python: The Python to run there.
        folder: The runner's folder there.
        explain: See `Explain`.

    Attributes:
        facts: What the other machine is, see `devices.remote.server.facts`.

    Raises:
        LinkLostError: If there is no answer.
        DeviceError: If the runner cannot run there.
    """

    def __init__(
        self, where: str, command: Callable[[Sequence[str]], Sequence[str]], python: str, folder: str, explain: Explain
    ) -> None:
        self._where, self._explain = where, explain
        self._told = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the link)
        try:
            self._process = subprocess.Popen(
                list(command(boot_arguments(python, folder))),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._told,
                bufsize=0,
                start_new_session=True,  # Ctrl-C ends the link in order, from here
            )
        except OSError as error:
            self._told.close()
            text = f"{command([])[0]} cannot be started: {error.strerror}. Install OpenSSH's client."
            raise DeviceError(text) from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._to, False)
        os.set_blocking(self._from, False)
        self._buffer = bytearray()
        try:
            self.facts: dict[str, Any] = self._greet()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the link; what measures there goes on."""
        with suppress(OSError):
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._told):
            if stream is not None:
                with suppress(OSError):
                    stream.close()

    def ask(
        self, op: str, parts: Sequence[bytes] = (), seconds: float | None = None, **request: Any
    ) -> tuple[dict[str, Any], bytes]:
        """Send a request with models, and return the reply with the bytes that go with it.

        Args:
            op: What is asked for, see `devices.remote.server.Server`.
            parts: Bytes that go with the request.
            seconds: How long nothing may come; `STALLED_S` when absent.
            **request: The rest of the request, JSON-able.

        Raises:
            LinkLostError: If the link ends or stalls.
            DeviceError: If the runner says why it cannot be done.
        """
        seconds = STALLED_S if seconds is None else seconds
        sizes = [len(part) for part in parts]
        header = json.dumps({"op": op, "size": sum(sizes), "sizes": sizes, **request}).encode() + b"\n"
        self._write(b"".join([header, *parts]))
        line = self._line(seconds)
        try:
            reply = json.loads(line)
        except ValueError as error:
            raise LinkLostError(f"{self._where} answered {line[:80]!r}, which is no reply.") from error
        if "error" in reply:
            text = f"{self._where}: {reply['error']}"
            raise RefusedError(text, reply["refused"]) if "refused" in reply else DeviceError(text)
        while len(self._buffer) < reply["size"]:
            self._read(seconds)
        return reply, self._cut(reply["size"])

    def _greet(self) -> dict[str, Any]:
        skipped = 0
        while skipped < _BANNER_BYTES:  # what a login shell prints comes first
            line = self._line(STALLED_S)
            skipped += len(line)
            if not line.startswith(MARK):
                continue
            told = json.loads(line[len(MARK) :])
            if "error" in told:
                install = " Install them there, or name the right Python with device.python=PATH." * ("install" in told)
                raise DeviceError(f"{self._where}: {told['error']}.{install}")
            if "facts" in told:
                return dict(told["facts"])
            self._write(runner())
        raise DeviceError(f"{self._where} prints without end at login, so the runner cannot be told from it.")

    # -- bytes ---------------------------------------------------------------------------------------------------------

    def _line(self, seconds: float) -> bytes:
        while (end := self._buffer.find(b"\n")) < 0:
            self._read(seconds)
        return self._cut(end + 1)

    def _cut(self, size: int) -> bytes:
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def _read(self, seconds: float) -> None:
        self._wait(self._from, selectors.EVENT_READ, seconds)
        data = os.read(self._from, _BLOCK)
        if not data:
            raise self._lost()
        self._buffer += data

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            self._wait(self._to, selectors.EVENT_WRITE, STALLED_S)
            try:
                view = view[os.write(self._to, view[:_BLOCK]) :]
            except OSError as error:
                raise self._lost() from error

    def _wait(self, descriptor: int, event: int, seconds: float) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, event)
            if not selector.select(seconds):
                raise LinkLostError(f"{self._where} has not answered for {seconds:g} s.")

    def _lost(self) -> Exception:
        """Return why the process has closed its pipes."""
        deadline = time.monotonic() + 5
        while self._process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        self._told.seek(0)
        return self._explain(self._process.returncode, self._told.read().decode(errors="replace"))
