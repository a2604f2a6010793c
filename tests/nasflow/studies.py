"""A toy space, evaluators and worker processes that the tests of studies share."""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from nasflow.evaluators.base import Context, Evaluation
from nasflow.objectives import Objectives
from nasflow.strategies import RegularizedEvolution
from nasflow.study.records import Record
from nasflow.study.runner import Runner
from nasflow.study.study import Claim, Study
from nasflow.study.workers import Liveness
from searchspaces.arch import ArchBatch
from searchspaces.genes import Gene, GeneSpace, Rows


class Toy(GeneSpace):
    """Choices of every kind of label."""

    name = "toy"
    genes = (
        Gene("op", ("none", "skip", "conv")),
        Gene("kernel", (3, 5, 7), ordered=True),
        Gene("ratio", (0.25, 0.5, 1.0), ordered=True),
        *(Gene(f"edge{i}", ("a", "b", "c", "d")) for i in range(3)),
    )


class Other(Toy):
    """The same genes under another name."""

    name = "other"


ROW = np.array([1, 2, 0, 3, 0, 1])
RESULT: dict[str, Any] = {
    "metrics": {"accuracy": 90.0, "latency_ms": 2.0},
    "violations": {},
    "provenance": {"known": {"seed": 3}},
    "seconds": 0.5,
}


class Tiny(GeneSpace):
    """Keeps log entries short."""

    name = "tiny"
    genes = (Gene("x", (0, 1, 2)), Gene("y", (0, 1, 2)))


class Known:
    """Metrics that follow from row and seed.

    Args:
        provides: Names of the metrics.
        cost: Cheap or expensive.
        sleep_s: How long an evaluation takes.
        faults: What happens at which call, counted from 0: an exception to raise, or a number for every metric.
    """

    deterministic = True

    def __init__(
        self,
        provides: Sequence[str] = ("accuracy", "latency_ms"),
        cost: Literal["cheap", "expensive"] = "expensive",
        sleep_s: float = 0.0,
        faults: dict[int, BaseException | float] | None = None,
    ) -> None:
        self.provides = tuple(provides)
        self.cost: Literal["cheap", "expensive"] = cost
        self.sleep_s = sleep_s
        self.faults = faults or {}
        self.calls = 0

    def evaluate(self, archs: ArchBatch, context: Context) -> Evaluation:
        time.sleep(self.sleep_s)
        fault = self.faults.get(self.calls)
        self.calls += 1
        if isinstance(fault, BaseException):
            raise fault
        columns = {}
        for i, metric in enumerate(self.provides):
            rng = np.random.default_rng([context.seeds[0], i])
            exact = float((archs.rows[0] * np.arange(1, archs.rows.shape[1] + 1)).sum() + i)
            columns[metric] = np.array([exact + rng.random() if fault is None else fault])
        return Evaluation(columns, [{"seed": context.seeds[0]}])


class Drawn:
    """Random search that counts its proposals."""

    def __init__(self) -> None:
        self.calls = 0

    def propose(self, log: Any, k: int, rng: np.random.Generator) -> tuple[Rows, float | None]:
        self.calls += 1
        return log.space.sample(k, rng), None


def two_objectives(**latency: float) -> Objectives:
    return Objectives(accuracy={"direction": "maximize"}, latency_ms={"direction": "minimize", **latency})


def opened(storage: BaseStorage, seed: int = 0, **given: Any) -> Study:
    objectives = given.pop("objectives", two_objectives())
    return Study(storage, given.pop("space", Toy()), objectives, seed, **given)


def evolving(study: Study, sleep_s: float = 0.0, **given: Any) -> Runner:
    """A runner whose proposals depend on the whole log."""
    strategy = RegularizedEvolution(population=6, tournament=3)
    return Runner(study, strategy, [Known(sleep_s=sleep_s)], poll_s=0.02, **given)


def told(records: Sequence[Record]) -> list[tuple[int, str, list[int], dict[str, float], str]]:
    """What must be equal between two runs of the same study."""
    return [(r.slot, r.state, r.row.tolist(), dict(r.metrics), r.error) for r in records]


def counted(study: Study) -> dict[int, int]:
    """Per slot how many trials spend it, as Optuna's own trials tell."""
    counts: dict[int, int] = {}
    for trial in study.optuna.get_trials(deepcopy=False):
        attributes = trial.user_attrs
        spent = trial.state in (TrialState.COMPLETE, TrialState.PRUNED) or "error" in attributes
        counts[attributes["slot"]] = counts.get(attributes["slot"], 0) + spent
    return counts


def won(study: Study, slots: int) -> list[int]:
    """Claim and finish what can be had of `slots`."""
    mine = []
    for slot in range(slots):
        claim = study.claim(slot, ROW, "me")
        if claim and study.finish(claim, RESULT):
            mine.append(slot)
    return mine


def ended_by(mine: Study, theirs: Study, claim: Claim) -> list[bool]:
    """Let one finish a trial while the other gives it back; return who succeeded."""
    with ThreadPoolExecutor(2) as pool:
        ends = pool.submit(mine.finish, claim, RESULT), pool.submit(theirs.release, claim, "taken away")
        return [end.result() for end in ends]


class Verdict(Liveness):
    """Takes all workers for dead, or none; `meanwhile` runs while it thinks."""

    def __init__(self, dead: bool = True, meanwhile: Callable[[], object] | None = None) -> None:
        super().__init__()
        self.dead = dead
        self.meanwhile = meanwhile

    def is_dead(self, worker: str, heartbeat: float | None) -> bool:
        if self.meanwhile:
            self.meanwhile()
        return self.dead


def forked(work: Callable[[], object]) -> int:
    """Do `work` in a process of its own and return its number; it exits with 0, or 1 where `work` raised."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def exit_code(pid: int) -> int:
    """Wait for a process."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def killed(pid: int) -> bool:
    """Kill a process at once; tell whether it was still at work."""
    os.kill(pid, signal.SIGKILL)
    return exit_code(pid) == -signal.SIGKILL
