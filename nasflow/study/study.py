"""A study: Optuna's, with slots on top.

Every evaluation has a slot number. Seeds derive from the study's seed and the slot, the budget counts slots, and the
slot of a dead worker is taken up again; so a resumed run equals an uninterrupted one. A trial's user attributes are

- `slot` and `worker`, written with the trial itself;
- `result`: one JSON object with `metrics`, `violations`, `provenance`, `seconds`;
- `error`: why its evaluation failed (the slot is spent), or
- `abandoned`: why it does not count (its worker died, or another worker had claimed the slot first).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from nasflow.objectives import Objectives
from nasflow.study.log import Log
from nasflow.study.workers import Liveness
from searchspaces.errors import StudyError
from searchspaces.genes import GeneSpace, Rows

MAX_ATTEMPTS = 3
_STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "ruled_out", TrialState.FAIL: "failed"}


@dataclass(frozen=True)
class Record:
    """One spent slot.

    Attributes:
        slot: Its number.
        trial: Number of the Optuna trial.
        row: The architecture, shape `(genes,)`.
        state: `complete`, `ruled_out` (a bound was missed before the expensive evaluations) or `failed`.
        metrics: What is known, by name.
        violation: Sum of the relative violations of the bounds.
        provenance: What the evaluators said on how the figures came about, by evaluator.
        error: Why it failed; empty otherwise.
        seconds: Wall time of the evaluation.
    """

    slot: int
    trial: int
    row: NDArray[np.int64]
    state: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    violation: float = 0.0
    provenance: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    seconds: float = 0.0


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

    Raises:
        StudyError: If the storage holds a study of this name with another space, other objectives or another config.
    """

    def __init__(
        self,
        storage: BaseStorage,
        space: GeneSpace,
        objectives: Objectives,
        seed: int = 0,
        config: Mapping[str, Any] | None = None,
        name: str = "nasflow",
    ) -> None:
        self.space = space
        self.objectives = objectives
        self.seed = seed
        self.optuna = optuna.create_study(
            storage=storage, study_name=name, directions=list(objectives.directions), load_if_exists=True
        )
        self._distributions: dict[str, BaseDistribution] = {
            gene.name: CategoricalDistribution([_label(choice) for choice in gene.choices]) for gene in space.genes
        }
        self._records: dict[int, Record] = {}
        self._settled: set[int] = set()
        self._check_identity({"space": space.fingerprint, "seed": seed, "config": dict(config or {})})

    def _check_identity(self, identity: Mapping[str, Any]) -> None:
        stored = self.optuna.user_attrs.get("nasflow")
        if stored is None:
            self.optuna.set_user_attr("nasflow", json.loads(json.dumps(identity)))
            return
        changed = _differences(stored, json.loads(json.dumps(identity)))
        if changed:
            listed = "; ".join(f"{key}: was {old!r}, is now {new!r}" for key, old, new in changed[:5])
            more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
            raise StudyError(
                f"The study {self.optuna.study_name!r} was begun with another configuration ({listed}{more}). Only the "
                "budget may change on a resume: give the former values, or start a new study in another folder "
                "(hydra.run.dir=FOLDER)."
            )

    # -- reading -----------------------------------------------------------------------------------------------

    def _trials(self) -> list[FrozenTrial]:
        return self.optuna.get_trials(deepcopy=False)

    def records(self) -> list[Record]:
        """Return all spent slots, in slot order."""
        for trial in self._trials():
            if trial.number not in self._settled and trial.state.is_finished():
                self._settled.add(trial.number)
                if "slot" in trial.user_attrs and "abandoned" not in _final_attrs(trial):
                    record = self._read(trial)
                    self._records.setdefault(record.slot, record)
        return [self._records[slot] for slot in sorted(self._records)]

    def _row(self, trial: FrozenTrial) -> NDArray[np.int64]:
        try:
            choices = [self._distributions[g.name].to_internal_repr(trial.params[g.name]) for g in self.space.genes]
        except (KeyError, ValueError) as error:
            raise StudyError(
                f"Trial {trial.number} of study {self.optuna.study_name!r} is not of space {self.space.name!r}: "
                f"{error}. Start a new study in another folder."
            ) from error
        return np.array(choices, dtype=np.int64)

    def _read(self, trial: FrozenTrial) -> Record:
        result = json.loads(trial.user_attrs.get("result", "{}"))
        return Record(
            slot=trial.user_attrs["slot"],
            trial=trial.number,
            row=self._row(trial),
            state=_STATES[trial.state],
            metrics=result.get("metrics", {}),
            violation=float(sum(result.get("violations", {}).values())),
            provenance=result.get("provenance", {}),
            error=trial.user_attrs.get("error", "") if trial.state == TrialState.FAIL else "",
            seconds=result.get("seconds", 0.0),
        )

    def running(self) -> list[FrozenTrial]:
        """Return the trials under way, by trial number."""
        return [trial for trial in self._trials() if trial.state == TrialState.RUNNING and "slot" in trial.user_attrs]

    def log(self) -> Log:
        """Return what strategies see."""
        records = self.records()
        n, k = len(records), len(self.objectives.optimised)
        losses = np.full((n, k), np.inf)
        done = [i for i, record in enumerate(records) if record.state == "complete"]
        if done:
            columns = {
                metric: np.array([records[i].metrics[metric] for i in done], dtype=np.float64)
                for metric in self.objectives.metrics
            }
            losses[done] = self.objectives.losses(columns)
        pending = [self._row(trial) for trial in self.running()]
        return Log(
            space=self.space,
            slots=np.array([record.slot for record in records], dtype=np.int64),
            rows=self._stack([record.row for record in records]),
            losses=losses,
            violation=np.array([np.inf if r.state == "failed" else r.violation for r in records], dtype=np.float64),
            fidelity=np.array([r.provenance.get("fidelity", np.nan) for r in records], dtype=np.float64),
            pending=self._stack(pending),
        )

    def _stack(self, rows: Sequence[NDArray[np.int64]]) -> Rows:
        return np.array(rows, dtype=np.int64).reshape(len(rows), len(self.space.genes))

    # -- slots -------------------------------------------------------------------------------------------------

    def next_slot(self, budget: int) -> int | None:
        """Return the lowest slot below `budget` that is neither spent nor under way; None when there is none."""
        taken = {record.slot for record in self.records()} | {t.user_attrs["slot"] for t in self.running()}
        return next((slot for slot in range(budget) if slot not in taken), None)

    def claim(self, slot: int, row: NDArray[np.int64], worker: str) -> Claim | None:
        """Start a trial for `slot`, or return None when another worker was first.

        Workers that claim one slot at the same time all write a trial; the storage numbers them, and the lowest
        number has it.
        """
        params = {
            gene.name: _label(gene.choices[choice]) for gene, choice in zip(self.space.genes, row, strict=True)
        }
        template = create_trial(
            state=TrialState.RUNNING,
            params=params,
            distributions=self._distributions,
            user_attrs={"slot": slot, "worker": worker},
        )
        template.datetime_start = datetime.now(UTC)
        trial_id = self.optuna._storage.create_new_trial(self.optuna._study_id, template_trial=template)
        number = self.optuna._storage.get_trial_number_from_id(trial_id)
        for trial in self._trials():
            holds = trial.user_attrs.get("slot") == slot and "abandoned" not in _final_attrs(trial)
            if holds and trial.number < number:
                self._abandon(trial_id, f"trial {trial.number} had claimed slot {slot} first")
                return None
        return Claim(slot, trial_id, row)

    def finish(self, claim: Claim, result: Mapping[str, Any], ruled_out: bool = False) -> bool:
        """Write a trial's result; False when the trial had been taken from this worker meanwhile.

        Args:
            claim: The slot.
            result: `metrics`, `violations` (by bounded metric), `provenance` and `seconds`, all JSON-able.
            ruled_out: Whether a bound was missed before all objectives were known.
        """
        storage = self.optuna._storage
        try:
            storage.set_trial_user_attr(claim.trial_id, "result", json.dumps(result))
            violations = result["violations"]
            if violations:
                # Optuna's convention: positive is infeasible.
                storage.set_trial_system_attr(claim.trial_id, "constraints", list(violations.values()))
            if ruled_out:
                storage.set_trial_state_values(claim.trial_id, TrialState.PRUNED)
            else:
                values = [result["metrics"][objective.metric] for objective in self.objectives.optimised]
                storage.set_trial_state_values(claim.trial_id, TrialState.COMPLETE, values)
        except UpdateFinishedTrialError:
            return False
        return True

    def fail(self, claim: Claim, error: str) -> bool:
        """Write that a slot's evaluation failed and why; the slot is spent."""
        try:
            self.optuna._storage.set_trial_user_attr(claim.trial_id, "error", error)
            self.optuna._storage.set_trial_state_values(claim.trial_id, TrialState.FAIL)
        except UpdateFinishedTrialError:
            return False
        return True

    def _abandon(self, trial_id: int, reason: str) -> bool:
        try:
            self.optuna._storage.set_trial_user_attr(trial_id, "abandoned", reason)
            self.optuna._storage.set_trial_state_values(trial_id, TrialState.FAIL)
        except UpdateFinishedTrialError:
            return False
        return True

    def release(self, claim: Claim, reason: str) -> None:
        """Give a slot back unevaluated, to be taken up again."""
        self._abandon(claim.trial_id, reason)

    # -- workers -----------------------------------------------------------------------------------------------

    def beat(self, worker: str, now: float) -> None:
        """Write a heartbeat of `worker`."""
        self.optuna.set_user_attr(f"heartbeat:{worker}", now)

    def reap(self, liveness: Liveness) -> list[int]:
        """Fail the running trials of dead workers, so that their slots are taken up again; return those slots.

        A slot whose workers died `MAX_ATTEMPTS` times is failed for good: its architecture probably kills them.
        """
        reaped = []
        running = self.running()
        if not running:
            return []
        beats = self.optuna.user_attrs
        for trial in running:
            worker = trial.user_attrs.get("worker", "")
            if not liveness.is_dead(worker, beats.get(f"heartbeat:{worker}")):
                continue
            slot = trial.user_attrs["slot"]
            deaths = 1 + sum(
                other.user_attrs.get("slot") == slot and "died" in other.user_attrs.get("abandoned", "")
                for other in self._trials()
            )
            claim = Claim(slot, trial._trial_id, np.array([]))
            if deaths >= MAX_ATTEMPTS:
                self.fail(claim, f"The worker died {deaths} times while evaluating this slot.")
            elif self._abandon(claim.trial_id, f"its worker died (attempt {deaths})"):
                reaped.append(slot)
        return reaped


def _label(choice: Any) -> Any:
    """Optuna takes text, numbers and booleans as categories; numpy's scalars are made plain."""
    return choice.item() if isinstance(choice, np.generic) else choice


def _final_attrs(trial: FrozenTrial) -> Mapping[str, Any]:
    """A trial that completed counts, even where a reaper had begun to abandon it."""
    return trial.user_attrs if trial.state == TrialState.FAIL else {}


def _differences(old: Any, new: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in sorted(old.keys() | new.keys()):
            found += _differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
        return found
    return [] if old == new else [(path.removeprefix("config."), old, new)]
