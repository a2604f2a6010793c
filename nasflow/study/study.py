"""A study: Optuna's, with slots on top.

Every evaluation has a slot number. Seeds derive from the study's seed and the slot, the budget counts slots, and the
slot of a dead worker is taken up again; so a resumed run equals an uninterrupted one. A trial's user attributes are

- `slot` and `worker`, written with the trial itself;
- `result`: a mapping with `metrics`, `violations`, `provenance`, `seconds`;
- `error`: why its evaluation failed;
- `abandoned`: why it does not count (its worker died, or another worker had claimed the slot first).

A trial spends its slot when it is complete or pruned (ruled out) and has a result, or is failed and has an error. So
the one write that ends a trial decides, and storages accept only the first such write. What is measured afterwards of
a figure that was predicted is an attribute of the study, `measured:TRIAL:METRIC`, for trials that ended cannot change.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from nasflow.objectives import Direction, Objectives
from nasflow.study.identity import describe_changes, identity
from nasflow.study.log import Log
from nasflow.study.predictions import with_measured
from nasflow.study.records import Record, Records, State
from nasflow.study.storage import reason
from nasflow.study.workers import Liveness
from searchspaces.errors import ConfigError, NasflowError, StudyError
from searchspaces.genes import GeneSpace, Rows

__all__ = ["MAX_ATTEMPTS", "Claim", "Record", "Study"]

MAX_ATTEMPTS = 3
_DIED = "its worker died"
_MEASURED = "measured"
_LATE = "another worker had claimed slot {} first"
_STATES: dict[TrialState, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "ruled_out",
    TrialState.FAIL: "failed",
}


@dataclass(frozen=True)
class Claim:
    """A slot that this worker evaluates.

    Attributes:
        slot: Its number.
        trial_id: Optuna's identifier of the running trial.
        row: The architecture, shape `(genes,)`.
    """

    slot: int
    trial_id: int
    row: NDArray[np.int64]


class Study:
    """The durable log of a search.

    Args:
        storage: Where the log is kept (see `nasflow.study.storage`).
        space: The space that is searched.
        objectives: What is searched for.
        seed: Seed of the whole study.
        config: Everything that decides the run's results; a study continues only under the same one.
        name: The study's name within the storage.
        create: Whether the study may be new.

    Raises:
        ConfigError: If the seed is negative or the config cannot be stored.
        StudyError: If the storage fails, or holds a study of this name with another space, other objectives, another
            seed or another config.
    """

    def __init__(
        self,
        storage: BaseStorage,
        space: GeneSpace,
        objectives: Objectives,
        seed: int = 0,
        config: Mapping[str, Any] | None = None,
        name: str = "nasflow",
        create: bool = True,
    ) -> None:
        if seed < 0:
            raise ConfigError(f"A study's seed is a number from 0 on, but is {seed}.")
        self.space = space
        self.objectives = objectives
        self.seed = seed
        self._distributions: dict[str, BaseDistribution] = {
            gene.name: CategoricalDistribution([_label(choice) for choice in gene.choices]) for gene in space.genes
        }
        self._records = Records(space, objectives)
        self._unfinished: dict[int, FrozenTrial] = {}
        self._deaths: dict[int, int] = {}
        self._seen = 0
        self._log: tuple[tuple[int, ...], Log] | None = None
        wanted = {entry.metric: asdict(entry) for entry in objectives.entries}
        parts = identity(space=space.fingerprint, seed=seed, objective=wanted, config=dict(config or {}))
        self._name = name
        with self._guarded():
            self.optuna = _open(storage, name, objectives.directions, create)
            self._check_identity(parts)

    def _check_identity(self, parts: Mapping[str, Any]) -> None:
        stored = self.optuna.user_attrs.get("nasflow")
        if stored is None and self.optuna.get_trials(deepcopy=False):
            raise StudyError(
                f"The storage has a study {self._name!r} that nasflow did not begin. Choose another name "
                "(storage.study=NAME) or another folder (hydra.run.dir=FOLDER)."
            )
        if stored is None:
            with warnings.catch_warnings():  # metric names are still called experimental
                warnings.simplefilter("ignore", ExperimentalWarning)
                self.optuna.set_metric_names([entry.metric for entry in self.objectives.optimised])
            self.optuna.set_user_attr("nasflow", parts)
            stored = self.optuna.user_attrs["nasflow"]  # what counts is what other workers read
        changes = describe_changes(stored, parts)
        if changes:
            raise StudyError(
                f"The study {self._name!r} was begun with another configuration ({changes}). Only the budget may "
                "change on a resume: give the former values, or start a new study in another folder "
                "(hydra.run.dir=FOLDER) or, in a database, under another name (storage.study=NAME)."
            )

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Word the faults of a storage; each kind has errors of its own."""
        try:
            yield
        except (NasflowError, UpdateFinishedTrialError):
            raise
        except Exception as error:
            raise StudyError(
                f"The storage of study {self._name!r} failed: {reason(error)} What had finished is kept. See that the "
                "storage is there and that nobody else changes it, then give the same command again."
            ) from error

    # -- reading -----------------------------------------------------------------------------------------------

    def _sync(self) -> None:
        """Take in the trials that are new, and those that had not finished when last seen."""
        with self._guarded():
            trials = self.optuna.get_trials(deepcopy=False)
        for number in [*self._unfinished, *range(self._seen, len(trials))]:
            trial = trials[number]
            if "slot" not in trial.user_attrs:
                continue
            if not trial.state.is_finished():
                self._unfinished[number] = trial
                continue
            self._unfinished.pop(number, None)
            self._settle(trial)
        self._seen = len(trials)

    def _settle(self, trial: FrozenTrial) -> None:
        attrs = trial.user_attrs
        spent = "error" in attrs if trial.state == TrialState.FAIL else "result" in attrs
        if spent:
            self._records.add(self._read(trial))
            self._log = None
        elif attrs.get("abandoned", "").startswith(_DIED):
            self._deaths[attrs["slot"]] = self._deaths.get(attrs["slot"], 0) + 1

    def records(self) -> list[Record]:
        """Return all spent slots, in slot order."""
        self._sync()
        return self._records.ordered()

    def verified(self) -> list[Record]:
        """Return all spent slots, in slot order, with what `keep_measured` was given in place of predictions."""
        with self._guarded():
            attributes = self.optuna.user_attrs
        found: dict[int, dict[str, Any]] = {}
        for key, value in attributes.items():
            kind, _, rest = key.partition(":")
            if kind == _MEASURED:
                trial, _, metric = rest.partition(":")
                found.setdefault(int(trial), {})[metric] = value
        return [
            with_measured(record, self.objectives, found[record.trial]) if record.trial in found else record
            for record in self.records()
        ]

    def keep_measured(self, record: Record, metric: str, found: Mapping[str, Any]) -> None:
        """Keep what was measured of a metric that was predicted, for `verified`.

        Args:
            record: The slot.
            metric: Name of the metric.
            found: What the measurement says of itself, see `nasflow.study.predictions.with_measured`.

        Raises:
            StudyError: If the storage fails.
        """
        with self._guarded():
            self.optuna.set_user_attr(f"{_MEASURED}:{record.trial}:{metric}", dict(found))

    def _row(self, trial: FrozenTrial) -> NDArray[np.int64]:
        try:
            choices = [self._distributions[g.name].to_internal_repr(trial.params[g.name]) for g in self.space.genes]
        except (KeyError, ValueError) as error:
            raise StudyError(
                f"Trial {trial.number} of study {self._name!r} is not of space {self.space.name!r}: {error}. Start a "
                "new study in another folder (hydra.run.dir=FOLDER)."
            ) from error
        return np.array(choices, dtype=np.int64)

    def _read(self, trial: FrozenTrial) -> Record:
        result = trial.user_attrs.get("result", {}) if trial.state != TrialState.FAIL else {}
        return Record(
            slot=trial.user_attrs["slot"],
            trial=trial.number,
            row=self._row(trial),
            state=_STATES[trial.state],
            metrics=result.get("metrics", {}),
            violation=float(sum(result.get("violations", {}).values())),
            provenance=result.get("provenance", {}),
            error=trial.user_attrs["error"] if trial.state == TrialState.FAIL else "",
            seconds=result.get("seconds", 0.0),
        )

    def running(self) -> list[FrozenTrial]:
        """Return the trials under way, by trial number."""
        self._sync()
        return [self._unfinished[number] for number in sorted(self._unfinished)]

    def log(self) -> Log:
        """Return what strategies see."""
        running = self.running()
        key = tuple(trial.number for trial in running)
        if self._log is None or self._log[0] != key:
            self._log = key, self._records.log([self._row(trial) for trial in running])
        return self._log[1]

    def front(self) -> Rows:
        """Return the feasible non-dominated architectures, in slot order, shape `(n, genes)`."""
        self._sync()
        return self._records.front()

    # -- slots -------------------------------------------------------------------------------------------------

    def next_slot(self, budget: int) -> int | None:
        """Return the lowest slot below `budget` that is neither spent nor under way; None when there is none."""
        self._sync()
        slot = self._records.next_open({trial.user_attrs["slot"] for trial in self._unfinished.values()})
        return slot if slot < budget else None

    def claim(self, slot: int, row: NDArray[np.int64], worker: str) -> Claim | None:
        """Start a trial for `slot`, or return None when another worker was first.

        Workers that claim one slot at the same time all write a trial; the storage numbers them, and the lowest
        number has it.
        """
        params = {gene.name: _label(gene.choices[choice]) for gene, choice in zip(self.space.genes, row, strict=True)}
        template = create_trial(
            state=TrialState.RUNNING,
            params=params,
            distributions=self._distributions,
            user_attrs={"slot": slot, "worker": worker},
        )
        with self._guarded():
            trial_id = self.optuna._storage.create_new_trial(self.optuna._study_id, template_trial=template)
        self._sync()
        rivals = [trial for trial in self._unfinished.values() if trial.user_attrs["slot"] == slot]
        first = min(rivals, key=lambda trial: trial.number, default=None)
        if slot in self._records or first is None or first._trial_id != trial_id:
            self._end(trial_id, TrialState.FAIL, abandoned=_LATE.format(slot))
            return None
        return Claim(slot, trial_id, row)

    def finish(self, claim: Claim, result: Mapping[str, Any], ruled_out: bool = False) -> bool:
        """Write a trial's result; False when the trial had been taken from this worker meanwhile.

        Args:
            claim: The slot.
            result: `metrics`, `violations` (by bounded metric), `provenance` and `seconds`, all JSON-able.
            ruled_out: Whether a bound was missed before all objectives were known.

        Raises:
            StudyError: If the storage fails.
        """
        # Optuna's convention: positive is infeasible. One list in one write; Optuna shows it as constraints 0, 1, ….
        constraints = list(result["violations"].values())
        if ruled_out:
            return self._end(claim.trial_id, TrialState.PRUNED, constraints=constraints, result=result)
        values = [result["metrics"][objective.metric] for objective in self.objectives.optimised]
        return self._end(claim.trial_id, TrialState.COMPLETE, values, constraints, result=result)

    def fail(self, claim: Claim, error: str) -> bool:
        """Write that a slot's evaluation failed and why, which spends it; False when the trial had been taken away."""
        return self._end(claim.trial_id, TrialState.FAIL, error=error)

    def release(self, claim: Claim, reason: str) -> bool:
        """Give a slot back unevaluated, to be taken up again; False when the trial had been taken away."""
        return self._end(claim.trial_id, TrialState.FAIL, abandoned=reason)

    def _end(
        self,
        trial_id: int,
        state: TrialState,
        values: list[float] | None = None,
        constraints: list[float] | None = None,
        **attributes: Any,
    ) -> bool:
        """Write what is known of a trial, then its final state; False when it had ended before."""
        storage = self.optuna._storage
        with self._guarded():
            try:
                for key, value in attributes.items():
                    storage.set_trial_user_attr(trial_id, key, value)
                if constraints:
                    storage.set_trial_system_attr(trial_id, "constraints", constraints)
                return storage.set_trial_state_values(trial_id, state, values)
            except UpdateFinishedTrialError:
                return False

    # -- workers -----------------------------------------------------------------------------------------------

    def beat(self, worker: str, now: float) -> None:
        """Write a heartbeat of `worker`: any value that differs from the one before."""
        with self._guarded():
            self.optuna.set_user_attr(f"heartbeat:{worker}", now)

    def reap(self, liveness: Liveness) -> list[int]:
        """End the running trials of dead workers; return the slots that have to be taken up again.

        What died between its result and its final state has all that counts: that state is written. Others are failed.
        A slot whose workers died `MAX_ATTEMPTS` times is failed for good: its architecture probably kills them.
        """
        running = self.running()
        if not running:
            return []
        with self._guarded():
            beats = self.optuna.user_attrs
        reaped = []
        held: set[int] = set()
        for trial in running:
            slot, worker = trial.user_attrs["slot"], trial.user_attrs.get("worker", "")
            # Trials come by number, so the first of a slot has it; others died before they could withdraw.
            holds = slot not in held and slot not in self._records
            held.add(slot)
            if not liveness.is_dead(worker, beats.get(f"heartbeat:{worker}")):
                continue
            deaths = 1 + self._deaths.get(slot, 0)
            if not holds:
                self._end(trial._trial_id, TrialState.FAIL, abandoned=_LATE.format(slot))
            elif "result" in trial.user_attrs:
                self._finish_for(trial)
            elif deaths >= MAX_ATTEMPTS:
                error = f"The worker died {deaths} times while evaluating this slot."
                self._end(trial._trial_id, TrialState.FAIL, error=error)
            elif self._end(trial._trial_id, TrialState.FAIL, abandoned=f"{_DIED} (attempt {deaths})"):
                reaped.append(slot)
        return reaped

    def _finish_for(self, trial: FrozenTrial) -> None:
        """Write the final state of a trial whose worker wrote the result, and died."""
        result = trial.user_attrs["result"]
        ruled_out = any(objective.metric not in result["metrics"] for objective in self.objectives.optimised)
        self.finish(Claim(trial.user_attrs["slot"], trial._trial_id, self._row(trial)), result, ruled_out)


def _open(storage: BaseStorage, name: str, directions: Sequence[Direction], create: bool) -> optuna.Study:
    """Load a study or create it, without Optuna's announcements; loading alone writes nothing."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.load_study(study_name=name, storage=storage)
    except KeyError as missing:  # not there yet
        if not create:
            raise StudyError(
                f"The storage holds no study {name!r} to open. A search that was kept in memory ended with its "
                "process; otherwise give the folder of a search whose storage is there."
            ) from missing
        return optuna.create_study(storage=storage, study_name=name, directions=directions, load_if_exists=True)
    finally:
        optuna.logging.set_verbosity(level)


def _label(choice: Any) -> Any:
    """Optuna takes text, numbers and booleans as categories; numpy's scalars are made plain."""
    return choice.item() if isinstance(choice, np.generic) else choice
