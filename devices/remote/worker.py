"""What measures on the other machine, detached from the link: jobs and results stand in a folder.

Time is taken from monotonic clocks only, so a clock that is set meanwhile changes nothing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from devices.jobs import Job, Key, run_jobs
from devices.meter import Meter
from devices.protocol import Plan
from devices.remote.queue import JobQueue
from devices.session import SessionConfig
from searchspaces.errors import NasflowError
from searchspaces.files import write_text

SPEC, REFERENCES, FAULT = "spec.json", "anchors.json", "fault.txt"


def spec_of(meter: Meter) -> dict[str, Any]:
    """Return what a device is on the other machine, JSON-able, all but its anchors' models."""
    names = ("name", "precision", "batch")
    plain = {name: getattr(meter, name) for name in names} | {"anchors_version": meter._anchors_version}
    return plain | {"session": asdict(meter.session), "plan": asdict(meter.plan)}


class PushedMeter(Meter):
    """A device as its description and its anchors' models were pushed into a folder."""

    def __init__(self, folder: Path) -> None:
        spec = json.loads((folder / SPEC).read_text())
        session, plan = spec["session"], spec["plan"]
        if session["affinity"] is not None:
            session["affinity"] = tuple(session["affinity"])
        plan["trim"] = tuple(plan["trim"])
        super().__init__(spec["name"], spec["precision"], spec["batch"], SessionConfig(**session), Plan(**plan))
        self._version = int(spec["anchors_version"])
        self._models = [anchor_path(folder, i).read_bytes() for i in range(spec["anchors"])]
        self.session.check_provider()

    @property
    def _anchors(self) -> Sequence[bytes]:
        return self._models

    @property
    def _anchors_version(self) -> int:
        return self._version


def anchor_path(folder: Path, i: int) -> Path:
    """Return the file of a device's anchor."""
    return folder / f"anchor{i}.onnx"


def work(folder: Path) -> None:
    """Measure all jobs of a folder, those that come meanwhile too, and write each batch's results at once."""
    try:
        queue = JobQueue(folder)
        meter = PushedMeter(folder)
        taken: dict[Key, str] = {}  # tickets of the jobs handed out, by key
        jobs: list[Job] = []

        def take() -> None:
            for ticket, (key, name, _) in queue.open.items():
                if taken.get(key) != ticket:
                    taken[key] = ticket
                    jobs.append(Job(key, partial(queue.model, name)))

        take()
        rng = np.random.default_rng([0, queue.finished])
        residents = int(json.loads((folder / SPEC).read_text())["residents"])
        for outcomes in run_jobs(meter, jobs, rng, folder / REFERENCES, residents):
            queue.finish(
                [
                    {"ticket": taken[one.key], "key": one.key}
                    | ({"error": one.error} if one.measurement is None else {"measurement": one.measurement.record()})
                    for one in outcomes
                ]
            )
            take()
    except (NasflowError, OSError) as error:
        write_text(folder / FAULT, str(error))
        sys.exit(1)
