"""The loop that fills a study: claim a slot, propose, evaluate, write."""

import errno
import logging
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nasflow.evaluators.base import Context, Evaluator
from nasflow.pareto import non_dominated
from nasflow.strategies.base import Strategy
from nasflow.study.study import Claim, Record, Study
from nasflow.study.workers import Heartbeat, Liveness, Worker
from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError, NasflowError, StudyError, unknown

logger = logging.getLogger(__name__)

Progress = Callable[[list[Record]], None]
POLL_S = 0.5
_MACHINE_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}


@dataclass
class Runner:
    """Evaluates slots of a study until its budget is spent.

    Attributes:
        study: Where results are written.
        strategy: What proposes architectures.
        evaluators: What gives the metrics; cheap ones run first, the rest in the given order.
        folder: Where evaluators keep artefacts; None for nowhere.
        max_failure_rate: Share of failed slots above which the run stops, once `patience` slots are spent.
        patience: Slots before failures are judged.
        liveness: Decides which other workers are dead.
        progress: Called with all records after every slot.
    """

    study: Study
    strategy: Strategy
    evaluators: Sequence[Evaluator]
    folder: Path | None = None
    max_failure_rate: float = 0.5
    patience: int = 5
    liveness: Liveness | None = None
    progress: Progress | None = None

    def __post_init__(self) -> None:
        self.evaluators = select(self.evaluators, self.study.objectives.metrics)
        self._liveness = self.liveness or Liveness()
        self._worker = str(Worker.current())

    def run(self, budget: int) -> list[Record]:
        """Work until slots 0 to `budget - 1` are spent, here or by other workers, and return all records.

        Raises:
            StudyError: If too many slots fail, or the log cannot be written.
        """
        with _interruptible(), Heartbeat(lambda: self.study.beat(self._worker, time.time())):
            self._report()
            while True:
                reaped = self.study.reap(self._liveness)
                if reaped:
                    logger.warning("Taking up slots of dead workers again: %s", ", ".join(map(str, reaped)))
                self._check_failures()
                slot = self.study.next_slot(budget)
                if slot is None and not self.study.running():
                    return self.study.records()
                if slot is None:
                    time.sleep(POLL_S)
                elif not self._take(slot):
                    return self.study.records()

    def _take(self, slot: int) -> bool:
        """Evaluate one slot; False when the strategy has nothing left to propose."""
        rng = np.random.default_rng([self.study.seed, slot])
        rows, fidelity = self.strategy.propose(self.study.log(), 1, rng)
        if len(rows) == 0:
            if self.study.running():
                time.sleep(POLL_S)
                return True
            logger.warning("Every architecture that the strategy can reach has been evaluated: stopping early.")
            return False
        claim = self.study.claim(slot, rows[0], self._worker)
        if claim is not None:
            self._evaluate(claim, fidelity)
            self._report()
        return True

    def _evaluate(self, claim: Claim, fidelity: float | None) -> None:
        started = time.perf_counter()
        try:
            result, ruled_out = self._measure(claim, fidelity)
        except (StudyError, KeyboardInterrupt, SystemExit) as error:
            self.study.release(claim, f"interrupted: {type(error).__name__}")
            raise
        except OSError as error:
            if error.errno not in _MACHINE_FAULTS:
                self.study.fail(claim, self._reason(claim, error))
                return
            self.study.release(claim, f"interrupted: {error}")
            raise StudyError(
                f"Slot {claim.slot} could not be evaluated because of the machine, not the architecture: {error}. "
                "Nothing that had finished is lost. Free space or repair what is named, then give the same command "
                "again."
            ) from error
        except Exception as error:  # whatever an evaluator raises is recorded, and the run goes on
            self.study.fail(claim, self._reason(claim, error))
            return
        result["seconds"] = time.perf_counter() - started
        if not self.study.finish(claim, result, ruled_out):
            logger.warning("Slot %d was given to another worker while it ran here; this result is dropped.", claim.slot)

    def _reason(self, claim: Claim, error: Exception) -> str:
        reason = str(error) if isinstance(error, NasflowError) else f"{type(error).__name__}: {error}"
        logger.warning("Slot %d failed: %s", claim.slot, reason)
        if not isinstance(error, NasflowError) and self.folder is not None:
            dump = self.folder / "errors" / f"slot_{claim.slot}.txt"
            dump.parent.mkdir(parents=True, exist_ok=True)
            dump.write_text(traceback.format_exc())
        return reason

    def _measure(self, claim: Claim, fidelity: float | None) -> tuple[dict[str, Any], bool]:
        """Run the evaluators in order; stop at the first missed bound."""
        archs = ArchBatch(self.study.space, claim.row)
        context = Context(
            seeds=[slot_seed(self.study.seed, claim.slot)],
            fidelity=fidelity,
            folder=self.folder,
            front=self._front(),
        )
        objectives = self.study.objectives
        metrics: dict[str, float] = {}
        provenance: dict[str, Any] = {} if fidelity is None else {"fidelity": fidelity}
        for evaluator in self.evaluators:
            evaluation = evaluator.evaluate(archs, context)
            metrics |= {name: float(values[0]) for name, values in evaluation.columns.items()}
            if evaluation.provenance:
                provenance[type(evaluator).__name__.lower()] = evaluation.provenance[0]
            known = {name: np.array([value]) for name, value in metrics.items()}
            violations = {name: float(missed[0]) for name, missed in objectives.violations(known).items()}
            if any(missed > 0 for missed in violations.values()):
                break
        missing = [metric for metric in objectives.metrics if metric not in metrics]
        unusable = [m for m in objectives.metrics if m in metrics and not np.isfinite(metrics[m])]
        if unusable:
            raise NasflowError(f"{unusable[0]} is {metrics[unusable[0]]}, not a finite number.")
        return {"metrics": metrics, "violations": violations, "provenance": provenance}, bool(missing)

    def _front(self) -> ArchBatch | None:
        log = self.study.log()
        good = np.flatnonzero(log.succeeded & (log.violation <= 0))
        if len(good) == 0:
            return None
        return ArchBatch(self.study.space, log.rows[good[non_dominated(log.losses[good])]])

    def _check_failures(self) -> None:
        records = self.study.records()
        failed = [record for record in records if record.state == "failed"]
        if len(records) >= self.patience and len(failed) > self.max_failure_rate * len(records):
            raise StudyError(
                f"{len(failed)} of {len(records)} evaluations failed, more than {self.max_failure_rate:.0%}, so the "
                f"run stops; the last one said: {failed[-1].error} Mend the cause, or raise max_failure_rate, and give "
                "the same command again: what had finished is kept."
            )

    def _report(self) -> None:
        if self.progress:
            self.progress(self.study.records())


