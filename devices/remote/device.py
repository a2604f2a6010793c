"""`SshDevice`: a machine that is reached over ssh."""

import json
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from devices.remote.state import RemoteState, check_same, new_name, which
from devices.remote.transfer import Transfer
from devices.session import RefusedModelError
from searchspaces.errors import DeviceError

logger = logging.getLogger(__name__)

_POLL_S = 1.0
_MEASURE_S = 3600.0

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
        self._unsaved: dict[str, Any] = {"id": new_name()}

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
        transfer = Transfer(self.host, jobs, self._linked, self._state(state), residents)
        sent = dict(transfer.wanted)
        try:
            while transfer.wanted:
                fetched = self._retried(transfer.fetch)
                if fetched:
                    self._check_models(sent, fetched)
                    sent.clear()  # one is enough: what comes later was sent by this process
                    yield fetched
                failed = self._retried(transfer.send)
                if failed:
                    yield failed
                if not fetched and transfer.is_waiting:
                    time.sleep(_POLL_S)
        finally:
            self._unlink()

    def _check_models(self, jobs: Mapping[Key, Job], fetched: Sequence[Outcome]) -> None:
        """Make sure that what was measured before is what would be sent now."""
        for one in fetched:
            if one.measurement is None or one.key not in jobs:
                continue
            if self.job(jobs[one.key].prepare()) != one.measurement.job:
                raise DeviceError(
                    f"{self.host} has measured another model for {list(one.key)} than the one that is built now: "
                    "nasflow or onnx is of another version. Go on with the versions that began, or begin in a new "
                    "folder."
                )
            return

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
        kept = self._state(state)

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

    def known_times(self, state: Path) -> dict[str, float]:
        """None: they stand on the other machine, and figures of two folders there do not compare."""
        return {}

    def adopt(self, times: Mapping[str, float], state: Path) -> None:
        """Change nothing, see `known_times`."""

    def _state(self, path: Path | None) -> RemoteState:
        name = re.sub(r"[^\w.-]", "_", self.name)
        beside = None if path is None else path.with_name(f"{path.stem}-{name}.json")
        return RemoteState(self.host, self, beside, self._unsaved)

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
            if self._facts is not None:
                check_same(self.host, which(self._facts), which(facts))
            else:
                kind = facts["machine"]
                logger.info(
                    "%s is %s, ONNX Runtime %s, Python %s.",
                    self.host,
                    kind["processor"],
                    kind["onnxruntime"],
                    facts["python"],
                )
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
