"""Where studies are kept: memory, a journal file, a relational database, or a gRPC proxy in front of one.

All are Optuna storages, so that Optuna's dashboard, plots and command line work on nasflow's studies.
"""

import fcntl
import json
import os
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

from searchspaces.errors import ConfigError, StudyError, unknown


class FlockLock:
    """Exclusive lock on a file beside the journal, by `flock`; the system releases it when its holder dies.

    Args:
        path: The file to lock; created when absent.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = -1

    def acquire(self) -> bool:
        """Wait for the lock."""
        self._descriptor = os.open(self._path, os.O_CREAT | os.O_RDWR, 0o666)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        return True

    def release(self) -> None:
        """Give the lock back."""
        os.close(self._descriptor)


class JournalBackend(JournalFileBackend):
    """Optuna's journal file, made to survive a torn last line and a full disk.

    A process that dies while it writes leaves a line without its end. Optuna's backend would glue the next entry onto
    it and fail at every later opening; here every writer first cuts an unterminated tail off, under the lock.

    Args:
        path: The journal file.
        lock: `flock`, or `symlink` for file systems without it (a dead holder then delays others by 30 s).
    """

    def __init__(self, path: str, lock: str = "flock") -> None:
        locks: dict[str, Callable[[], Any]] = {
            "flock": lambda: FlockLock(f"{path}.lock"),
            "symlink": lambda: JournalFileSymlinkLock(path),
        }
        if lock not in locks:
            raise ConfigError(unknown("journal lock", lock, locks))
        super().__init__(path, locks[lock]())

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._lock.acquire()
        try:
            yield
        finally:
            self._lock.release()

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append entries durably: all of them, or none.

        Raises:
            StudyError: If they cannot be written, for instance because the disk is full.
        """
        data = b"".join(json.dumps(log, separators=(",", ":")).encode() + b"\n" for log in logs)
        with self._locked(), Path(self._file_path).open("r+b", buffering=0) as file:
            end = _cut_torn_tail(file)
            try:
                view = memoryview(data)
                while view:
                    view = view[file.write(view) :]
                os.fsync(file.fileno())
            except OSError as error:
                file.truncate(end)
                raise StudyError(
                    f"The study log {self._file_path} cannot be written: {error.strerror}. Nothing that had finished "
                    "is lost. Free some space (or repair the disk), then give the same command again: it continues."
                ) from error

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """Yield the entries from number `log_number_from` on; an unterminated last line is left out.

        Raises:
            StudyError: If an entry is not readable.
        """
        number = log_number_from
        try:
            for entry in super().read_logs(log_number_from):
                yield entry
                number += 1
        except (ValueError, KeyError) as error:
            raise StudyError(
                f"The study log {self._file_path} is corrupt at line {number + 1}: {error}. The lines before it are "
                f"sound: keep a copy, cut the file there (head -n {number} FILE > NEW), put NEW in its place and give "
                "the same command again, or start anew in another folder."
            ) from error


def _cut_torn_tail(file: BinaryIO) -> int:
    """Cut what follows the last line end; leave the position at the end and return it."""
    end = file.seek(0, os.SEEK_END)
    position = end
    keep = 0
    while position > 0 and not keep:
        step = min(position, 1 << 16)
        position -= step
        file.seek(position)
        last = file.read(step).rfind(b"\n")
        keep = position + last + 1 if last >= 0 else 0
    if keep != end:
        file.truncate(keep)
    return file.seek(keep)


def memory() -> BaseStorage:
    """Storage that ends with the process."""
    return InMemoryStorage()


def journal(path: str, lock: str = "flock") -> BaseStorage:
    """Storage in a journal file, shared by workers that see the file.

    Args:
        path: The file; its folder is created.
        lock: See `JournalBackend`.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    return JournalStorage(JournalBackend(path, lock))


def database(url: str, retries: int = 5) -> BaseStorage:
    """Storage in a relational database (SQLite for one machine, PostgreSQL or MySQL for several).

    Args:
        url: SQLAlchemy URL, such as `postgresql+psycopg://user@host/name` or `sqlite:///study.db`.
        retries: How often to try to connect, a second apart.

    Raises:
        StudyError: If the database cannot be reached or its driver is not installed.
    """
    hidden = url.rpartition("@")[2]
    error: Exception | None = None
    for attempt in range(retries):
        try:
            return RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
        except ImportError as missing:
            raise StudyError(
                f"The database {hidden} needs a driver that is not installed ({missing}): pip install 'nasflow[rdb]'."
            ) from missing
        except Exception as failed:  # SQLAlchemy's and each driver's own errors share no narrower base
            error = failed
            if attempt + 1 < retries:
                time.sleep(1)
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    raise StudyError(
        f"The database {hidden} cannot be opened: {reason}. Check that it runs, that the URL is right and that the "
        "user may create tables."
    ) from error


def grpc(host: str, port: int = 13000) -> BaseStorage:
    """Client of Optuna's gRPC proxy, which stands in front of a database and serves many workers.

    Start the proxy with `optuna.storages.run_grpc_proxy_server(RDBStorage(url))`. It must not stand in front of a
    journal: a proxy over a journal mixes its workers up.
    """
    from optuna.storages import GrpcStorageProxy

    return GrpcStorageProxy(host=host, port=port)
