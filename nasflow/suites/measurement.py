"""How fast latencies are collected, and how well two collections of the same models agree."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from devices import RESIDENTS, Device, Job, Outcome, machine, trimmed_mean
from nasflow.collection import Collection
from nasflow.flow import whole
from nasflow.processes import in_fresh_process
from nasflow.repeats import agreement
from nasflow.suites.base import Cell, Row
from nasflow.tabulation import distinct
from searchspaces.arch import ArchBatch
from searchspaces.space import SearchSpace
from searchspaces.task import Task

ORDERS = {"interleaved": RESIDENTS, "sequential": 1}
"""Models in memory together; one that is alone has all its rounds before the next model begins."""


@dataclass(frozen=True)
class Measured:
    """What a task of the suite measures.

    Attributes:
        space: The search space.
        task: The task that networks are built for.
        device: The device.
    """

    space: SearchSpace
    task: Task
    device: Device


@dataclass(frozen=True, eq=False)
class Collected:
    """One collection of n models.

    Attributes:
        latencies: As the protocol gives them, shape `(n,)`.
        raw: Trimmed means of the samples as they were measured, not divided by the anchors' pace, shape `(n,)`.
        drifted: Share of rounds in which an anchor drifted.
        seconds: From rows to figures on the disk.
        running: Seconds of these that models and anchors ran.
    """

    latencies: NDArray[np.float64]
    raw: NDArray[np.float64]
    drifted: float
    seconds: float
    running: float


class MeasurementSuite:
    """Collects the same models twice, in fresh processes that share nothing, and compares the figures.

    `interleaved` is the protocol; `sequential` measures one model after the other, between anchors as well. Columns
    with `raw` are of figures that no anchor corrects. Each seed draws other models.

    Args:
        tasks: What is measured, by the names of tasks in the table.
        samples: Numbers of models.
        seeds: Seeds per cell.
    """

    name = "measurement"
    version = 1
    published: Sequence[Row] = ()

    def __init__(self, tasks: Mapping[str, Measured], samples: Sequence[int] = (100,), seeds: int = 3) -> None:
        self._measured = dict(tasks)
        self.tasks = tuple(tasks)
        self.methods = tuple(ORDERS)
        self.samples = tuple(whole("suite.samples", count, 5) for count in samples)
        self.seeds = whole("suite.seeds", seeds, 1)

    def settings(self) -> Mapping[str, Any]:
        """Machine, spaces, tasks and devices."""
        tasks = {
            name: [one.space.fingerprint, repr(one.task), one.device.options, asdict(one.device.plan)]
            for name, one in self._measured.items()
        }
        return {"tasks": tasks, "residents": ORDERS, **machine()}

    def run(self, cell: Cell) -> Mapping[str, float]:
        """Return how fast two collections were, and how well they agree.

        Raises:
            DeviceError: If the machine cannot be had.
        """
        measured = self._measured[cell.task]
        archs = distinct(measured.space, cell.samples, np.random.default_rng(cell.seed))
        first, second = (
            in_fresh_process(collected, measured, archs.rows, ORDERS[cell.method]) for _ in range(2)
        )
        found, raw = agreement(first.latencies, second.latencies), agreement(first.raw, second.raw)
        seconds, running = first.seconds + second.seconds, first.running + second.running
        return {
            "models_per_minute": 2 * len(archs) / seconds * 60,
            "outside_inference_percent": 100 * (1 - running / seconds),
            "kendall_tau": found.kendall_tau.value,
            "kendall_tau_raw": raw.kendall_tau.value,
            "spread_percent": found.spread_percent,
            "spread_percent_raw": raw.spread_percent,
            "shift_percent": abs(found.shift_percent),
            "drifted_percent": 50 * (first.drifted + second.drifted),
        }


def collected(measured: Measured, rows: NDArray[np.int64], residents: int) -> Collected:
    """Collect latencies of rows of the space into a folder that is thrown away.

    Raises:
        DeviceError: If the machine cannot be had.
        StudyError: If models are refused.
    """
    running = 0.0

    def timed(
        device: Device, jobs: Sequence[Job], rng: np.random.Generator, state: Path, most: int
    ) -> Iterator[list[Outcome]]:
        nonlocal running
        for outcomes in device.run_jobs(jobs, rng, state, most):
            running += next((one.measurement.batch_seconds for one in outcomes if one.measurement is not None), 0.0)
            yield outcomes

    archs = ArchBatch(measured.space, rows)
    with TemporaryDirectory(prefix="nasflow-") as folder:
        start = time.perf_counter()
        collection = Collection(Path(folder), measured.space, measured.task, [measured.device], {}, 0.0)
        collection.run(archs, residents=residents, runner=timed)
        seconds = time.perf_counter() - start
        found = {tuple(e["row"]): e["measurement"] for e in collection.entries(measured.device.name)}
    records = [found[tuple(map(int, row))] for row in rows]
    return Collected(
        np.array([record["latency_ms"] for record in records]),
        np.array([trimmed_mean(np.array(record["samples_ms"]), measured.device.plan.trim) for record in records]),
        float(np.mean([record["drifted"] / len(record["anchor_ms"]) for record in records])),
        seconds,
        running,
    )
