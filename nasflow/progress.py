"""Progress: a live bar on a terminal, plain lines in a log."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from nasflow.objectives import Objectives
from nasflow.study.study import Record

logger = logging.getLogger(__name__)

_LINE_EVERY_S = 30.0


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """Yield what is told how many of how many are done: a bar on a terminal, a line now and then in a log."""
    console = Console(stderr=True)
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Bar(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as bar:
            shown = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(shown, completed=done, total=total)
        return
    last = perf_counter()

    def tell(done: int, total: int) -> None:
        nonlocal last
        if done == total or perf_counter() - last >= _LINE_EVERY_S:
            last = perf_counter()
            logger.info("%s: %d of %d", what, done, total)

    yield tell


class Progress:
    """Tells of every spent slot.

    Args:
        objectives: What to show of a record.
        budget: Number of slots.
    """

    def __init__(self, objectives: Objectives, budget: int) -> None:
        self._objectives = objectives
        self._budget = budget
        self._told: set[int] | None = None
        console = Console(stderr=True)
        self._bar: Bar | None = None
        if console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            self._bar = Bar(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console)
            self._bar.start()
            self._task = self._bar.add_task("searching", total=budget)

    def __call__(self, records: Sequence[Record]) -> None:
        """Show what is new among `records`."""
        first = self._told is None
        told = self._told or set()
        if first and records:
            begun = "Continuing after" if len(records) < self._budget else "Nothing is left to evaluate:"
            logger.info("%s %d of %d evaluations.", begun, len(records), self._budget)
        for record in records:
            if record.slot not in told and not first:
                logger.info("%s", self._line(record, len(records)))
        self._told = {record.slot for record in records}
        if self._bar:
            self._bar.update(self._task, completed=len(records), description=self._best(records))

    def _line(self, record: Record, done: int) -> str:
        shown = record.error or ", ".join(f"{name} {record.metrics[name]:.4g}" for name in record.metrics)
        return f"{done}/{self._budget} slot {record.slot} {record.state.replace('_', ' ')}: {shown}"

    def _best(self, records: Sequence[Record]) -> str:
        done = [record for record in records if record.state == "complete" and record.violation <= 0]
        if not done:
            return "searching"
        parts = []
        for entry in self._objectives.optimised:
            best = (max if entry.direction == "maximize" else min)(record.metrics[entry.metric] for record in done)
            parts.append(f"{entry.metric} {best:.4g}")
        return "best " + ", ".join(parts)

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar:
            self._bar.stop()
