"""Spent slots: as records, and as the arrays that strategies see."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nasflow.objectives import Objectives
from nasflow.pareto import non_dominated
from nasflow.study.log import Log
from searchspaces.genes import GeneSpace, Rows

State = Literal["complete", "ruled_out", "failed"]


@dataclass(frozen=True)
class Record:
    """One spent slot.

    Attributes:
        slot: Its number.
        trial: Number of the Optuna trial.
        row: The architecture, shape `(genes,)`.
        state: `complete`, `ruled_out` (a bound was missed before all objectives were known) or `failed`.
        metrics: What is known, by name.
        violation: Sum of the relative violations of the bounds.
        provenance: What the evaluators said on how the figures came about, by evaluator.
        error: Why it failed; empty otherwise.
        seconds: Wall time of the evaluation.
    """

    slot: int
    trial: int
    row: NDArray[np.int64]
    state: State
    metrics: Mapping[str, float] = field(default_factory=dict)
    violation: float = 0.0
    provenance: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    seconds: float = 0.0


class Records:
    """The spent slots of a study, with arrays that grow as slots are added.

    Args:
        space: The space of the rows.
        objectives: What makes losses of metrics.
    """

    def __init__(self, space: GeneSpace, objectives: Objectives) -> None:
        self._space = space
        self._objectives = objectives
        self._by_slot: dict[int, Record] = {}
        self._ordered: list[Record] | None = []
        self._first_open = 0
        self._front: list[int] = []
        self._candidates: list[int] = []
        self._rows = np.zeros((0, len(space.genes)), dtype=np.int64)
        self._losses = np.zeros((0, len(objectives.optimised)))
        self._violation = np.zeros(0)
        self._fidelity = np.zeros(0)

    def __len__(self) -> int:
        return len(self._by_slot)

    def __contains__(self, slot: object) -> bool:
        return slot in self._by_slot

    def add(self, record: Record) -> None:
        """Take a record in. Of two for one slot a result goes before a failure, then the earlier one."""
        slot = record.slot
        former = self._by_slot.get(slot)
        if former and (former.state != "failed" or record.state == "failed"):
            return
        self._by_slot[slot] = record
        self._ordered = None
        if slot >= len(self._rows):
            self._grow(2 * slot + 64)
        self._rows[slot] = record.row
        self._losses[slot] = np.inf
        if record.state == "complete":
            columns = {metric: np.array([record.metrics[metric]]) for metric in self._objectives.metrics}
            self._losses[slot] = self._objectives.losses(columns)[0]
            if record.violation <= 0:
                self._candidates.append(slot)
        self._violation[slot] = np.inf if record.state == "failed" else record.violation
        self._fidelity[slot] = record.provenance.get("fidelity", np.nan)

    def _grow(self, size: int) -> None:
        for name in ("_rows", "_losses", "_violation", "_fidelity"):
            old = getattr(self, name)
            new = np.zeros((size, *old.shape[1:]), dtype=old.dtype)
            new[: len(old)] = old
            setattr(self, name, new)

    def ordered(self) -> list[Record]:
        """Return all records, in slot order."""
        if self._ordered is None:
            self._ordered = [self._by_slot[slot] for slot in sorted(self._by_slot)]
        return list(self._ordered)

    def next_open(self, taken: set[int]) -> int:
        """Return the lowest slot that is neither spent nor in `taken`."""
        while self._first_open in self._by_slot:
            self._first_open += 1
        slot = self._first_open
        while slot in self._by_slot or slot in taken:
            slot += 1
        return slot

    def front(self) -> Rows:
        """Return the feasible non-dominated architectures, in slot order, shape `(n, genes)`."""
        if self._candidates:
            slots = np.array(sorted({*self._front, *self._candidates}))
            self._front = slots[non_dominated(self._losses[slots])].tolist()
            self._candidates = []
        return self._rows[self._front]

    def log(self, pending: Sequence[NDArray[np.int64]]) -> Log:
        """Return what strategies see, with `pending` under way."""
        slots = np.array(sorted(self._by_slot), dtype=np.int64)
        under_way = np.array(pending, dtype=np.int64).reshape(len(pending), len(self._space.genes))
        by_slot = (self._rows[slots], self._losses[slots], self._violation[slots], self._fidelity[slots])
        for array in (slots, *by_slot, under_way):
            array.setflags(write=False)
        return Log(self._space, slots, *by_slot, pending=under_way)
