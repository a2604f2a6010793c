"""Files: finding them, and writing them so that a reader never sees half of one."""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.resources import files
from pathlib import Path

from searchspaces.errors import ConfigError

_PARTIAL = re.compile(r"\.\d+\.partial$")  # as `replacing` names what it writes to
_PACKAGED = "pkg://"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; it takes the place of `path` in one step when all went well.

    What was written is on the disk before, so that a power cut leaves the old file or the new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with _held(path.parent, fcntl.LOCK_SH):
        try:
            yield partial
            with partial.open("rb") as written:
                os.fsync(written.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def remove_abandoned(*folders: Path) -> None:
    """Delete what writers that were killed left in `folders`, unless somebody is writing there."""
    for folder in folders:
        # Listed before the lock is taken: who begins to write from here on is not among them, and need not wait.
        found = [path for path in folder.glob("*.partial") if _PARTIAL.search(path.name)]
        with _held(folder, fcntl.LOCK_EX) as alone:
            for path in found if alone else ():
                with suppress(OSError):  # gone meanwhile, or another user's
                    path.unlink()


@contextmanager
def _held(folder: Path, lock: int) -> Iterator[bool]:
    """Lock a folder without waiting, and yield whether that was possible; the system lets go when the holder dies."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # not there, or not to be read
        yield False
        return
    try:
        try:
            fcntl.flock(handle, lock | fcntl.LOCK_NB)
            held = True
        except OSError:  # held by others, or a file system without locks
            held = False
        yield held
    finally:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_UN)  # closing alone would not do where another thread has forked meanwhile
        os.close(handle)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold `path` alone among the processes of this machine; the system lets go when its holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_text(path: Path, text: str) -> None:
    """Write or replace a text file in one step."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_bytes(path: Path, data: bytes) -> None:
    """Write or replace a file in one step."""
    with replacing(path) as partial:
        partial.write_bytes(data)


def located(path: str) -> Path:
    """Return the file that `path` names; `pkg://PACKAGE/FILE` is a file of an installed package.

    Raises:
        ConfigError: If there is no such package.
    """
    if not path.startswith(_PACKAGED):
        return Path(path)
    package, _, name = path.removeprefix(_PACKAGED).partition("/")
    try:
        return Path(str(files(package).joinpath(name)))
    except (ModuleNotFoundError, ValueError) as error:
        raise ConfigError(f"{path} names a file of package {package!r}, which is not installed.") from error
