"""The measurement protocol: in which order models run, which samples count, and what they amount to.

The speed of a machine changes while it is measured: clock rates, neighbours on a shared host, memory placement. So

- models are resident together; each round visits all of them in a new random order, one visit being a few runs
  back to back. The first runs of a visit find the caches cold and are dropped: the first takes 1.5 times, the second
  1.1 times as long, the third as long as all later ones. What is left does not depend on the neighbours;
- anchors, models whose time is known, open and close every round. A model's *pace* in the round is how much slower
  than known the anchors ran, those of about its own time before all; its samples are divided by it. Measured one at
  a time over six processes, 20 networks of 0.1–1.5 ms varied by 3.6 % as measured and by 1.0 % divided by the pace.
  Networks of 0.02–0.07 ms need anchors as small: beside a large one alone, the figures of 4,930 of them had an error
  of 14 % that lasted for dozens of models, beside three anchors 2.7 % all told;
- a round in which an anchor leaves its median over the rounds by more than 5 % is done again, a bounded number of
  times; then it is kept, and the measurement says so;
- all of it is repeated with fresh sessions, since where a session's memory lies moves its time by 1–3 %;
- a session warms up until its times are stable, which takes 6 runs or a few more: in the median of 64 cells, the first
  round then takes as long as later ones, to within 0.4 %;
- nothing sleeps between runs: a pause of 100 ms makes the next run twice as long.

Nothing here knows what a model is: a run is a function without arguments.
"""

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from searchspaces.errors import DeviceError

VERSION = 2
"""Part of every job's identity; raise it when the figures' meaning changes."""

_NEAR = 0.1  # difference in the logarithm of two times below which it no longer matters how near they are

Run = Callable[[], object]
Clock = Callable[[], int]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Plan:
    """How much is run.

    Attributes:
        rounds: Rounds per set of sessions.
        runs_per_round: Samples taken in one visit.
        restarts: How often all sessions are opened afresh.
        sample_ms: A sample is the mean of as many runs as take about this long, or of one run that takes longer.
        discard: Samples that open a visit and are thrown away.
        warmup_window: Runs whose medians are compared during warm-up.
        warmup_tolerance: Largest relative difference of two consecutive windows that counts as stable.
        warmup_limit: Runs after which warming up ends in any case.
        drift_limit: Relative deviation of an anchor beyond which a round is done again.
        retries: How often rounds that drifted are done again before they are kept.
        trim: Shares of the lowest and of the highest samples that the estimate leaves out.

    Raises:
        DeviceError: If a number is out of range.
    """

    rounds: int = 10
    runs_per_round: int = 5
    restarts: int = 2
    sample_ms: float = 0.2
    discard: int = 2
    warmup_window: int = 3
    warmup_tolerance: float = 0.03
    warmup_limit: int = 50
    drift_limit: float = 0.05
    retries: int = 3
    trim: tuple[float, float] = (0.1, 0.2)

    def __post_init__(self) -> None:
        counts = (self.rounds, self.runs_per_round, self.restarts, self.warmup_window)
        if min(counts) < 1 or min(self.discard, self.retries) < 0 or not self.drift_limit > 0:
            raise DeviceError(
                "Measuring needs at least one round, one run per round and one restart, but the configuration says "
                f"rounds={self.rounds}, runs_per_round={self.runs_per_round}, restarts={self.restarts}, "
                f"discard={self.discard}, retries={self.retries}, drift_limit={self.drift_limit}."
            )
        if not (min(self.trim) >= 0 and sum(self.trim) < 1):
            raise DeviceError(f"The trimmed shares are at least 0 and sum to less than 1, but are {self.trim}.")


@dataclass(frozen=True, eq=False)
class Rounds:
    """Raw times of n models and a anchors over r rounds, in milliseconds.

    Attributes:
        samples: Times of the models, shape `(r, n, runs)`.
        anchors: Times of the anchors at the start and the end of each round, shape `(r, 2, a, runs)`.
        drifted: Rounds that are kept though an anchor drifted, shape `(r,)`.
        redone: Number of rounds that were thrown away and done again.
        seconds: Time from the first run to the last, with warm-up and rounds that were done again.
    """

    samples: Floats
    anchors: Floats
    drifted: NDArray[np.bool_]
    redone: int
    seconds: float


@dataclass(frozen=True)
class Estimate:
    """A model's time and its spread.

    Attributes:
        mean: Trimmed mean of the samples.
        std: Standard deviation over the rounds' medians; 0 for a single round.
        iqr: Interquartile range of the rounds' medians.
    """

    mean: float
    std: float
    iqr: float


