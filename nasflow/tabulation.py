"""Evaluating many architectures into a table: in parallel processes, and continuing where it stopped."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from nasflow.evaluators.base import Context, Evaluator
from nasflow.processes import follow_parent
from nasflow.statistics import reliability
from nasflow.study.identity import describe_changes
from nasflow.study.identity import identity as plain_json
from searchspaces.arch import ArchBatch
from searchspaces.errors import NasflowError, StudyError
from searchspaces.genes import GeneSpace, Rows
from searchspaces.jsonlines import JsonLines
from searchspaces.space import SearchSpace
from searchspaces.table import Column, Table

logger = logging.getLogger(__name__)

CHUNK_SECONDS = 4.0  # what a kill may cost at most, about
_LARGEST_CHUNK = 64
_PATIENCE = 20  # evaluations before the share of failures counts

Direction = Literal["maximize", "minimize"]

_UNITS = {"_ms": "ms", "_s": "s", "_mj": "mJ", "_mm2": "mm²", "_m": "million", "seconds": "s", "loss": "nats"}
_DIRECTIONS: Mapping[str, Direction] = {
    "accuracy": "maximize",
    "loss": "minimize",
    "_ms": "minimize",
    "_mj": "minimize",
}

Parts = tuple[SearchSpace, list[Evaluator]]
Report = Callable[[int, int], None]


@dataclass(frozen=True)
class _Chunk:
    """Architectures, each under a seed, that one process evaluates in one go."""

    rows: Rows
    seeds: Sequence[int]


class Tabulation:
    """A table in the making.

    Each architecture is evaluated once per seed; what an evaluator draws at random follows from the seed and the
    architecture alone. Finished evaluations stand in a log at once, so that a stopped tabulation continues; failed
    ones stand there with their reason and are tried again by the next start.

    Args:
        log: The log; created when absent.
        parts: Makes the space and the evaluators, in each process anew; it must be importable by name, as
            `functools.partial` of a module's function is.
        identity: What decides the figures, JSON-able: a log made under another one is refused.
        max_failure_rate: Stop when a larger share of the evaluations fails.

    Raises:
        StudyError: If the log is damaged or was made under another identity.
    """

    def __init__(
        self, log: Path, parts: Callable[[], Parts], identity: Mapping[str, Any], max_failure_rate: float = 0.5
    ) -> None:
        self.log = JsonLines(log)
        self.parts = parts
        self.max_failure_rate = max_failure_rate
        self._here = parts()
        self.space = self._here[0]
        entries = begun(self.log, identity, self.space)
        self._known = {_key(entry["row"], entry["seed"]): entry for entry in entries}

    def run(self, archs: ArchBatch, seeds: Sequence[int], workers: int, report: Report | None = None) -> None:
        """Evaluate what is missing of `archs` × `seeds`, the seeds of an architecture together.

        Args:
            archs: The architectures.
            seeds: The seeds.
            workers: Processes; 1 runs in this one.
            report: Told after each chunk how many evaluations are done, and of how many.

        Raises:
            StudyError: If too many evaluations fail, or a process dies.
        """
        todo = [(row, seed) for row in archs.rows for seed in seeds if not self._is_done(row, seed)]
        total = len(archs) * len(seeds)
        failed = 0
        queue = _Queue(todo)
        with _pool(self.parts, self._here, workers) as submit:
            running: set[Future[Outcome]] = set()
            while True:
                while len(running) < workers + (workers > 1) and (chunk := queue.next()) is not None:
                    running.add(submit(chunk))
                if not running:
                    break
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    seconds, entries = _result(future)
                    queue.took(seconds, len(entries))
                    self.log.append(entries)
                    self._known |= {_key(entry["row"], entry["seed"]): entry for entry in entries}
                    failed += sum("error" in entry for entry in entries)
                    if report is not None:
                        report(total - len(todo) + queue.finished, total)
                    errors = [entry["error"] for entry in entries if "error" in entry]
                    check_failures(failed, queue.finished, self.max_failure_rate, errors, self.log)

    def _is_done(self, row: NDArray[np.int64], seed: int) -> bool:
        return "values" in self._known.get(_key(row, seed), {})

    def failures(self, archs: ArchBatch, seeds: Sequence[int]) -> list[str]:
        """Return one line for each evaluation of `archs` × `seeds` that failed."""
        entries = [self._known.get(_key(row, seed), {}) for seed in seeds for row in archs.rows]
        failed = [entry for entry in entries if "error" in entry]
        texts = self.space.format(np.array([entry["row"] for entry in failed])) if failed else []
        return [f"{text}, seed {entry['seed']}: {entry['error']}" for text, entry in zip(texts, failed, strict=True)]

    def table(
        self, archs: ArchBatch, seeds: Sequence[int], provenance: Mapping[str, Any], by_class: bool = False
    ) -> Table:
        """Return the figures of `archs`, NaN where there are none (yet).

        With several seeds, a column holds the mean over the known ones, and a column `NAME.seedS` each of them.
        """
        figures = [[self._known.get(_key(row, seed), {}).get("values", {}) for seed in seeds] for row in archs.rows]
        names = sorted({name for row in figures for values in row for name in values})
        values: dict[str, NDArray[np.float64]] = {}
        columns, reliable = [], {}
        for name in names:
            array = np.array([[entry.get(name, np.nan) for entry in row] for row in figures])
            known = ~np.isnan(array)
            values[name] = np.where(
                known.any(axis=1), np.nansum(array, axis=1) / np.maximum(known.sum(axis=1), 1), np.nan
            )
            columns.append(_column(name, f"mean of {len(seeds)} seeds" if len(seeds) > 1 else f"seed {seeds[0]}"))
            if len(seeds) > 1:
                for s, seed in enumerate(seeds):
                    values[f"{name}.seed{seed}"] = array[:, s]
                    columns.append(_column(name, f"seed {seed}", f"{name}.seed{seed}"))
                whole = known.all(axis=1)
                if whole.sum() >= 5:
                    reliable[name] = reliability(array[whole])
        facts = dict(provenance) | ({"reliability": reliable} if reliable else {})
        return Table(archs, values, columns, facts, by_class)


def begun(log: JsonLines, identity: Mapping[str, Any], space: GeneSpace) -> list[dict[str, Any]]:
    """Return a log's entries after the first, which says under which settings it was begun; begin an empty one.

    Raises:
        StudyError: If the log is damaged or was begun under other settings.
    """
    head = plain_json(identity=identity, space=space.fingerprint)
    entries = log.read()
    if not entries:
        log.append([head])
    elif entries[0] != head:
        refuse_changes(log, entries[0].get("identity"), head["identity"])
    return entries[1:]


def refuse_changes(log: JsonLines, old: Any, new: Any) -> NoReturn:
    """Raise a `StudyError` that says what differs from the settings of a log."""
    raise StudyError(
        f"{log.path} was made with other settings ({describe_changes(old, new) or 'another space'}). Give the former "
        "ones to continue it, or another hydra.run.dir to start anew."
    )


def check_failures(failed: int, finished: int, most: float, errors: Sequence[str], log: JsonLines) -> None:
    """Raise a `StudyError` when a share of more than `most` of what finished has failed.

    Args:
        failed: Failures so far.
        finished: All that finished so far.
        most: Share of failures allowed, once enough has finished to tell.
        errors: Reasons of the latest failures.
        log: Where what had finished is kept.
    """
    if finished >= _PATIENCE and failed > most * finished:
        raise StudyError(
            f"{failed} of {finished} evaluations failed, more than max_failure_rate={most:g} allows. One of the "
            f"reasons: {errors[0] if errors else 'see the log.'} What had finished is kept in {log.path}."
        )


def distinct(space: GeneSpace, n: int, rng: np.random.Generator) -> ArchBatch:
    """Draw `n` architectures of different canonical classes; the first of more are those of fewer.

    Raises:
        StudyError: If the space does not seem to have so many.
    """
    block = 256
    chosen: dict[bytes, NDArray[np.int64]] = {}
    for _ in range(20 + 20 * n // block):
        rows = space.sample(block, rng)
        for key, row in zip(space.keys(rows), rows, strict=True):
            chosen.setdefault(key, row)
        if len(chosen) >= n:
            return ArchBatch(space, np.array(list(chosen.values())[:n]))
    raise StudyError(
        f"{n} different architectures of space {space.name!r} were asked for, but {len(chosen)} were found in many "
        "draws: ask for fewer, or for n=all."
    )


class _Queue:
    """Hands out chunks that take about `CHUNK_SECONDS` each, and never part the seeds of an architecture."""

    def __init__(self, todo: Sequence[tuple[NDArray[np.int64], int]]) -> None:
        self._todo, self._next, self._size = todo, 0, 1
        self.finished = 0

    def next(self) -> _Chunk | None:
        start = self._next
        if start == len(self._todo):
            return None
        end = min(start + self._size, len(self._todo))
        while end < len(self._todo) and np.array_equal(self._todo[end][0], self._todo[end - 1][0]):
            end += 1
        self._next = end
        rows, seeds = zip(*self._todo[start:end], strict=True)
        return _Chunk(np.array(rows), seeds)

    def took(self, seconds: float, count: int) -> None:
        self.finished += count
        fitting = int(count * CHUNK_SECONDS / max(seconds, 1e-9))
        self._size = max(1, min(fitting, 2 * max(self._size, count), _LARGEST_CHUNK))


Outcome = tuple[float, list[dict[str, Any]]]
Submit = Callable[[_Chunk], "Future[Outcome]"]


@contextmanager
def _pool(parts: Callable[[], Parts], made: Parts, workers: int) -> Iterator[Submit]:
    """Yield what runs a chunk: in other processes, or with one worker in this one, by what is made, at once."""
    if workers <= 1:

        def here(chunk: _Chunk) -> "Future[Outcome]":
            future: Future[Outcome] = Future()
            future.set_result(_evaluate(made, chunk))
            return future

        yield here
        return
    executor = ProcessPoolExecutor(workers, get_context("spawn"), _prepare, (parts,))
    try:
        yield lambda chunk: executor.submit(_work, chunk)
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


_PARTS: list[Parts] = []  # of a worker process


def _prepare(parts: Callable[[], Parts]) -> None:
    """Set up a worker process."""
    _PARTS[:] = [parts()]
    follow_parent()


def _work(chunk: _Chunk) -> Outcome:
    return _evaluate(_PARTS[0], chunk)


def _evaluate(parts: Parts, chunk: _Chunk) -> Outcome:
    """Evaluate a chunk; return the seconds it took, and an entry of the log for each architecture."""
    start = perf_counter()
    values = _values(*parts, chunk)
    entries = [
        {"row": row.tolist(), "seed": seed, **({"error": found} if isinstance(found, str) else {"values": found})}
        for row, seed, found in zip(chunk.rows, chunk.seeds, values, strict=True)
    ]
    return perf_counter() - start, entries


def _values(space: SearchSpace, evaluators: Sequence[Evaluator], chunk: _Chunk) -> list[dict[str, float] | str]:
    """Return each architecture's figures, or why there are none."""
    archs = ArchBatch(space, chunk.rows)
    context = Context(seeds=[arch_seed(seed, row) for row, seed in zip(chunk.rows, chunk.seeds, strict=True)])
    found: list[dict[str, float]] = [{} for _ in chunk.rows]
    try:
        for evaluator in evaluators:
            evaluation = evaluator.evaluate(archs, context)
            for i, known in enumerate(found):
                facts = evaluation.provenance[i] if evaluation.provenance else {}
                known |= {name: float(value) for name, value in facts.items() if _is_figure(name, value)}
                known |= {name: float(column[i]) for name, column in evaluation.columns.items()}
                _check_finite(known)
    except NasflowError as error:
        if len(chunk.rows) == 1:
            return [str(error)]
        alone = [_Chunk(row[None], [seed]) for row, seed in zip(chunk.rows, chunk.seeds, strict=True)]
        return [value for one in alone for value in _values(space, evaluators, one)]
    return list(found)