def slot_seed(seed: int, slot: int) -> int:
    """Return the seed of a slot's evaluation, a non-negative 31-bit number."""
    return int(np.random.SeedSequence([seed, slot]).generate_state(1)[0] >> 1)


def select(evaluators: Sequence[Evaluator], metrics: Sequence[str]) -> list[Evaluator]:
    """Return those evaluators that are needed for `metrics`, cheap ones first, each metric from its first provider.

    Raises:
        ConfigError: If no evaluator provides a metric.
    """
    provided = {name for evaluator in evaluators for name in evaluator.provides}
    for metric in metrics:
        if metric not in provided:
            raise ConfigError(
                f"No evaluator gives {metric!r}. " + unknown("metric", metric, provided)
                + " Or add the evaluator that gives it, for instance evaluator=[costs,train,device]."
            )
    chosen: list[Evaluator] = []
    open_metrics = set(metrics)
    for evaluator in evaluators:
        if open_metrics & set(evaluator.provides):
            chosen.append(evaluator)
            open_metrics -= set(evaluator.provides)
    return sorted(chosen, key=lambda evaluator: evaluator.cost != "cheap")


@contextmanager
def _interruptible() -> Iterator[None]:
    """Turn a termination signal into an orderly exit that gives the running slot back."""

    def leave(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    try:
        former = signal.signal(signal.SIGTERM, leave)
    except ValueError:  # not in the main thread: the embedding program handles signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)
