"""Who is working on a study, and which of them are dead."""

import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4


def _started(pid: int) -> str:
    """Start time of a process in clock ticks since boot; empty where the system does not tell."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _namespace() -> str:
    """What two processes must share for their process numbers to mean the same."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


@dataclass(frozen=True)
class Worker:
    """A process that evaluates trials.

    Attributes:
        host: Its machine's name.
        pid: Its process number.
        started: Its start time, which tells it from a later process of the same number.
        namespace: The boot and process namespace it runs in.
        token: Unique, so that two workers are never taken for one.
    """

    host: str
    pid: int
    started: str
    namespace: str
    token: str

    @classmethod
    def current(cls) -> "Worker":
        """Describe this process."""
        return cls(socket.gethostname(), os.getpid(), _started(os.getpid()), _namespace(), uuid4().hex[:8])

    @classmethod
    def parse(cls, text: str) -> "Worker":
        """Read what `str` writes."""
        host, pid, started, namespace, token = text.split("|")
        return cls(host, int(pid), started, namespace, token)

    def __str__(self) -> str:
        return "|".join((self.host, str(self.pid), self.started, self.namespace, self.token))

    def alive_here(self) -> bool | None:
        """Tell whether the process runs on this machine; None when it cannot be seen from here."""
        if self.host != socket.gethostname() or not self.namespace or self.namespace != _namespace():
            return None
        try:
            state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return False
        return state[19] == self.started and state[0] not in "ZX"


class Liveness:
    """Decides which workers are dead.

    Workers of this machine are looked up among its processes. Those of other machines count as dead when their
    heartbeat has not changed for `lease_s` seconds of this process's clock, so that clocks need not agree.

    Args:
        lease_s: Seconds without a heartbeat after which a worker of another machine is dead.
    """

    def __init__(self, lease_s: float = 300.0) -> None:
        self.lease_s = lease_s
        self._seen: dict[str, tuple[float | None, float]] = {}

    def is_dead(self, worker: str, heartbeat: float | None) -> bool:
        """Tell whether `worker`, whose last heartbeat is `heartbeat`, is dead."""
        try:
            alive = Worker.parse(worker).alive_here()
        except ValueError:
            alive = None
        if alive is not None:
            return not alive
        now = time.monotonic()
        value, since = self._seen.get(worker, (None, now))
        if worker not in self._seen or value != heartbeat:
            self._seen[worker] = (heartbeat, now)
            return False
        return now - since > self.lease_s


class Heartbeat:
    """Calls `beat` every `interval_s` seconds from a thread while the context is open."""

    def __init__(self, beat: Callable[[], None], interval_s: float = 60.0) -> None:
        self._beat = beat
        self._interval = interval_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> "Heartbeat":
        self._beat()
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            self._beat()
