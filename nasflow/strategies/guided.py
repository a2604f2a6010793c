"""Search guided by a predictor that learns from the trials so far."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nasflow.strategies.base import at_least, probability
from nasflow.strategies.guided_acquisition import ACQUISITIONS, Acquisition, ranking
from nasflow.strategies.guided_surrogate import Candidates, Surrogate
from nasflow.strategies.wrappers import Classes, Keep
from nasflow.study.log import Log
from predictors.base import Predictor
from searchspaces.errors import ConfigError, unknown
from searchspaces.genes import GeneSpace, Rows

_CHUNK = 32  # candidates whose cheap bounds are looked at together


class Guided:
    """Fits a predictor to the trials so far, and proposes what it expects most of.

    Trials come in rounds. All proposals of a round rest on the trials that have finished of those before it: first some
    from the top of the candidates' ranking, then some drawn from a best part of it that halves from round to round.
    Rounds of one trial make Bayesian optimisation; BANANAS (arXiv 1910.11858), the iterative search of BRP-NAS
    (arXiv 2007.08668) and that of FLAN (arXiv 2403.02484) are schedules of rounds, see `conf/strategy`.

    Proposals differ from all that is in the log or under way. What is under way is not assumed to have any result; with
    several workers, acquisitions that draw (`ucb`, `thompson`) keep proposals apart.

    Several objectives are weighted at random for each proposal (ParEGO, doi 10.1109/TEVC.2005.851274). Of bounds on
    what is expensive to know, the violation is predicted too; candidates that keep them as far as known come first.
    The first trials are random, and so are later ones as long as no two trials differ in any figure.

    The predictor is built with the study's seed, and its fit follows from that and the trials. So proposals follow from
    the log: any worker can ask, and a resumed search goes on as an uninterrupted one.

    Args:
        predictor: The predictor.
        rounds: For each round the number of trials from the top, and from the best part; the last one is repeated.
        initial: Random trials before the first round; those of a warm-up around this strategy count.
        acquisition: What the ranking goes by: `mean`, `ucb`, `ei` or `thompson`, see `ranking`.
        width: Mean number of standard deviations for `ucb`.
        part: The best part in round i, from 1 on, is `part**i` of the candidates.
        least: Candidates that the best part holds at least.
        whole: Classes of a space, or rows of a pool, up to which all of them are candidates.
        candidates: How many are drawn of larger spaces.
        mutated: Share of these that are mutations of the best trials.
        seed: The study's seed.
        keep: Gives by how much rows miss cheap bounds, shape `(n,)`; None where there are no such bounds.

    Raises:
        ConfigError: If a number is out of range, the acquisition is unknown, or a round has no trials.
    """

    def __init__(
        self,
        predictor: Predictor,
        rounds: Sequence[Sequence[int]] = ((1, 0),),
        initial: int = 6,
        acquisition: Acquisition = "ucb",
        width: float = 1.0,
        part: float = 0.5,
        least: int = 1,
        whole: int = 20_000,
        candidates: int = 2000,
        mutated: float = 0.5,
        seed: int = 0,
        keep: Keep | None = None,
    ) -> None:
        if acquisition not in ACQUISITIONS:
            raise ConfigError(unknown("acquisition", acquisition, ACQUISITIONS))
        if width < 0:
            raise ConfigError(f"strategy.width is a number of standard deviations, at least 0, but is {width!r}.")
        self.rounds = _checked(rounds)
        self.initial = at_least("initial", initial, 0)
        self.acquisition: Acquisition = acquisition
        self.width = float(width)
        self.part, self.least = probability("part", part), at_least("least", least, 1)
        self.seed, self.keep = at_least("seed", seed, 0), keep
        self._surrogate = Surrogate(
            predictor,
            at_least("whole", whole, 0),
            at_least("candidates", candidates, 1),
            probability("mutated", mutated),
            self.seed,
        )
        self._classes = Classes()
        self._kept: tuple[str, dict[bytes, bool]] = ("", {})

    def propose(self, log: Log, k: int, rng: np.random.Generator) -> tuple[Rows, float | None]:
        """Return `k` architectures, if possible within cheap bounds and neither in the log nor under way."""
        begun = len(log) + len(log.pending)
        taken = self._classes.taken(log)
        rows = [self._next(log, place, taken, rng) for place in range(begun, begun + k)]
        return np.array(rows, dtype=np.int64).reshape(k, len(log.space.genes)), None

    def _next(self, log: Log, place: int, taken: set[bytes], rng: np.random.Generator) -> NDArray[np.int64]:
        """Return what to propose as trial number `place`, and add its class to `taken`."""
        row: NDArray[np.int64] | None = None
        if place >= self.initial:
            number, start, from_top = self._round(place)
            found = self._surrogate.candidates(_before(log, start))
            if found.expected is not None:
                weights = rng.dirichlet(np.ones(log.losses.shape[1]))
                order = ranking(self.acquisition, found.expected, weights, self.width, rng)
                order = order[[found.keys[i] not in taken for i in order]]
                if not from_top:
                    size = max(self.least, int(np.ceil(self.part**number * len(found.rows))))
                    order = rng.permutation(order[:size])
                row = self._first_kept(log.space, found, order)
        if row is None:
            row = log.space.sample(1, rng)[0]
        taken.update(self._classes(log.space, row[None]))
        return row

    def _round(self, place: int) -> tuple[int, int, bool]:
        """Return a trial's round, from 1 on, the number of trials before it, and whether it is one from the top."""
        number, start = 1, self.initial
        for top, drawn in self.rounds[:-1]:
            if place < start + top + drawn:
                return number, start, place < start + top
            number, start = number + 1, start + top + drawn
        top, drawn = self.rounds[-1]
        more = (place - start) // (top + drawn)
        start += more * (top + drawn)
        return number + more, start, place < start + top

    def _first_kept(self, space: GeneSpace, found: Candidates, order: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """Return the first candidate that keeps cheap bounds; None where none does."""
        if self._kept[0] != space.fingerprint:
            self._kept = space.fingerprint, {}
        kept = self._kept[1]
        for start in range(0, len(order), _CHUNK):
            chunk = order[start : start + _CHUNK]
            if self.keep is None:
                return _row(found, chunk[0])
            new = np.array([i for i in chunk if found.keys[i] not in kept], dtype=np.int64)
            if len(new):
                within = self.keep(found.rows[new]) <= 0
                kept.update(zip([found.keys[i] for i in new], within.tolist(), strict=True))
            for i in chunk:
                if kept[found.keys[i]]:
                    return _row(found, i)
        return None


def _row(found: Candidates, i: int) -> NDArray[np.int64]:
    row: NDArray[np.int64] = found.rows[i]
    return row


def _before(log: Log, start: int) -> Log:
    """Return the log with the trials of the slots before `start` alone, and nothing under way."""
    n = int(np.searchsorted(log.slots, start))
    return Log(
        log.space,
        slots=log.slots[:n],
        rows=log.rows[:n],
        losses=log.losses[:n],
        violation=log.violation[:n],
        fidelity=log.fidelity[:n],
        pending=log.pending[:0],
    )


def _checked(rounds: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    fits = isinstance(rounds, Sequence) and len(rounds) > 0
    for entry in rounds if fits else ():
        numbers = isinstance(entry, Sequence) and len(entry) == 2 and all(type(n) is int and n >= 0 for n in entry)
        fits = fits and numbers and sum(entry) > 0
    if not fits:
        raise ConfigError(
            "strategy.rounds lists for each round the trials from the top of the ranking and those drawn from its best "
            f"part, as in [[2,2],[4,4]], but is {rounds!r}."
        )
    return [(top, drawn) for top, drawn in rounds]
