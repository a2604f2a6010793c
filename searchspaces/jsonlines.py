"""A log of JSON lines that survives kills, full disks and several writers."""

import fcntl
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

from searchspaces.errors import StudyError

_BLOCK = 1 << 16


class JsonLines:
    """A file with one JSON object a line, which only grows.

    A process that dies while it writes leaves a line without its end: readers leave it out, and the next writer cuts
    it off. Writers take turns by a lock on the file, which the system releases when its holder dies.

    Args:
        path: The file; it is created by the first entry.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, entries: Iterable[dict[str, Any]]) -> None:
        """Append entries, all or none; they are on the disk on return.

        Raises:
            StudyError: If they cannot be written, for instance because the disk is full.
        """
        data = "".join(json.dumps(entry, separators=(",", ":"), allow_nan=False) + "\n" for entry in entries).encode()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                end, tail = torn_tail(file)
                if tail:
                    file.truncate(end)
                append_whole(file, data, end)
        except OSError as error:
            raise StudyError(
                f"The log {self.path} cannot be written: {error.strerror or error}. Nothing that had finished is lost. "
                "Free some space or mend what is named, then give the same command again: it continues."
            ) from error

    def read(self) -> list[dict[str, Any]]:
        """Return all whole entries, none where there is no file yet.

        Raises:
            StudyError: If the file cannot be read, or a line in it is damaged.
        """
        try:
            data = self.path.read_bytes() if self.path.exists() else b""
        except OSError as error:
            raise StudyError(f"The log {self.path} cannot be read: {error.strerror or error}.") from error
        entries = []
        for number, line in enumerate(data[: _end_of_lines(data)].splitlines(), 1):
            try:
                entry = json.loads(line)
            except ValueError as error:
                raise self._corrupt(number, error) from error
            if not isinstance(entry, dict):
                raise self._corrupt(number, "it is no JSON object")
            entries.append(entry)
        return entries

    def _corrupt(self, number: int, reason: object) -> StudyError:
        return StudyError(
            f"The log {self.path} is damaged at line {number}: {reason}. Keep a copy of the file, remove that line "
            "and give the same command again; what the line held is then done anew."
        )


def _end_of_lines(data: bytes) -> int:
    return data.rfind(b"\n") + 1


def torn_tail(file: BinaryIO) -> tuple[int, bytes]:
    """Return where the last whole line of an unbuffered file ends, and what follows it; only the tail is read."""
    position = file.seek(0, os.SEEK_END)
    tail = b""
    while position > 0 and b"\n" not in tail:
        step = min(position, _BLOCK if tail else 1)  # the last byte mostly tells
        position = file.seek(position - step)
        tail = file.read(step) + tail
    end = _end_of_lines(tail)
    return position + end, tail[end:]


def append_whole(file: BinaryIO, data: bytes, end: int, sync: bool = True) -> None:
    """Write `data` at byte `end` of an unbuffered file, where it stops: all of it, or nothing.

    Raises:
        OSError: If it cannot be written; the file is then as it was.
    """
    try:
        file.seek(end)
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]
        if sync:
            os.fsync(file.fileno())
    except OSError:
        file.truncate(end)
        raise
