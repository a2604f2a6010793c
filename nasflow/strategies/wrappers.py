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
        self._classes: dict[bytes, bytes] = {}
        self._fingerprint = ""

    def propose(self, log: Log, k: int, rng: np.random.Generator) -> tuple[Rows, float | None]:
        """Return up to `k` architectures of classes that are new."""
        taken = set(self._keys(log.space, log.rows)) | set(self._keys(log.space, log.pending))
        chosen: list[NDArray[np.int64]] = []
        fidelity: float | None = None
        for candidates in self._candidates(log, k, rng):
            rows, fidelity = candidates
            for row, key in zip(rows, self._keys(log.space, rows), strict=True):
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

    def _keys(self, space: GeneSpace, rows: Rows) -> list[bytes]:
        """Canonical classes of `rows`; each row's is computed once."""
        if space.fingerprint != self._fingerprint:
            self._classes, self._fingerprint = {}, space.fingerprint
        raw = [row.tobytes() for row in rows]
        unknown = [i for i, row in enumerate(raw) if row not in self._classes]
        if unknown:
            self._classes.update(zip([raw[i] for i in unknown], space.keys(rows[unknown]), strict=True))
        return [self._classes[row] for row in raw]


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
