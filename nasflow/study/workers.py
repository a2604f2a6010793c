"""Who is working on a study, and which of them are dead."""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

logger = logging.getLogger(__name__)

_at_work: set[str] = set()  # tokens of the workers of this process


def _status(pid: int) -> tuple[str, str]:
    """State and start time (in clock ticks since boot) of a process.

    Raises:
        OSError: If there is no such process, or it cannot be seen.
    """
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return fields[0], fields[19]


def _namespace() -> str:
    """What two processes must share for their process numbers to mean the same; empty where that is not known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _boot_time() -> float:
    """When this machine was started, in seconds since the epoch."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True)
class Worker:
    """One run of a process that evaluates trials.

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
        namespace = _namespace()
        started = _status(os.getpid())[1] if namespace else ""
        return cls(socket.gethostname(), os.getpid(), started, namespace, uuid4().hex[:8])

    @classmethod
    def parse(cls, text: str) -> "Worker":
        """Read what `str` writes.

        Raises:
            ValueError: If the text is nothing of that kind.
        """
        host, pid, started, namespace, token = text.split("|")
        return cls(host, int(pid), started, namespace, token)

    def __str__(self) -> str:
        return "|".join((self.host, str(self.pid), self.started, self.namespace, self.token))

    def ended_by_reboot(self, heartbeat: float | None) -> bool:
        """Tell whether this machine was started anew since the worker's last heartbeat, in seconds since the epoch.

        A machine that only shares this one's name is told by workers that have shown a sign of life since then.
        """
        here, boot = _namespace().partition("/")[0], self.namespace.partition("/")[0]
        if self.host != socket.gethostname() or not here or not boot or boot == here:
            return False
        return heartbeat is None or heartbeat < _boot_time()

    def alive_here(self) -> bool | None:
        """Tell whether the worker runs on this machine; None when that cannot be seen from here."""
        if not self.namespace or self.namespace != _namespace():
            return None
        if self.pid == os.getpid() and self.started == _status(self.pid)[1]:
            return self.token in _at_work
        try:
            state, started = _status(self.pid)
            return started == self.started and state not in "ZX"
        except OSError:
            return None if _exists(self.pid) else False


def _exists(pid: int) -> bool:
    """Tell of a process that cannot be looked at (another user's, where /proc is hidden) whether it is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class Liveness:
    """Decides which workers are dead.

    Workers of this machine are looked up among its processes; none outlives its restart. Those of other machines count
    as dead when their heartbeat has not changed for `lease_s` seconds of this process's clock, so that clocks need not
    agree.

    Args:
        lease_s: Seconds without a heartbeat after which a worker of another machine is dead.
        clock: Gives the time in seconds; never runs backwards.
    """

    def __init__(self, lease_s: float = 300.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.lease_s = lease_s
        self._clock = clock
        self._seen: dict[str, tuple[float | None, float]] = {}

    def is_dead(self, worker: str, heartbeat: float | None) -> bool:
        """Tell whether `worker`, whose last heartbeat is `heartbeat`, is dead."""
        try:
            known = Worker.parse(worker)
            alive = False if known.ended_by_reboot(heartbeat) else known.alive_here()
        except ValueError:  # not written by this version: all that is known of it is its heartbeat
            alive = None
        if alive is not None:
            return not alive
        now = self._clock()
        value, since = self._seen.get(worker, (None, now))
        if worker not in self._seen or value != heartbeat:
            self._seen[worker] = (heartbeat, now)
            return False
        return now - since > self.lease_s


class Heartbeat:
    """Shows that a worker is alive while the context is open: here at once, elsewhere by a repeated call.

    Args:
        worker: The worker.
        beat: Called with the worker's text when the context opens, then every `interval_s` seconds from a thread.
        interval_s: Seconds between calls; a lease should allow for several.
    """

    def __init__(self, worker: Worker, beat: Callable[[str], None], interval_s: float = 60.0) -> None:
        self._worker = worker
        self._beat = beat
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> "Heartbeat":
        self._beat(str(self._worker))
        _at_work.add(self._worker.token)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        _at_work.discard(self._worker.token)
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            try:
                self._beat(str(self._worker))
            except Exception as error:  # a later beat may reach the storage again; if none does, the run itself stops
                logger.warning("This worker could not show that it is alive: %s", error)
