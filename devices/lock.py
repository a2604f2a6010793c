"""One lock for the whole machine: measuring holds it alone, training and other heavy work share it.

    with heavy_work():   # one epoch of training
        ...
    with exclusive():    # one measurement
        ...

A measurement waits until all heavy work that has begun is through, so heavy work must hold the lock for short
stretches: once per epoch, or per chunk of a long epoch, not around a whole training. Taking and giving it back costs
microseconds. Nobody is starved: everyone first passes a gate. The one who wants to measure keeps it shut until all
others have left, so workers that train without a pause let it in; and whoever waits for a measurement to end stands
in the gate, so that the next measurement begins after them.

The lock is `flock` on two files, which the kernel releases when their holder dies, by whatever death; a stale lock
cannot exist. Within a thread, taking it again is free when it is held as strongly as asked for (heavy work inside
either, a measurement inside a measurement). To measure inside heavy work raises, for two processes doing so would wait
for each other. Threads of one process are different holders. A forked child works under what the thread that
forked it held, but does not keep it held when that one dies.

The files lie in `/tmp/nasflow-<user>`; the environment variable `NASFLOW_LOCK` names another file, for
instance one that several users of a machine share.
"""

import fcntl
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from searchspaces.errors import DeviceError

logger = logging.getLogger(__name__)

POLL_S = 0.005
_FIRST_NOTICE_S = 1.0
_NEXT_NOTICE_S = 30.0


class _Held(threading.local):
    kind: int | None = None


_held = _Held()
_open_files: set[int] = set()


def lock_path() -> Path:
    """Return the lock's file: `NASFLOW_LOCK`, or one that all processes of this user agree on."""
    chosen = os.environ.get("NASFLOW_LOCK")
    # Not tempfile.gettempdir(): TMPDIR differs between the processes of one machine, the lock must not.
    return Path(chosen) if chosen else Path(f"/tmp/nasflow-{os.getuid()}/machine.lock")  # noqa: S108


@contextmanager
def heavy_work(timeout_s: float = 3600.0) -> Iterator[None]:
    """Hold the machine together with other heavy work; hold it shortly, see the module.

    Args:
        timeout_s: How long to wait for measurements to end.

    Raises:
        DeviceError: If the wait is over, or the lock's file cannot be opened.
    """
    if _held.kind is not None:
        yield
        return
    with _hold(fcntl.LOCK_SH, timeout_s, "a measurement"):
        yield


@contextmanager
def exclusive(timeout_s: float = 600.0) -> Iterator[None]:
    """Hold the machine alone, to measure on it.

    Args:
        timeout_s: How long to wait for heavy work and other measurements to end.

    Raises:
        DeviceError: If the thread is inside `heavy_work`, the wait is over, or the lock's file cannot be opened.
    """
    if _held.kind == fcntl.LOCK_EX:
        yield
        return
    if _held.kind == fcntl.LOCK_SH:
        raise DeviceError(
            "A measurement needs the machine for itself, but was started inside heavy_work(), which it would wait for "
            "forever: leave the heavy_work() block first, then measure."
        )
    with _hold(fcntl.LOCK_EX, timeout_s, "heavy work or another measurement"):
        yield


@contextmanager
def _hold(kind: int, timeout_s: float, others: str) -> Iterator[None]:
    path = lock_path()
    wait = _Wait(path, timeout_s, others)
    with _opened(path) as lock:
        with _opened(path.with_name(f"{path.name}.gate")) as gate:
            _acquire(gate, kind, wait)
            _acquire(lock, kind, wait)
        _held.kind = kind
        try:
            yield
        finally:
            _held.kind = None


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise DeviceError(
            f"The machine's lock {path} cannot be opened: {error.strerror}. Set NASFLOW_LOCK to a file that this user "
            "may write, the same one for all processes on this machine."
        ) from error
    _open_files.add(descriptor)
    try:
        yield descriptor
    finally:
        if descriptor in _open_files:
            _open_files.discard(descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)


def _close_in_child() -> None:
    """Give up a forked child's copies, which would keep the lock held after its parent has died."""
    for descriptor in _open_files:
        os.close(descriptor)
    _open_files.clear()


os.register_at_fork(after_in_child=_close_in_child)


class _Wait:
    """The bounded wait of one holder-to-be, over the gate and the lock."""

    def __init__(self, path: Path, timeout_s: float, others: str) -> None:
        self._path, self._timeout_s, self._others = path, timeout_s, others
        self._start = time.monotonic()
        self._notice = _FIRST_NOTICE_S

    def pause(self) -> None:
        """Sleep a little, say now and then what is waited for, and raise when it takes too long."""
        waited = time.monotonic() - self._start
        if waited >= self._timeout_s:
            raise DeviceError(
                f"Waited {self._timeout_s:g} s for {self._others} on this machine to end. See with `fuser -v "
                f"{self._path}` which processes hold its lock; training must release it between epochs."
            )
        if waited >= self._notice:
            logger.info("Waiting for %s on this machine to end, %.0f s so far (%s)", self._others, waited, self._path)
            self._notice = waited + _NEXT_NOTICE_S
        time.sleep(POLL_S)


def _acquire(descriptor: int, kind: int, wait: _Wait) -> None:
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            wait.pause()
        else:
            return
