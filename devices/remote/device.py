"""`SshDevice`: a machine that is reached over ssh."""

import json
import logging
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from devices.device import Device
from devices.jobs import RESIDENTS, Job, Key, Outcome
from devices.measurement import Measurement
from devices.meter import Model, serialised
from devices.remote.link import Link, LinkLostError, RefusedError
from devices.remote.openssh import check_host, explain, ssh_command
from devices.remote.runner import spec_of
from devices.session import RefusedModelError
from searchspaces.errors import DeviceError, NasflowError
from searchspaces.files import locked, write_text

logger = logging.getLogger(__name__)

_POLL_S = 1.0
_MEASURE_S = 3600.0
_CHUNK_BYTES = 8 << 20  # of models that are pushed in one request
_CHUNK = 32
_AHEAD_BYTES = 1 << 30  # of models that may wait there
_STARTS = 4  # without a result, until the runner is given up

Result = TypeVar("Result")


class SshDevice(Device):
    """Another machine, reached with the system's ssh; models are built here and measured there.

    The runner there goes on when the link or this process ends; who comes back fetches what it has measured meanwhile.
    The machine needs sshd, a POSIX shell, Python 3.10 or later, numpy and onnxruntime.

    Args:
        host: The host, as ssh knows it.
        name: See `Device`, as for all arguments that are not named here.
        port: Its port; None for that of the ssh configuration.
        python: The Python that has numpy and onnxruntime, by name or by path, from the home folder if relative.
        folder: Where the runner, models and results stand there.
        ssh_config: A configuration file for ssh; None for the usual ones.
        patience_s: How long to try again when the link is lost.

    Raises:
        DeviceError: If the host's name is none, or an argument of `Device` is wrong.
    """

    def __init__(
        self,
        host: str,
        name: str = "ssh",
        port: int | None = None,
        python: str = "python3",
        folder: str = "~/.nasflow",
        ssh_config: str | None = None,
        patience_s: float = 3600.0,
        provider: str = "CPUExecutionProvider",
        threads: int = 1,
        precision: str = "fp32",
        batch: int = 1,
        optimisation: str = "all",
        affinity: Sequence[int] | None = None,
        cpu_fallback: bool = False,
        rounds: int = 10,
        runs_per_round: int = 5,
        restarts: int = 2,
    ) -> None:
        super().__init__(
            name,
            provider,
            threads,
            precision,
            batch,
            optimisation,
            affinity,
            cpu_fallback,
            rounds,
            runs_per_round,
            restarts,
        )
        check_host(host)
        self.host = host
        self._command = lambda words: ssh_command(host, port, ssh_config, words)
        self._python, self._folder = python.removeprefix("~/"), folder
        self._patience_s = patience_s
        self._link: Link | None = None
        self._facts: dict[str, Any] | None = None
        self._unsaved = {"id": secrets.token_hex(8)}

    def _check(self) -> None:
        """The runner refuses what its machine lacks."""

    @property
    def machine(self) -> dict[str, str]:
        """Processor and ONNX Runtime of the other machine, which is asked for them at first."""
        if self._facts is None:
            self._retried(self._linked)
        assert self._facts is not None
        return dict(self._facts["machine"])

    def run_jobs(
        self, jobs: Sequence[Job], rng: np.random.Generator, state: Path, residents: int = RESIDENTS
    ) -> Iterator[list[Outcome]]:
        """Have jobs measured there; those that were measured for `state` before are fetched.

        Args:
            jobs: What to measure.
            rng: Not used: the runner draws inputs and the order of runs.
            state: The known times of the anchors are kept beside this file, with the name of the folder there.
            residents: Models in memory together, at most.

        Raises:
            DeviceError: If the machine cannot be reached or used, is another one than before, or its runner fails.
        """
        run = _Run(self, jobs, _State(self, state), residents)
        try:
            while run.wanted:
                fetched = self._retried(run.fetch)
                if fetched:
                    yield fetched
                failed = self._retried(run.send)
                if failed:
                    yield failed
                if not fetched and run.is_waiting:
                    time.sleep(_POLL_S)
        finally:
            self._unlink()

    def measure(
        self,
        models: Sequence[Model],
        rng: np.random.Generator,
        anchors: Sequence[Model] = (),
        state: Path | None = None,
    ) -> list[Measurement]:
        """Measure models there, see `Device.measure`; a measurement that the link is lost over is made again."""
        if not models:
            return []
        parts = [serialised(model) for model in (*models, *anchors)]
        seed = int(rng.integers(2**31))
        kept = _State(self, state)

        def ask() -> list[Measurement]:
            link = self._linked()
            kept.open(link, RESIDENTS)
            reply, data = link.ask("measure", parts, _MEASURE_S, models=len(models), seed=seed)
            kept.save(reply["references"])
            return [Measurement.from_record(record) for record in json.loads(data)]

        try:
            return self._retried(ask)
        except RefusedError as error:
            model = next((part for part in parts if sha256(part).hexdigest() == error.digest), b"")
            raise RefusedModelError(str(error), model) from error

    def _linked(self) -> Link:
        """Return the link, made anew where there is none."""
        if self._link is None:
            self._link = Link(
                self.host,
                self._command,
                self._python,
                self._folder,
                lambda status, told: explain(self.host, self._python, status, told),
            )
            facts = self._link.facts
            if self._facts is not None and _which(facts) != _which(self._facts):
                raise DeviceError(_changed(self.host, _which(self._facts), _which(facts)))
            self._facts = facts
        return self._link

    def _unlink(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None

    def _retried(self, action: Callable[[], Result]) -> Result:
        """Do what needs the link, again and again while it is lost, but not if it never stood."""
        deadline, pause, told = time.monotonic() + self._patience_s, 1.0, False
        while True:
            try:
                return action()
            except LinkLostError as error:
                self._unlink()
                if self._facts is None:
                    raise DeviceError(str(error)) from error
                if time.monotonic() + pause > deadline:
                    raise DeviceError(
                        f"{error} It was tried again for {self._patience_s:g} s. The runner goes on there with what it "
                        "has; give the same command again to fetch its results and go on."
                    ) from error
                logger.log(logging.DEBUG if told else logging.WARNING, "%s Trying again.", error)
                told = True
                time.sleep(pause)
                pause = min(2 * pause, 30.0)
            except BaseException:
                self._unlink()
                raise


def _which(facts: dict[str, Any]) -> dict[str, str]:
    return {**facts["machine"], "unit": facts["unit"]}


def _changed(host: str, before: dict[str, str], now: dict[str, str]) -> str:
    return (
        f"{host} was {before} and is {now}: another machine, or another version of ONNX Runtime. Latencies measured "
        "from now on would not compare with those measured before. Go on with the former one, or begin in a new folder."
    )


class _State:
    """What is known here of a folder there: its name, the machine, and the anchors' known times.

    Args:
        device: The device.
        path: The file beside which it is kept; None keeps it with the device.
    """

    def __init__(self, device: SshDevice, path: Path | None) -> None:
        self._device = device
        self._path = None if path is None else path.with_name(f"{path.stem}-{device.name}.json")
        self._known: dict[str, Any] = device._unsaved if path is None else {}

    def open(self, link: Link, residents: int) -> dict[str, Any]:
        """Open the folder there; return the runner's reply.

        Raises:
            DeviceError: If the machine is not that of the file, or the anchors' times differ.
        """
        self._load()
        device, now = self._device, _which(link.facts)
        before = self._known.setdefault("machine", now)
        self._write()
        if before != now:
            raise DeviceError(_changed(device.host, before, now))
        spec = spec_of(device)
        # Other settings have another folder, so what is found there was measured under these.
        settings = sha256(json.dumps(spec | device.options, sort_keys=True).encode()).hexdigest()[:12]
        request = {
            "id": f"{self._known['id']}-{settings}",
            "spec": {**spec, "anchors": len(device._anchors), "residents": residents},
            "references": self._known.get("references", ""),
        }
        reply, _ = link.ask("open", **request)
        if not reply["anchors"]:
            reply, _ = link.ask("open", device._anchors, **request)
        self.save(reply["references"])
        return reply

    def save(self, references: str) -> None:
        """Keep the anchors' times as they stand there; what was known before must be among them.

        Raises:
            DeviceError: If times have changed, or the file cannot be written.
        """
        if references == self._known.get("references", ""):
            return
        before, now = (_times(text) for text in (self._known.get("references", ""), references))
        if any(now.get(key) != value for key, value in before.items()):
            raise DeviceError(
                f"The anchors' times on {self._device.host} are not those known here, {self._path or 'from before'}: "
                "its folder was changed by hand, or is used by two machines. Begin in a new folder."
            )
        self._known["references"] = references
        self._write()

    def _load(self) -> None:
        if self._path is None or self._known:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with locked(self._path.with_suffix(".lock")):
            if self._path.exists():
                try:
                    self._known = dict(json.loads(self._path.read_text()))
                    self._known["id"], _times(self._known.get("references", ""))
                except (ValueError, KeyError, TypeError) as error:
                    raise DeviceError(f"{self._path} is damaged: {error!r}. Restore it, or begin anew.") from error
            else:
                self._known = {"id": secrets.token_hex(8)}
                self._write()

    def _write(self) -> None:
        if self._path is not None:
            try:
                write_text(self._path, json.dumps(self._known, indent=1))
            except OSError as error:
                raise DeviceError(f"{self._path} cannot be written: {error.strerror}. Make room.") from error


def _times(references: str) -> dict[str, float]:
    return dict(json.loads(references)["references_ms"]) if references else {}


class _Run:
    """Jobs on their way to the other machine and back.

    Args:
        device: The device.
        jobs: The jobs.
        state: What is known of the folder.
        residents: Models in memory together there.

    Attributes:
        wanted: Jobs without an outcome, by key.
        unsent: Jobs that are still to be sent; None until it is known which are there.
    """

    def __init__(self, device: SshDevice, jobs: Sequence[Job], state: _State, residents: int) -> None:
        self._device, self._state, self._residents = device, state, residents
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
        link = self._device._linked()
        if link is not self._link:
            reply = self._state.open(link, self._residents)
            self._link, self.unsent = link, None
            self._waiting = {tuple(key) for key in reply["open"]}
            self._end = reply["end"]
            self._offset = min(self._offset, self._end)  # of a folder that was lost, all is fetched anew
        return link

    def fetch(self) -> list[Outcome]:
        """Return the outcomes that are new."""
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
        host = self._device.host
        if reply["fault"]:
            raise DeviceError(f"{host}: {reply['fault']}")
        if not (reply["open"] or self.unsent) and self.wanted:
            raise DeviceError(f"Jobs were lost on {host}, in {self._device._folder}. Give the same command again.")
        if reply["starts"] > _STARTS:
            last = " ".join(reply["told"].split()) or "nothing"
            raise DeviceError(
                f"The runner on {host} has died {_STARTS} times without a result, for lack of memory or on a model "
                f"that crashes ONNX Runtime. It said last: {last}. Give the same command again once that is mended."
            )

    def send(self) -> list[Outcome]:
        """Send the next few jobs; return those whose model cannot be built."""
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
