"""Jobs that go to another machine, and outcomes that come back."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from devices.jobs import Job, Key, Outcome
from devices.measurement import Measurement
from devices.remote.link import Link
from devices.remote.state import RemoteState
from searchspaces.errors import DeviceError, NasflowError

_CHUNK_BYTES = 8 << 20  # of models that are pushed in one request
_CHUNK = 32
_AHEAD_BYTES = 1 << 30  # of models that may wait there
_STARTS = 4  # without a result, until the runner is given up


class Transfer:
    """Jobs on their way to the other machine and back.

    Args:
        host: The host.
        jobs: The jobs.
        connect: Returns the link, made anew where there is none.
        state: What is known of the folder there.
        residents: Models in memory together there.

    Attributes:
        wanted: Jobs without an outcome, by key.
        unsent: Jobs that are still to be sent; None until it is known which are there.
    """

    def __init__(
        self, host: str, jobs: Sequence[Job], connect: Callable[[], Link], state: RemoteState, residents: int
    ) -> None:
        self._host, self._connect, self._state, self._residents = host, connect, state, residents
        self.wanted = {job.key: job for job in jobs}
        self.unsent: list[Job] | None = None
        self._link: Link | None = None
        self._waiting: set[Key] = set()  # there, when the link was made
        self._offset = self._end = 0  # byte of the results that is fetched next; where they ended when it was made
        self._bytes = 0

    @property
    def is_waiting(self) -> bool:
        """Whether there is nothing to send for now."""
        return not self.unsent or self._bytes > _AHEAD_BYTES

    def _opened(self) -> Link:
        """Return the link; after it was made anew, find out what is there."""
        link = self._connect()
        if link is not self._link:
            reply = self._state.open(link, self._residents)
            self._link, self.unsent = link, None
            self._waiting = {tuple(key) for key in reply["open"]}
            self._end = reply["end"]
            self._offset = min(self._offset, self._end)  # of a folder that was lost, all is fetched anew
        return link

    def fetch(self) -> list[Outcome]:
        """Return the outcomes that are new.

        Raises:
            LinkLostError: If the link is lost; nothing else is then.
            DeviceError: If there will be none.
        """
        reply, data = self._opened().ask("poll", offset=self._offset)
        self._state.save(reply["references"])  # before any figure that stands on them
        self._bytes = reply["bytes"]
        if data:
            return self._results(data)
        if self.unsent is None:
            self.unsent = [job for key, job in self.wanted.items() if key not in self._waiting]
        self._check(reply)
        return []

    def _results(self, data: bytes) -> list[Outcome]:
        """Return the outcomes that lines of results hold; failures of earlier runs are none."""
        outcomes = []
        for line in data.splitlines(keepends=True):
            self._offset += len(line)
            entry = json.loads(line)
            key = tuple(entry["key"])
            if key not in self.wanted or ("error" in entry and self._offset <= self._end):
                continue
            del self.wanted[key]
            record = entry.get("measurement")
            measurement = None if record is None else Measurement.from_record(record)
            outcomes.append(Outcome(key, measurement, entry.get("error", "")))
        return outcomes

    def _check(self, reply: dict[str, Any]) -> None:
        if reply["fault"]:
            raise DeviceError(f"{self._host}: {reply['fault']}")
        if not (reply["open"] or self.unsent) and self.wanted:
            raise DeviceError(f"{self._host} has lost jobs. Give the same command again: it measures what is missing.")
        if reply["starts"] > _STARTS:
            last = " ".join(reply["told"].split())
            raise DeviceError(
                f"The runner on {self._host} has died {_STARTS} times without a result, for lack of memory "
                f"or room, or on a model that crashes ONNX Runtime. It said last: {last}. Mend that, and give the same "
                "command again."
            )

    def send(self) -> list[Outcome]:
        """Send the next few jobs; return those whose model cannot be built.

        Raises:
            LinkLostError: If the link is lost; those jobs are then sent again, and are there once all the same.
        """
        unsent = self.unsent
        if self.is_waiting or unsent is None:
            return []
        failed: list[Outcome] = []
        models: dict[Key, bytes] = {}
        taken = 0
        while taken < len(unsent) and len(models) < _CHUNK and sum(map(len, models.values())) < _CHUNK_BYTES:
            job = unsent[taken]
            taken += 1
            try:
                models[job.key] = job.prepare()
            except NasflowError as error:
                failed.append(Outcome(job.key, None, str(error)))
        if models:
            self._opened().ask("submit", list(models.values()), keys=list(models))
            if self.unsent is not unsent:  # the link was made anew, and what is there is to be fetched first
                return []
        del unsent[:taken]
        for outcome in failed:
            del self.wanted[outcome.key]
        return failed
