"""Regularised evolution."""

import numpy as np

from nasflow.pareto import best_first
from nasflow.strategies.base import at_least, judged
from nasflow.study.log import Log
from searchspaces.genes import Rows


class RegularizedEvolution:
    """Regularised (ageing) evolution (arXiv 1802.01548).

    The population are the youngest trials; a parent is the best of a random tournament among them, its child differs
    in one active gene. Failed trials join no population. With several objectives or bounds, better means a better
    rank of constrained domination within the population, then a larger crowding distance.

    Args:
        population: Trials that a parent is chosen from; as many are drawn at random first.
        tournament: Draws, with replacement, of which the best becomes the parent.

    Raises:
        ConfigError: If a number is below 1.
    """

    def __init__(self, population: int = 20, tournament: int = 5) -> None:
        self.population = at_least("population", population, 1)
        self.tournament = at_least("tournament", tournament, 1)

    def propose(self, log: Log, k: int, rng: np.random.Generator) -> tuple[Rows, float | None]:
        """Return `k` children of tournament winners; random samples until the population is full."""
        parents = self.parents(log, k, rng)
        return (log.space.mutate(parents, rng) if len(parents) else log.space.sample(k, rng)), None

    def parents(self, log: Log, k: int, rng: np.random.Generator) -> Rows:
        """Return `k` tournament winners, shape `(k, genes)`; none until the population is full."""
        members = judged(log)[-self.population :]
        if len(members) < self.population:
            return log.rows[:0]
        order = best_first(log.losses[members], log.violation[members])
        # The draws are places in the order, of which the smallest wins.
        winners = rng.integers(len(members), size=(k, self.tournament)).min(axis=1)
        chosen: Rows = log.rows[members[order[winners]]]
        return chosen
