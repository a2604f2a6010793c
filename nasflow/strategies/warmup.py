"""Cheap scores in search: which architectures to begin with, and which mutation to take (arXiv 2101.08134)."""

from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from nasflow.strategies.base import Strategy, at_least, probability
from nasflow.strategies.scores import Score
from nasflow.strategies.wrappers import Classes, Keep
from nasflow.study.log import Log
from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError
from searchspaces.genes import GeneSpace, Rows

_STREAM = 2  # keeps the draws of the warm-up apart from other uses of the same seed


class Warmup:
    """Begins a search with the best of many scored architectures; then another strategy goes on.

    The best-scored ones are proposed first, best first, each once. What is scored follows from `seed` and the space
    alone, so that all workers and a resumed run begin with the same ones.

    Args:
        strategy: What goes on; an evolution takes the first trials as its first population.
        score: What ranks the architectures.
        n: Random architectures to score; those of one canonical class count once, those beyond cheap bounds not.
        top: Trials to begin with; None for as many as the strategy's population holds.
        seed: The study's seed.
        keep: Gives by how much rows miss cheap bounds, shape `(n,)`; None where there are no such bounds.

    Raises:
        ConfigError: If a number is below 1, fewer architectures are scored than to begin with, or `top` is None and
            the strategy has no population.
    """

    def __init__(
        self,
        strategy: Strategy,
        score: Score,
        n: int = 3000,
        top: int | None = None,
        seed: int = 0,
        keep: Keep | None = None,
    ) -> None:
        self.strategy = strategy
        self.score = score
        top = getattr(strategy, "population", None) if top is None else top
        if top is None:
            raise ConfigError(f"{type(strategy).__name__} has no population: give strategy.top, its first trials.")
        self.n, self.top = at_least("n", n, 1), at_least("top", top, 1)
        if self.n < self.top:
            raise ConfigError(f"strategy.n={n} random architectures are too few to take the best top={top} of them.")
        self.seed = at_least("seed", seed, 0)
        self.keep = keep
        self._classes = Classes()
        self._best: tuple[str, Rows] = ("", np.zeros((0, 0), dtype=np.int64))

    def propose(self, log: Log, k: int, rng: np.random.Generator) -> tuple[Rows, float | None]:
        """Return the best-scored ones that are not in the log, until `top` trials are begun; then `strategy`'s."""
        rows = log.rows[:0]
        left = min(k, self.top - len(log) - len(log.pending))
        if left > 0:
            best = self._ranked(log.space)
            taken = self._classes.taken(log)
            rows = best[[key not in taken for key in self._classes(log.space, best)]][:left]
        if len(rows) == k:
            return rows, None
        known = replace(log, pending=np.concatenate([log.pending, rows])) if len(rows) else log
        more, fidelity = self.strategy.propose(known, k - len(rows), rng)
        return np.concatenate([rows, more]), fidelity

    def _ranked(self, space: GeneSpace) -> Rows:
        """The `top` best-scored architectures, best first."""
        if self._best[0] != space.fingerprint:
            rows = space.sample(self.n, np.random.default_rng([self.seed, _STREAM]))
            if self.keep is not None:
                rows = rows[self.keep(rows) <= 0]
            archs = ArchBatch(space, rows).unique()
            scores = self.score(archs)
            if len(scores) and np.isnan(scores).all():
                raise ConfigError(
                    f"The score of the warm-up is not defined for any of {len(scores)} random architectures: choose "
                    "another one."
                )
            self._best = space.fingerprint, archs.rows[np.argsort(-scores, kind="stable")[: self.top]]
        return self._best[1]


@runtime_checkable
class Mutating(Strategy, Protocol):
    """A strategy whose proposals are mutations of parents.

    Attributes:
        population: Trials that parents are chosen from.
    """

    population: int

    def parents(self, log: Log, k: int, rng: np.random.Generator) -> Rows:
        """Return `k` parents, shape `(k, genes)`; none while the strategy does not mutate yet."""
        ...


class MoveProposal:
    """Replaces an evolution's random mutations by the best-scored ones.

    Of all architectures one edit away from the parent, the best-scored one that is neither in the log nor under way
    is proposed. A share of the mutations stays random, which keeps a misleading score from deciding alone.

    Args:
        strategy: What chooses parents. A warm-up belongs outside of this wrapper.
        score: What ranks the mutations.
        share: Probability of a scored mutation.
        keep: Gives by how much rows miss cheap bounds, shape `(n,)`; None where there are no such bounds.

    Raises:
        ConfigError: If the share is no probability, or the strategy does not mutate parents.
    """

    def __init__(self, strategy: Strategy, score: Score, share: float = 0.75, keep: Keep | None = None) -> None:
        if not isinstance(strategy, Mutating):
            raise ConfigError(
                f"Scored mutations need a strategy that mutates parents, such as evolution, but "
                f"{type(strategy).__name__} does not. A warm-up belongs around them, not inside."
            )
        self.strategy = strategy
        self.population = strategy.population
        self.score = score
        self.share = probability("share", share)
        self.keep = keep
        self._classes = Classes()

    def propose(self, log: Log, k: int, rng: np.random.Generator) -> tuple[Rows, float | None]:
        """Return `k` mutated parents; the strategy's own proposals while it has no parents."""
        parents = self.strategy.parents(log, k, rng)
        if len(parents) == 0:
            return self.strategy.propose(log, k, rng)
        rows = log.space.mutate(parents, rng)
        taken = self._classes.taken(log)
        for i in np.flatnonzero(rng.random(k) < self.share):
            best = self._best(log.space, parents[i], taken)
            if best is not None:
                rows[i] = best
                taken.update(self._classes(log.space, best[None]))
        return rows, None

    def _best(self, space: GeneSpace, parent: NDArray[np.int64], taken: set[bytes]) -> NDArray[np.int64] | None:
        """The best-scored neighbour of a class that is not taken, if there is one that can be scored."""
        rows = space.neighbors(parent)
        rows = rows[[key not in taken for key in self._classes(space, rows)]]
        if self.keep is not None and len(rows):
            rows = rows[self.keep(rows) <= 0]
        scores = self.score(ArchBatch(space, rows)) if len(rows) else np.zeros(0)
        return None if np.isnan(scores).all() else rows[np.nanargmax(scores)]