def _check_finite(values: Mapping[str, float]) -> None:
    wrong = [f"{name}={value}" for name, value in values.items() if not np.isfinite(value)]
    if wrong:
        raise StudyError(f"Evaluators gave figures that are not finite: {', '.join(wrong)}.")


def _is_figure(name: str, value: Any) -> bool:
    return type(value) in (int, float) and name not in ("seed", "epochs")


def _result(future: "Future[Outcome]") -> Outcome:
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise StudyError(
            "A worker process died, perhaps for lack of memory. What had finished is kept: give the same command again "
            "to continue, with fewer workers=... if it happens again."
        ) from error


def arch_seed(seed: int, row: NDArray[np.int64]) -> int:
    """Return the seed of an architecture's evaluation, a non-negative 31-bit number."""
    digest = sha256(np.int64(seed).tobytes() + np.ascontiguousarray(row, dtype=np.int64).tobytes()).digest()
    return int.from_bytes(digest[:4], "little") >> 1


def _key(row: Sequence[int] | NDArray[np.int64], seed: int) -> tuple[int, ...]:
    return (int(seed), *map(int, row))


def _column(name: str, provenance: str, column: str | None = None) -> Column:
    unit = next((unit for ending, unit in _UNITS.items() if name.endswith(ending)), "")
    direction = next((way for ending, way in _DIRECTIONS.items() if name.endswith(ending)), None)
    return Column(column or name, unit, direction, provenance)
