"""Optuna's journal file, made to survive torn lines, full disks and files that are no journal."""

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from optuna.storages.journal import BaseJournalBackend, JournalFileSymlinkLock
from optuna.trial import TrialState

from searchspaces.errors import ConfigError, StudyError, unknown
from searchspaces.jsonlines import append_whole, torn_tail

LOCKS = ("flock", "symlink")
_HEAD = b'{"op_code":'  # how each entry begins, also one that Optuna's own backend wrote


class JournalBackend(BaseJournalBackend):
    """A file of JSON lines, in the format of Optuna's `JournalFileBackend`.

    A process that dies while it writes leaves a line without its end. Optuna's backend would glue the next entry onto
    it and fail at every later opening; here readers leave such a line out, and the next writer first cuts it off. An
    entry that cannot be written in full is taken back. Both happen under the lock.

    Args:
        path: The journal file; it and its folder are created when absent.
        lock: `flock` on the file itself, which the system releases when its holder dies, or `symlink` for file
            systems without it (a dead holder then delays the others by 30 s).

    Raises:
        ConfigError: If the lock is unknown.
        StudyError: If the file cannot be created.
    """

    def __init__(self, path: str, lock: str = "flock") -> None:
        if lock not in LOCKS:
            raise ConfigError(unknown("journal lock", lock, LOCKS))
        self.path = Path(path)
        # The link names the journal, so a relative path would dangle, and Optuna would wait for ever on a dead holder.
        self._symlink = JournalFileSymlinkLock(str(self.path.absolute())) if lock == "symlink" else None
        self._starts = [0]  # where the lines begin that were read so far, and the one after them
        try:
            if not self.path.exists():
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.path.touch()
        except OSError as error:
            raise self._unusable("created", error) from error

    # -- writing -------------------------------------------------------------------------------------------------

    def append_logs(self, logs: Sequence[dict[str, Any]]) -> None:
        """Append entries: all of them, or none.

        They are on the disk on return, except for entries of a trial under way. Those follow with the one that ends the
        trial: were they lost in a power cut, its slot would be evaluated again.

        Raises:
            StudyError: If they cannot be written, for instance because the disk is full.
        """
        data = b"".join(json.dumps(log, separators=(",", ":")).encode() + b"\n" for log in logs)
        try:
            with self._locked() as file:
                append_whole(file, data, self._cut_torn_tail(file), sync=not all(map(_is_of_running_trial, logs)))
        except OSError as error:
            raise self._unusable("written", error) from error

    @contextmanager
    def _locked(self) -> Iterator[BinaryIO]:
        """Open the file for appending, and keep other writers out meanwhile."""
        with os.fdopen(os.open(self.path, os.O_RDWR | os.O_APPEND), "r+b", buffering=0) as file:
            if self._symlink:
                self._symlink.acquire()
            else:
                fcntl.flock(file, fcntl.LOCK_EX)
            try:
                yield file
            finally:
                if self._symlink:
                    self._symlink.release()
                else:  # closing alone would not do where another thread has forked with the file open
                    fcntl.flock(file, fcntl.LOCK_UN)

    def _cut_torn_tail(self, file: BinaryIO) -> int:
        """Cut off what follows the last line end, and return the size that is left."""
        end, tail = torn_tail(file)
        self._check_size(end + len(tail))
        if tail:
            self._check_tail(tail, alone=end == 0)
            file.truncate(end)
        return end

    # -- reading -------------------------------------------------------------------------------------------------

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Yield the entries from number `log_number_from` on; an unterminated last line is left out.

        Raises:
            StudyError: If the file or an entry cannot be read.
        """
        first = min(log_number_from, len(self._starts) - 1)
        try:
            size = self.path.stat().st_size
            self._check_size(size)
            if size == self._starts[first]:
                return
            with self.path.open("rb") as file:
                file.seek(self._starts[first])
                *lines, tail = file.read().split(b"\n")
        except OSError as error:
            raise self._unusable("read", error) from error
        for number, line in enumerate(lines, first):
            entry = self._parse(line, number) if number >= log_number_from else {}
            if number + 1 == len(self._starts):
                self._starts.append(self._starts[number] + len(line) + 1)
            if number >= log_number_from:
                yield entry
        self._check_tail(tail, alone=not lines and first == 0)

    @property
    def lines_read(self) -> int:
        """Number of the last line that was read, from 1."""
        return len(self._starts) - 1

    def _parse(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise self.corrupt(number + 1, error) from error
        if not isinstance(entry, dict) or "op_code" not in entry:
            raise self.corrupt(number + 1, "it is no entry of a study log")
        return entry

    # -- faults --------------------------------------------------------------------------------------------------

    def corrupt(self, line: int, reason: object) -> StudyError:
        """Return the error that says that line number `line`, from 1, cannot be used."""
        if line == 1:
            return self._foreign(str(reason))
        return StudyError(
            f"The study log {self.path} is corrupt at line {line}: {reason}. The {line - 1} lines before it are sound: "
            f"keep a copy of the file, cut it there (head -n {line - 1} FILE > NEW), put NEW in its place and give the "
            "same command again; or start anew in another folder (hydra.run.dir=FOLDER)."
        )

    def _foreign(self, reason: str) -> StudyError:
        return StudyError(
            f"{self.path} is not a study log, or one that is damaged from its first line on ({reason}). Nothing was "
            "changed. Check storage.path, put a copy of the log in its place, or start anew in another folder "
            "(hydra.run.dir=FOLDER)."
        )

    def _check_tail(self, tail: bytes, alone: bool) -> None:
        """A torn entry begins as all entries do; anything else was never ours to cut."""
        if _HEAD.startswith(tail[: len(_HEAD)]):
            return
        if alone:
            raise self._foreign("it has no line that is an entry")
        raise StudyError(
            f"The study log {self.path} is corrupt after its last complete line: it ends with {tail[:20]!r}, which is "
            "no part of an entry. Remove what follows the last line end, and give the same command again."
        )

    def _check_size(self, size: int) -> None:
        if size < self._starts[-1]:
            raise StudyError(
                f"The study log {self.path} was shortened or replaced while this process used it: it has {size} bytes, "
                f"of which {self._starts[-1]} had been read. Stop all its workers, put the log back, and give the same "
                "command again."
            )

    def _unusable(self, done: str, error: OSError) -> StudyError:
        return StudyError(
            f"The study log {self.path} cannot be {done}: {error.strerror or error}. Nothing that had finished is "
            "lost. Free some space or mend what is named, then give the same command again: it continues. (On a file "
            "system without locks, storage.lock=symlink helps.)"
        )


def _is_of_running_trial(log: dict[str, Any]) -> bool:
    of_trial = "trial_id" in log or "datetime_start" in log
    return of_trial and log.get("state", TrialState.RUNNING) == TrialState.RUNNING