def collect(
    models: Sequence[Run],
    anchors: Sequence[Run],
    plan: Plan,
    rng: np.random.Generator,
    clock: Clock = time.perf_counter_ns,
) -> Rounds:
    """Warm up, then time all models and anchors in rounds.

    Args:
        models: What is measured; each call is one run.
        anchors: At least one model to normalise by.
        plan: How much is run.
        rng: Draws the order within each round.
        clock: Nanoseconds from any origin.
    """
    with _no_garbage_collection():
        start = clock()
        residents = [Sampler(run, plan, clock) for run in models]
        fixed = [Sampler(run, plan, clock) for run in anchors]
        done = [_round(residents, fixed, plan, rng) for _ in range(plan.rounds)]
        redone = 0
        drifted = _drifted(done, plan)
        for _ in range(plan.retries):
            for i in np.flatnonzero(drifted):
                done[i] = _round(residents, fixed, plan, rng)
                redone += 1
            drifted = _drifted(done, plan)
        seconds = (clock() - start) / 1e9
    samples, times = (np.stack(part) for part in zip(*done, strict=True))
    return Rounds(samples, times, drifted, redone, seconds)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class Sampler:
    """Takes samples of one model; making one warms the model up.

    Args:
        run: Runs the model once.
        plan: How much is run.
        clock: Nanoseconds from any origin.

    Attributes:
        warmup: Number of runs that warming up took: until the medians of two windows agree, or to the limit.
        repeats: Number of runs in a sample.
    """

    def __init__(self, run: Run, plan: Plan, clock: Clock) -> None:
        self._run, self._plan, self._clock = run, plan, clock
        self.warmup, self.repeats = 0, 1
        before = np.inf
        while self.warmup < plan.warmup_limit:
            window = min(plan.warmup_window, plan.warmup_limit - self.warmup)
            now = float(np.median([self._sample() for _ in range(window)]))
            self.warmup += window
            if abs(now - before) <= plan.warmup_tolerance * now:
                break
            before = now
        self.repeats = max(1, round(plan.sample_ms / now)) if now > 0 else 1

    def _sample(self) -> float:
        start = self._clock()
        for _ in range(self.repeats):
            self._run()
        return (self._clock() - start) / 1e6 / self.repeats

    def visit(self) -> list[float]:
        """Return the samples of one visit, in ms per run."""
        for _ in range(self._plan.discard):
            self._sample()
        return [self._sample() for _ in range(self._plan.runs_per_round)]


def _round(
    models: Sequence[Sampler], anchors: Sequence[Sampler], plan: Plan, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    samples = np.empty((len(models), plan.runs_per_round))
    times = np.empty((2, len(anchors), plan.runs_per_round))
    for j in rng.permutation(len(anchors)):
        times[0, j] = anchors[j].visit()
    for i in rng.permutation(len(models)):
        samples[i] = models[i].visit()
    for j in rng.permutation(len(anchors)):
        times[1, j] = anchors[j].visit()
    return samples, times


def _drifted(done: Sequence[tuple[Floats, Floats]], plan: Plan) -> NDArray[np.bool_]:
    return np.asarray(drift(np.stack([times for _, times in done])) > plan.drift_limit)


def drift(anchors: Floats) -> Floats:
    """Return the largest relative deviation of an anchor's visit from its median over all rounds.

    Args:
        anchors: Times `(r, 2, a, runs)` as in `Rounds`.

    Returns:
        One number per round, shape `(r,)`.
    """
    visits = np.median(anchors, axis=3)
    return np.asarray(np.abs(visits / np.median(visits, axis=(0, 1)) - 1).max(axis=(1, 2)))


def pace(anchors: Floats, references: Floats, latency: float) -> Floats:
    """Return how many times slower than known the anchors ran, as a geometric mean that favours those near a latency.

    What slows a machine down slows small and large models by different factors, so each model is compared with anchors
    of about its own time: the weight of one falls with the logarithm of the ratio.

    Args:
        anchors: Times `(r, 2, a, runs)` as in `Rounds`.
        references: The anchors' known times, shape `(a,)`.
        latency: The model's time, not normalised, in the same unit.

    Returns:
        One factor per round, shape `(r,)`.
    """
    weights = 1 / (_NEAR + np.abs(np.log(latency / references)))
    return np.asarray(np.exp(np.log(np.median(anchors, axis=(1, 3)) / references) @ (weights / weights.sum())))


def trimmed_mean(values: Floats, trim: tuple[float, float] = (0.1, 0.2)) -> float:
    """Return the mean of all values without the given shares of the lowest and the highest."""
    ordered = np.sort(values, axis=None)
    low, high = (int(share * ordered.size) for share in trim)
    return float(ordered[low : ordered.size - high].mean())


def estimate(samples: Floats, paces: Floats, trim: tuple[float, float] = (0.1, 0.2)) -> Estimate:
    """Combine one model's samples.

    Args:
        samples: Times `(r, runs)`.
        paces: Factors `(r,)` by which the rounds ran slower than known.
        trim: Shares to leave out, see `Plan`.
    """
    normal = samples / paces[:, None]
    medians = np.median(normal, axis=1)
    low, high = np.percentile(medians, [25, 75])
    std = float(medians.std(ddof=1)) if len(medians) > 1 else 0.0
    return Estimate(trimmed_mean(normal, trim), std, float(high - low))
