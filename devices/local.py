"""Running models on this machine."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from devices.environment import cores
from devices.onnx_file import count_operators
from devices.protocol import Floats, Plan, collect
from devices.session import SessionConfig, load
from searchspaces.errors import DeviceError


@dataclass(frozen=True, eq=False)
class Collected:
    """What came of running n models and a anchors over r rounds, those of all restarts one after the other.

    Attributes:
        samples: Times of the models in ms, shape `(r, n, runs)`.
        anchors: Times of the anchors in ms, shape `(r, 2, a, runs)`.
        drifted: Rounds that are kept though an anchor drifted, shape `(r,)`.
        redone: Number of rounds that were done again.
        seconds: Time spent running models and anchors, not loading them.
        operators: Per model, how often each operator occurs in the optimised graph.
    """

    samples: Floats
    anchors: Floats
    drifted: NDArray[np.bool_]
    redone: int
    seconds: float
    operators: list[dict[str, int]]


def run_here(
    models: Sequence[bytes],
    anchors: Sequence[bytes],
    session: SessionConfig,
    batch: int,
    plan: Plan,
    rng: np.random.Generator,
) -> Collected:
    """Run serialised models by the protocol, `plan.restarts` times with fresh sessions.

    Raises:
        DeviceError: If ONNX Runtime refuses a model or its inputs do not fit.
    """
    blocks = []
    optimised: list[bytes | None] = [None] * len(models)
    for _ in range(plan.restarts):
        pairs = zip(models, optimised, strict=True)
        residents = [load(model, session, batch, rng, graph is None, graph) for model, graph in pairs]
        fixed = [load(model, session, batch, rng).run for model in anchors]
        optimised = [resident.optimised for resident in residents]
        blocks.append(collect([resident.run for resident in residents], fixed, plan, rng))
    return Collected(
        np.concatenate([block.samples for block in blocks]),
        np.concatenate([block.anchors for block in blocks]),
        np.concatenate([block.drifted for block in blocks]),
        sum(block.redone for block in blocks),
        sum(block.seconds for block in blocks),
        [count_operators(graph) for graph in optimised if graph is not None],
    )


def check_processors(threads: int, affinity: tuple[int, ...] | None) -> None:
    """Make sure that every thread has a processor.

    Raises:
        DeviceError: If there are fewer processors than threads.
    """
    available = cores() if affinity is None else min(cores(), len(affinity))
    if threads > available:
        raise DeviceError(
            f"The device asks for {threads} threads, but may use {available} processors: threads that take turns on "
            "one processor give no meaningful latency. Lower `threads`, or give the device more processors."
        )


@contextmanager
def pinned(affinity: tuple[int, ...] | None) -> Iterator[None]:
    """Run this thread, and the threads it starts, on the given processors; None for any.

    Raises:
        DeviceError: If the process may not use them.
    """
    if affinity is None:
        yield
        return
    if not hasattr(os, "sched_setaffinity"):
        raise DeviceError("This system cannot pin a process to processors: leave the device's affinity empty.")
    before = os.sched_getaffinity(0)
    if not affinity or not set(affinity) <= before:
        raise DeviceError(
            f"The device is to run on processors {list(affinity)}, but this process may use {sorted(before)} only."
        )
    os.sched_setaffinity(0, affinity)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
