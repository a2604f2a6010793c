"""The loop that fills a study: claim a slot, propose, evaluate, write."""

import logging
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nasflow.evaluators.base import Context, Evaluator
from nasflow.study.evaluation import Evaluation, machine_fault, proposal_rng, select, slot_seed
from nasflow.study.study import Claim, Record, Study
from nasflow.study.workers import Heartbeat, Liveness, Worker
from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError, NasflowError, StudyError

if TYPE_CHECKING:
    from nasflow.strategies.base import Strategy  # strategies read logs, so they import this package

__all__ = ["Progress", "Runner", "select", "slot_seed"]

logger = logging.getLogger(__name__)

Progress = Callable[[list[Record]], None]


@dataclass
class Runner:
    """Evaluates slots of a study until its budget is spent.

    Attributes:
        study: Where results are written.
        strategy: What proposes architectures.
        evaluators: What gives the metrics; cheap ones run first, the rest in the given order.
        folder: Where evaluators keep artefacts; None for nowhere.
        max_failure_rate: Share of the slots spent during this run above which failures stop it.
        patience: Slots before failures are judged.
        liveness: Decides which other workers are dead.
        progress: Called with all records after every slot.
        poll_s: Seconds between looks at the storage while other workers finish.
    """

    study: Study
    strategy: "Strategy"
    evaluators: Sequence[Evaluator]
    folder: Path | None = None
    max_failure_rate: float = 0.5
    patience: int = 5
    liveness: Liveness | None = None
    progress: Progress | None = None
    poll_s: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.max_failure_rate <= 1:
            raise ConfigError(f"max_failure_rate is a share between 0 and 1, but is {self.max_failure_rate}.")
        self._evaluation = Evaluation(self.evaluators, self.study.objectives)
        self.evaluators = self._evaluation.evaluators
        self._liveness = self.liveness or Liveness()
        self._waiting = False

    def run(self, budget: int) -> list[Record]:
        """Work until slots 0 to `budget - 1` are spent, here or by other workers, and return all records.

        Raises:
            StudyError: If too many slots fail, the machine fails, or the log cannot be read or written.
            ArchitectureError: If the strategy proposes what does not belong to the space.
        """
        worker = Worker.current()
        before = {record.slot for record in self.study.records()}
        with _interruptible(), Heartbeat(worker, lambda text: self.study.beat(text, time.time())):
            self._report()
            while True:
                self._reap()
                self._check_failures(before)
                slot = self.study.next_slot(budget)
                if slot is None and not self.study.running():
                    break
                if slot is None:
                    self._wait()
                elif not self._take(slot, worker):
                    break
        return self.study.records()

    def _reap(self) -> None:
        reaped = self.study.reap(self._liveness)
        if reaped:
            logger.warning("Taking up slots of dead workers again: %s", ", ".join(map(str, reaped)))

    def _wait(self) -> None:
        if not self._waiting:
            workers = {str(trial.user_attrs.get("worker", "?")) for trial in self.study.running()}
            names = sorted(" process ".join(worker.split("|")[:2]) for worker in workers)
            logger.info("No slot is free; waiting for other workers (%s).", ", ".join(names))
        self._waiting = True
        time.sleep(self.poll_s)

    def _take(self, slot: int, worker: Worker) -> bool:
        """Evaluate one slot; False when the strategy has nothing left to propose."""
        rng = proposal_rng(self.study.seed, slot)
        rows, fidelity = self.strategy.propose(self.study.log(), 1, rng)
        if len(rows) == 0:
            if self.study.running():
                self._wait()
                return True
            logger.warning("Every architecture that the strategy can reach has been evaluated: stopping early.")
            return False
        archs = ArchBatch(self.study.space, rows[:1])
        claim = self.study.claim(slot, archs.rows[0], str(worker))
        if claim is not None:
            self._waiting = False
            self._evaluate(claim, archs, fidelity)
            self._report()
        return True

    def _evaluate(self, claim: Claim, archs: ArchBatch, fidelity: float | None) -> None:
        started = time.perf_counter()
        try:
            front = self.study.front()
            context = Context(
                seeds=[slot_seed(self.study.seed, claim.slot)],
                slots=[claim.slot],
                fidelity=fidelity,
                folder=self.folder,
                front=ArchBatch(self.study.space, front) if len(front) else None,
            )
            result = asdict(self._evaluation(archs, context))
        except (StudyError, KeyboardInterrupt, SystemExit) as error:
            self._release(claim, f"interrupted: {type(error).__name__}")
            raise
        except Exception as error:  # whatever an evaluator raises is recorded, and the run goes on
            self._fail(claim, error)
            return
        ruled_out = result.pop("ruled_out")
        if not self.study.finish(claim, result | {"seconds": time.perf_counter() - started}, ruled_out):
            self._lost(claim)

    def _release(self, claim: Claim, reason: str) -> None:
        # Where the log cannot be written either, the slot is taken up again as that of a dead worker.
        with suppress(StudyError):
            self.study.release(claim, reason)

    def _fail(self, claim: Claim, error: Exception) -> None:
        fault = machine_fault(error, self.folder)
        if fault:
            self._release(claim, f"interrupted: {fault}")
            raise StudyError(
                f"Slot {claim.slot} could not be evaluated because of the machine, not the architecture: {fault}. "
                "Nothing that had finished is lost. Free space or mend what is named, then give the same command again."
            ) from error
        ours = isinstance(error, NasflowError)
        reason = str(error) if ours else f"{type(error).__name__}: {error}"
        logger.warning("Slot %d failed: %s", claim.slot, reason)
        if not ours and self.folder is not None:
            _dump(self.folder / "errors" / f"slot_{claim.slot}.txt", error)
        if not self.study.fail(claim, reason):
            self._lost(claim)

    def _lost(self, claim: Claim) -> None:
        logger.warning(
            "Slot %d was given to another worker, for this one had seemed dead; what came out of it here is dropped.",
            claim.slot,
        )

    def _check_failures(self, before: set[int]) -> None:
        """Stop when too many slots failed since this run began: what failed before may have been mended."""
        records = [record for record in self.study.records() if record.slot not in before]
        failed = [record for record in records if record.state == "failed"]
        if len(records) >= self.patience and len(failed) > self.max_failure_rate * len(records):
            last = max(failed, key=lambda record: record.trial)
            raise StudyError(
                f"{len(failed)} of {len(records)} evaluations failed, more than {self.max_failure_rate:.0%}, so the "
                f"run stops; the last one, slot {last.slot}, said: {last.error} Mend the cause, or raise "
                "max_failure_rate, and give the same command again: it continues with the next slot, and a larger "
                "budget makes up for the failed ones."
            )

    def _report(self) -> None:
        if self.progress:
            self.progress(self.study.records())


def _dump(path: Path, error: Exception) -> None:
    """Keep the traceback of an error; that this fails is no reason to stop."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    except OSError as failed:
        logger.warning("The traceback could not be kept in %s: %s", path, failed)


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
        signal.signal(signal.SIGTERM, former or signal.SIG_DFL)
