"""`Meter`: latencies of serialised models on the machine that it runs on.

All of a device but the building of models; it is part of the runner that measures on other machines, so it and what it
imports need numpy and ONNX Runtime only.
"""

from __future__ import annotations

import hashlib
import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import numpy as np

from devices import protocol
from devices.environment import environment, machine
from devices.local import Collected, check_processors, pinned, run_here
from devices.lock import exclusive
from devices.measurement import Measurement
from devices.protocol import Plan, estimate, pace, trimmed_mean
from devices.references import References
from devices.session import RefusedModelError, SessionConfig, describe, is_quantized
from searchspaces.errors import DeviceError, unknown

if TYPE_CHECKING:
    from onnx import ModelProto

logger = logging.getLogger(__name__)

PRECISIONS = ("fp32", "int8")
_MANY_DRIFTED = 0.25  # share of rounds; fewer are averaged out, and stand in the record all the same
_REFERENCE_SESSIONS = 4

Model = Union["ModelProto", bytes]


class Meter(ABC):
    """A way models run on a machine, and the measuring of their latency.

    Args:
        name: For people and records.
        precision: `fp32` or `int8`, what models are lowered to.
        batch: Batch size; a latency is that of the whole batch.
        session: How ONNX Runtime runs a model.
        plan: How much is run.

    Raises:
        DeviceError: If the precision is unknown or the batch out of range.
    """

    def __init__(self, name: str, precision: str, batch: int, session: SessionConfig, plan: Plan) -> None:
        if precision not in PRECISIONS:
            raise DeviceError(unknown("precision", precision, PRECISIONS))
        if batch < 1:
            raise DeviceError(f"A batch holds at least one image, but batch={batch}.")
        self.name = name
        self.precision = precision
        self.batch = batch
        self.session = session
        self.plan = plan
        self._memory: References | None = None
        self._drift_told = False

    @property
    @abstractmethod
    def _anchors(self) -> Sequence[bytes]:
        """The device's own anchors, lowered for it."""

    @property
    @abstractmethod
    def _anchors_version(self) -> int:
        """Version of the anchors: figures measured by different ones do not compare."""

    @property
    def machine(self) -> dict[str, str]:
        """What makes latencies comparable: processor and ONNX Runtime version."""
        return machine()

    @property
    def options(self) -> dict[str, Any]:
        """All that decides what a latency on this device means, JSON-able."""
        return self.session.facts() | {"device": self.name, "precision": self.precision, "batch": self.batch}

    @property
    def identity(self) -> str:
        """Digest of machine, options and protocol: two devices that share it are one device under two names."""
        return _digest(self.machine | {key: value for key, value in self.options.items() if key != "device"})

    def job(self, model: Model) -> str:
        """Return the identity of measuring `model` here: SHA-256 of model, session options and protocol version."""
        return _digest(self.session.facts(), serialised(model))

    def measure(
        self,
        models: Sequence[Model],
        rng: np.random.Generator,
        anchors: Sequence[Model] = (),
        state: Path | None = None,
    ) -> list[Measurement]:
        """Measure models, interleaved, with the machine to itself.

        Latencies are normalised to the times that the device's own anchors took when they were first measured. With
        the same `state`, figures compare across processes, resumed runs and devices of one machine; without, only
        across calls on this object.

        Args:
            models: ONNX models lowered for this device (`Device.prepare`), which stay in memory together.
            rng: Draws inputs and the order of runs.
            anchors: Further models to normalise by, for instance the current Pareto front. Those without a known
                time are measured along and serve from the next call on.
            state: File that keeps the anchors' known times.

        Returns:
            One measurement per model, in order.

        Raises:
            DeviceError: If ONNX Runtime refuses a model, a model is not lowered for this device, the machine is not
                what the device asks for, or others keep it busy for too long.
        """
        if not models:
            return []
        check_processors(self.session.threads, self.session.affinity)
        blobs = [serialised(model) for model in models]
        with exclusive(), pinned(self.session.affinity):
            facts = environment() | self.options | {"protocol": protocol.VERSION}
            references = self._references(state)
            own, seconds = self._own_references(references, rng)
            extra = {self.job(model): serialised(model) for model in anchors}
            known = {job: blob for job, blob in extra.items() if references.get(job) is not None}
            new = {job: blob for job, blob in extra.items() if job not in known}
            times = np.array([*own, *(references.get(job) for job in known)], dtype=np.float64)
            measured = [*blobs, *new.values()]
            collected = run_here(
                measured, [*self._anchors, *known.values()], self.session, self.batch, self.plan, rng
            )
            collected = replace(collected, seconds=collected.seconds + seconds)
            results = self._results(measured, collected, times, facts)
            references.add({result.job: result.latency_ms for result in results[len(blobs) :]})
        return results[: len(blobs)]

    def known_times(self, state: Path) -> dict[str, float]:
        """Return the times in ms of the device's anchors that all figures of `state` stand on; none before the first.

        Raises:
            DeviceError: If the file is corrupt or was written on another kind of machine.
        """
        references = self._references(state)
        times = {key: references.get(key) for key in map(self._anchor_key, range(len(self._anchors)))}
        return {key: time for key, time in times.items() if time is not None}

    def adopt(self, times: Mapping[str, float], state: Path) -> None:
        """Let figures of `state` stand on the times that another one knew, unless it knows its own already.

        So figures of two folders compare, if they are of one machine, even if its speed was another one when the second
        was begun.

        Args:
            times: What `known_times` returned; those of other devices or versions change nothing.
            state: File that keeps the anchors' known times.

        Raises:
            DeviceError: If the file is corrupt, cannot be written, or was written on another kind of machine.
        """
        keys = [self._anchor_key(i) for i in range(len(self._anchors))]
        references = self._references(state)
        if all(key in times and references.get(key) is None for key in keys):
            references.add({key: float(times[key]) for key in keys})

    def _anchor_key(self, i: int) -> str:
        # Not the model's bytes, which another version of a library may write differently.
        options = {key: value for key, value in self.options.items() if key != "device"}
        return _digest(options | {"anchor": [self._anchors_version, i]})

    def _references(self, state: Path | None) -> References:
        if state is not None:
            return References(self.machine, Path(state))
        if self._memory is None:
            self._memory = References(self.machine)
        return self._memory

    def _own_references(self, references: References, rng: np.random.Generator) -> tuple[list[float], float]:
        """Return the known times of the device's anchors in ms, measured now if this is the first time.

        The second figure is the seconds that they ran for it.
        """
        keys = [self._anchor_key(i) for i in range(len(self._anchors))]
        if any(references.get(key) is None for key in keys):
            copies = [model for model in self._anchors for _ in range(_REFERENCE_SESSIONS)]
            collected = run_here(copies, self._anchors, self.session, self.batch, self.plan, rng)
            by_anchor = np.split(collected.samples, len(keys), axis=1)
            known = [trimmed_mean(times, self.plan.trim) for times in by_anchor]
            references.add(dict(zip(keys, known, strict=True)))
            return known, collected.seconds
        return [references.get(key) or 0.0 for key in keys], 0.0

    def _results(
        self, models: Sequence[bytes], collected: Collected, references: protocol.Floats, facts: dict[str, Any]
    ) -> list[Measurement]:
        rounds, drifted = len(collected.drifted), int(collected.drifted.sum())
        if drifted > _MANY_DRIFTED * rounds:
            level = logging.DEBUG if self._drift_told else logging.WARNING  # each measurement states it anyway
            self._drift_told = True
            logger.log(
                level,
                "The machine's speed changed in %d of %d rounds of measuring, after %d rounds were done again: other "
                "programs are running, or its clock varies. This is said once.",
                drifted,
                rounds,
                collected.redone,
            )
        results = []
        for i, model in enumerate(models):
            self._check_precision(model, collected.operators[i])
            samples = collected.samples[:, i]
            paces = pace(collected.anchors, references, float(np.median(samples)))
            value = estimate(samples, paces, self.plan.trim)
            results.append(
                Measurement(
                    latency_ms=value.mean,
                    std_ms=value.std,
                    iqr_ms=value.iqr,
                    samples_ms=samples.copy(),
                    anchor_ms=paces * references[0],
                    reference_ms=float(references[0]),
                    redone=collected.redone,
                    drifted=drifted,
                    batch_seconds=collected.seconds,
                    operators=collected.operators[i],
                    job=self.job(model),
                    environment=facts,
                )
            )
        return results

    def _check_precision(self, model: bytes, operators: dict[str, int]) -> None:
        if is_quantized(list(operators)) != (self.precision == "int8"):
            raise RefusedModelError(
                f"Device {self.name!r} measures at {self.precision}, but {describe(model)} runs as {operators}: build "
                "the model with Device.prepare, or set the device's precision.",
                model,
            )


def serialised(model: Model) -> bytes:
    """Return a model's bytes, the same for the same model."""
    return model if isinstance(model, bytes) else bytes(model.SerializeToString(deterministic=True))


def _digest(facts: dict[str, Any], model: bytes = b"") -> str:
    header = json.dumps(facts | {"protocol": protocol.VERSION}, sort_keys=True)
    return hashlib.sha256(header.encode() + b"\0" + model).hexdigest()
