"""NSGA-II."""

import numpy as np
from numpy.typing import NDArray

from nasflow.pareto import best_first
from nasflow.strategies.base import at_least, judged, probability
from nasflow.study.log import Log
from searchspaces.genes import GeneSpace, Rows

Ints = NDArray[np.int64]


class NSGA2:
    """NSGA-II (IEEE TEC 2002, doi 10.1109/4235.996017).

    The trials that have a result, in slot order, are cut into a first population and generations of offspring; after
    each generation the best of parents and offspring survive. Parents of the next child are chosen among the last
    survivors by binary tournaments, on rank of constrained domination, then crowding distance. Failed trials join no
    generation.

    Args:
        population: Survivors of a generation; as many are drawn at random first.
        offspring: Trials in a generation: 1 lets every trial compete as soon as it has finished, which pays when
            budgets are small; None for as many as the population, as published.
        crossover: Probability that a child has two parents.
        mutation: Probability of each active gene to change; None for one changed gene on average. A child that
            would equal a parent changes at least one.

    Raises:
        ConfigError: If a number is out of range.
    """

    def __init__(
        self,
        population: int = 12,
        offspring: int | None = 1,
        crossover: float = 0.9,
        mutation: float | None = None,
    ) -> None:
        self.population = at_least("population", population, 2)
        self.offspring = self.population if offspring is None else at_least("offspring", offspring, 1)
        self.crossover = probability("crossover", crossover)
        self.mutation = None if mutation is None else probability("mutation", mutation)
        self._cache: tuple[NDArray[np.float64], Ints] | None = None

    def propose(self, log: Log, k: int, rng: np.random.Generator) -> tuple[Rows, float | None]:
        """Return `k` children of the last survivors; random samples until the first population is full."""
        members = judged(log)
        if len(members) < self.population:
            return log.space.sample(k, rng), None
        survivors = members[self._survivors(log.losses[members], log.violation[members])]
        # Survivors stand best first: of two draws, the smaller place wins.
        places = rng.integers(len(survivors), size=(k, 2, 2)).min(axis=2)
        first, second = log.rows[survivors[places[:, 0]]], log.rows[survivors[places[:, 1]]]
        crossed = rng.random(k) < self.crossover
        children = first.copy()
        children[crossed] = log.space.crossover(first[crossed], second[crossed], rng)
        copies = (children == first).all(axis=1) | (children == second).all(axis=1)
        return self._mutate(log.space, children, copies, rng), None

    def _survivors(self, losses: NDArray[np.float64], violation: NDArray[np.float64]) -> Ints:
        """Return the positions of the survivors of the last complete generation, best first, shape `(population,)`.

        The last answer is kept with the results that it followed from, and is only built upon where they agree.
        """
        results = np.column_stack([losses, violation])
        used, survivors = self.population, best_first(losses[: self.population], violation[: self.population])
        if self._cache is not None:
            known, cached = self._cache
            if np.array_equal(known, results[: len(known)]):
                used, survivors = len(known), cached
        while used + self.offspring <= len(results):
            pool = np.concatenate([survivors, np.arange(used, used + self.offspring)])
            survivors = pool[best_first(losses[pool], violation[pool])[: self.population]]
            used += self.offspring
        self._cache = results[:used].copy(), survivors
        return survivors

    def _mutate(self, space: GeneSpace, rows: Rows, copies: NDArray[np.bool_], rng: np.random.Generator) -> Rows:
        active = space.active(rows).sum(axis=1)
        edits = rng.binomial(active, 1 / np.maximum(active, 1) if self.mutation is None else self.mutation)
        edits[copies] = np.maximum(edits[copies], 1)
        result = rows.copy()
        for done in range(edits.max(initial=0)):
            todo = edits > done
            result[todo] = space.mutate(result[todo], rng)
        return result
