"""What can be put around any strategy.

Wrappers nest, the first named being the outermost: `Filter(Deduplicate(strategy), keep)` proposes new architectures
that keep the bounds. What evaluates one architecture repeatedly, at growing fidelities, belongs outside of them.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from nasflow.strategies.base import Strategy, at_least
from nasflow.study.log import Log
from searchspaces.genes import GeneSpace, Rows

Keep = Callable[[Rows], NDArray[np.float64]]

_MUTANTS = 32
_MAX_EDITS = 3
_SAMPLES = (16, 256, 4096)


class Classes:
    """Canonical classes of rows; each row's is computed once, and a growing log is not gone through again."""

    def __init__(self) -> None:
        self._fingerprint = ""
        self._known: dict[bytes, bytes] = {}
        self._log: tuple[Rows, set[bytes]] = (np.zeros((0, 0), dtype=np.int64), set())

    def __call__(self, space: GeneSpace, rows: Rows) -> list[bytes]:
        """Return one key per row, equal within a class."""
        if space.fingerprint != self._fingerprint:
            self._fingerprint, self._known, self._log = space.fingerprint, {}, (rows[:0], set())
        raw = [row.tobytes() for row in rows]
        unknown = [i for i, row in enumerate(raw) if row not in self._known]
        if unknown:
            self._known.update(zip([raw[i] for i in unknown], space.keys(rows[unknown]), strict=True))
        return [self._known[row] for row in raw]

    def taken(self, log: Log) -> set[bytes]:
        """Return the classes of what is in the log or under way."""
        pending = self(log.space, log.pending)
        former, classes = self._log
        if not np.array_equal(former, log.rows[: len(former)]):
            former, classes = log.rows[:0], set()
        self._log = log.rows, classes.union(self(log.space, log.rows[len(former) :]))
        return self._log[1].union(pending)


class Deduplicate:
    """Keeps a strategy from proposing what is in the log or under way, or one thing twice.

    Architectures are the same when they are of one canonical class. In place of a known one the strategy is asked
    again; then its proposals are mutated; then the space is sampled. Fewer rows than asked for come back when
    all that finds nothing new.

    Args:
        strategy: The strategy.
        tries: How often it is asked.

    Raises:
        ConfigError: If it is to be asked less than once.
    """

    def __init__(self, strategy: Strategy, tries: int = 5) -> None:
        self.strategy = strategy
        self.tries = at_least("tries", tries, 1)
        self._classes = Classes()

    def propose(self, log: Log, k: int, rng: np.random.Generator) -> tuple[Rows, float | None]:
        """Return up to `k` architectures of classes that are new."""
        taken = self._classes.taken(log)
        chosen: list[NDArray[np.int64]] = []
        fidelity: float | None = None
        for candidates in self._candidates(log, k, rng):
            rows, fidelity = candidates
            for row, key in zip(rows, self._classes(log.space, rows), strict=True):
                if len(chosen) < k and key not in taken:
                    taken.add(key)
                    chosen.append(row)
            if len(chosen) == k:
                break
        return np.array(chosen, dtype=np.int64).reshape(len(chosen), len(log.space.genes)), fidelity

    def _candidates(self, log: Log, k: int, rng: np.random.Generator) -> Iterator[tuple[Rows, float | None]]:
        """Give batches of candidates, the strategy's own first."""
        rows, fidelity = self.strategy.propose(log, k, rng)
        yield rows, fidelity
        if len(rows) == 0:  # the strategy has nothing left to propose
            return
        for _ in range(self.tries - 1):
            again, fidelity = self.strategy.propose(log, k, rng)
            yield again, fidelity
        for edits in range(1, _MAX_EDITS + 1):
            yield log.space.mutate(rows[rng.integers(len(rows), size=_MUTANTS)], rng, edits), fidelity
        for n in _SAMPLES:
            yield log.space.sample(n, rng), fidelity


class Filter:
    """Keeps a strategy within bounds on what is cheap to know.

    Proposals that miss a bound are redrawn; when the tries are used up, those that missed by least are taken.

    Args:
        strategy: The strategy.
        keep: Gives the violation of the bounds, shape `(n,)`, of rows `(n, genes)`; 0 is within.
        tries: How often the strategy is asked.

    Raises:
        ConfigError: If it is to be asked less than once.
    """

    def __init__(self, strategy: Strategy, keep: Keep, tries: int = 50) -> None:
        self.strategy = strategy
        self.keep = keep
        self.tries = at_least("tries", tries, 1)

    def propose(self, log: Log, k: int, rng: np.random.Generator) -> tuple[Rows, float | None]:
        """Return up to `k` architectures, if possible within the bounds."""
        kept = missed = np.zeros((0, len(log.space.genes)), dtype=np.int64)
        violation = np.zeros(0)
        fidelity: float | None = None
        for _ in range(self.tries):
            # A strategy that avoids what is under way also avoids what this call already holds.
            known = replace(log, pending=np.concatenate([log.pending, kept]))
            rows, fidelity = self.strategy.propose(known, k - len(kept), rng)
            by = np.nan_to_num(self.keep(rows), nan=np.inf) if len(rows) else np.zeros(0)
            kept = np.concatenate([kept, rows[by <= 0]])
            missed, violation = np.concatenate([missed, rows[by > 0]]), np.concatenate([violation, by[by > 0]])
            if len(kept) == k or len(rows) == 0:
                break
        if len(missed) and len(kept) < k:
            nearest = missed[np.argsort(violation, kind="stable")]
            kept = _distinct(log.space, np.concatenate([kept, nearest]))[:k]
        return kept, fidelity


def _distinct(space: GeneSpace, rows: Rows) -> Rows:
    """The first row of each canonical class."""
    first: dict[bytes, int] = {}
    for i, key in enumerate(space.keys(rows)):
        first.setdefault(key, i)
    return rows[list(first.values())]
