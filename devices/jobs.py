"""Measuring many models, a batch of them in memory at a time.

What every device offers is `run_jobs`: jobs go in, outcomes come back in any order and as they are had, so that whoever
stores them loses nothing when the rest does not come. A device on another machine has this module run there.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from devices.lock import exclusive
from devices.measurement import Measurement
from devices.meter import Meter
from devices.protocol import Plan
from devices.session import RefusedModelError
from searchspaces.errors import NasflowError

RESIDENTS = 32
"""Models that share the rounds of a batch; with twice as many, the anchors' share of the time is 3 % less."""

_FIRST = 8  # of the models whose times are not known yet
_BATCH_SECONDS = 8.0  # what a kill may cost, about, and how long others wait for the machine
_BATCH_BYTES = 1 << 28


Key = tuple[int, ...]


@dataclass(frozen=True)
class Job:
    """A model to measure.

    Attributes:
        key: What its owner knows it by, such as the architecture's row.
        prepare: Builds the model, lowered for the device; called once, shortly before the model is needed.
    """

    key: Key
    prepare: Callable[[], bytes]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of a job: a measurement, or the reason why there is none.

    Attributes:
        key: That of the job.
        measurement: None where the model cannot be built or the device refuses it.
        error: Why; empty where there is a measurement.
    """

    key: Key
    measurement: Measurement | None
    error: str = ""


def run_jobs(
    device: Meter, jobs: Sequence[Job], rng: np.random.Generator, state: Path, residents: int = RESIDENTS
) -> Iterator[list[Outcome]]:
    """Measure jobs on `device`, and yield the outcomes of each batch as soon as it is through.

    Batches are as large as `residents`, memory and a few seconds per batch allow. A model that cannot be built, or that
    ONNX Runtime refuses, does not keep the others of its batch from being measured.

    Args:
        device: Where to measure.
        jobs: What to measure; neighbours are measured side by side, so their order should be a random one. Those
            that are added meanwhile are measured as well.
        rng: Draws inputs and the order of runs.
        state: File that keeps the anchors' known times, so that all batches are on one scale.
        residents: Models in memory together, at most.

    Raises:
        DeviceError: If the machine cannot be had, or is not what the device asks for.
    """
    size, done = min(_FIRST, residents), 0
    while done < len(jobs):
        models: dict[Key, bytes] = {}
        failed: list[Outcome] = []
        begun = done
        while done < len(jobs) and done - begun < size and sum(map(len, models.values())) < _BATCH_BYTES:
            job = jobs[done]
            done += 1
            try:
                models[job.key] = job.prepare()
            except NasflowError as error:
                failed.append(Outcome(job.key, None, str(error)))
        outcomes = _measure(device, models, rng, state)
        yield failed + outcomes
        size = max(1, min(_fitting(device.plan, outcomes, size), 2 * size, residents))


def _fitting(plan: Plan, outcomes: Sequence[Outcome], before: int) -> int:
    """Return how many such models run for `_BATCH_SECONDS`; `before` if none ran.

    Only the models' own runs count: the anchors' share is the same for one model as for many, so that to make a batch
    smaller for their sake would only add to it.
    """
    measured = [outcome.measurement for outcome in outcomes if outcome.measurement is not None]
    visit = 1 + plan.discard / plan.runs_per_round
    seconds = sum(
        np.maximum(one.samples_ms, plan.sample_ms).sum() / 1e3 * visit * (1 + one.redone / len(one.samples_ms))
        for one in measured
    )
    return int(_BATCH_SECONDS * len(measured) / seconds) if measured else before


def _measure(device: Meter, models: dict[Key, bytes], rng: np.random.Generator, state: Path) -> list[Outcome]:
    refused: list[Outcome] = []
    with exclusive():
        while True:
            try:
                results = device.measure(list(models.values()), rng, state=state)
            except RefusedModelError as error:
                same = [key for key, model in models.items() if model == error.model]
                if not same:  # one of the device's own anchors
                    raise
                refused += [Outcome(key, None, str(error)) for key in same]
                models = {key: model for key, model in models.items() if key not in same}
            else:
                break
    return refused + [Outcome(key, result) for key, result in zip(models, results, strict=True)]
