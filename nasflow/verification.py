"""Measuring the best candidates of a search whose latencies were predicted.

After the search, those candidates are measured that could be on the Pareto front: a candidate counts with the better
end of its 90 % interval until it is measured, and with the measured figure from then on. Where a measurement moves a
candidate off the front, others come up and are measured in turn, until all that are left non-dominated are measured.
So the front is one of measured figures, and what was not measured is behind it even if its latency is as good as the
interval allows. Where intervals do not hold nine tenths of what was measured, they are widened until they do. So a good
predictor needs few measurements beyond the front, and a wrong one has nearly everything measured. No candidate is
measured twice: there are at most as many measurements as trials.

Each measurement is written into the study as soon as it is had: a search that is killed meanwhile measures the rest.
Strategies go on seeing the predictions, so that a search with a larger budget continues as if it had never stopped.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from nasflow.evaluators.predicted import BATCH, PredictedLatency
from nasflow.progress import counting
from nasflow.study.predictions import candidates, checks, unmeasured
from nasflow.study.study import Record, Study
from searchspaces.errors import DeviceError

logger = logging.getLogger(__name__)

_TOLD = 5  # disagreements, the largest first; the report has all


def verify(study: Study, evaluators: Sequence[PredictedLatency], folder: Path) -> list[Record]:
    """Measure candidates of the front until all that are left are measured, and return all records.

    Args:
        study: Where measurements are kept.
        evaluators: Those that predicted, each with the device to measure on.
        folder: Keeps the known times of the devices' anchors.

    Raises:
        DeviceError: If a device cannot measure, or gives nothing; what was measured is kept.
        StudyError: If the study cannot be read or written.
    """
    records = study.verified()
    open_ = candidates(records, study.objectives, BATCH)
    if not open_:
        return records
    known = {record.slot for record in records if checks(record)}
    names = ", ".join(evaluator.device.name for evaluator in evaluators)
    logger.info("Measuring on %s the candidates whose latencies were predicted.", names)
    with counting("candidates measured") as report:
        done = 0
        while open_:
            before, total = done, done + sum(len(unmeasured(record)) for record in open_)
            for evaluator in evaluators:
                for count in _measure(study, evaluator, open_, folder):
                    done += count
                    report(done, total)
            if done == before:
                raise DeviceError(
                    f"{names} gave no figures of {len(open_)} candidates for the front. What was measured is kept: see "
                    "that the device answers, then give the same command again."
                )
            records = study.verified()
            open_ = candidates(records, study.objectives, BATCH)
    _tell([record for record in records if record.slot not in known])
    return records


def _measure(study: Study, evaluator: PredictedLatency, records: Sequence[Record], folder: Path) -> Iterator[int]:
    """Measure what an evaluator predicted of `records`; yield how many figures each batch gave once these are kept."""
    by_row: dict[tuple[int, ...], list[Record]] = {}
    for record in records:
        if evaluator.metric in unmeasured(record):
            by_row.setdefault(tuple(map(int, record.row)), []).append(record)
    rng = np.random.default_rng([study.seed, len(records)])
    for outcomes in evaluator.measure(np.array(list(by_row), dtype=np.int64), folder, rng):
        for outcome in outcomes:
            found = {"error": outcome.error} if outcome.measurement is None else outcome.measurement.record()
            for record in by_row[outcome.key]:
                study.keep_measured(record, evaluator.metric, found)
        yield sum(len(by_row[outcome.key]) for outcome in outcomes)


def _tell(records: Sequence[Record]) -> None:
    """Say where measurements disagree with predictions."""
    found = [(record.slot, check) for record in records for check in checks(record)]
    wrong = [(slot, check) for slot, check in found if check.disagrees]
    for slot, check in sorted(wrong, key=lambda entry: -entry[1].deviations)[:_TOLD]:
        logger.warning("Slot %d: measured %s.", slot, check)
    logger.info("%d of %d measured figures lie outside of the predictor's 90 %% interval.", len(wrong), len(found))
