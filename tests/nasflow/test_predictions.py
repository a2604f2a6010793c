"""Which candidates are measured where figures were predicted, and what a measurement says of a prediction."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from nasflow.objectives import Objectives
from nasflow.study.predictions import candidates, checks, eligible, notes, unmeasured, with_measured
from nasflow.study.records import Record

OBJECTIVES = Objectives(accuracy={"direction": "maximize"}, latency_ms={"direction": "minimize"})


def record(slot: int, accuracy: float, latency: float, std: float = 0.0) -> Record:
    told = {"predictedlatency": notes("latency_ms", latency, std)}
    row = np.array([slot % 5] * 6)
    return Record(slot, slot, row, "complete", {"accuracy": accuracy, "latency_ms": latency}, provenance=told)


def measured(one: Record, latency: float, objectives: Objectives = OBJECTIVES) -> Record:
    return with_measured(one, objectives, {"latency_ms": {"latency_ms": latency, "std_ms": 0.01}})


def slots(records: Sequence[Record]) -> list[int]:
    return [one.slot for one in records]


def test_candidates_are_those_whose_interval_reaches_the_front() -> None:
    records = [record(0, 0.9, 2.0, 0.1), record(1, 0.8, 1.0, 0.1), record(2, 0.7, 1.1, 0.2), record(3, 0.7, 1.2, 0.01)]
    assert slots(candidates(records, OBJECTIVES)) == [0, 1, 2], "slot 2 may take .77 ms, slot 3 is behind slot 1"
    records = [measured(records[0], 2.0), measured(records[1], 1.05), *records[2:]]
    assert slots(candidates(records, OBJECTIVES)) == [2]
    assert eligible(records).tolist() == [True, True, False, False]
    assert candidates([*records[:2], measured(records[2], 1.1), records[3]], OBJECTIVES) == []


def test_where_a_member_falls_another_comes_up() -> None:
    records = [record(0, 0.9, 1.0), record(1, 0.8, 1.5), record(2, 0.7, 1.6)]
    assert slots(candidates(records, OBJECTIVES)) == [0]
    fallen = [measured(records[0], 1.55), *records[1:]]
    assert slots(candidates(fallen, OBJECTIVES)) == [1]
    assert slots(candidates(fallen, OBJECTIVES, fill=8)) == [1], "slot 2 is behind what was measured"


def test_what_measurements_contradict_is_believed_less() -> None:
    """Slot 2's interval begins at 1.5 ms; errors of ten deviations let it begin at .6."""
    records = [record(0, 0.9, 1.0, 0.1), record(1, 0.5, 1.0, 0.0), record(2, 0.8, 1.66, 0.1)]
    right, wrong = ([measured(records[0], value), *records[1:]] for value in (1.05, 2.0))
    assert slots(candidates(right, OBJECTIVES)) == [1]
    assert 2 in slots(candidates(wrong, OBJECTIVES))
    settled = [measured(records[0], 1.05), measured(records[1], 1.0), records[2]]
    assert candidates(settled, OBJECTIVES) == []


def test_others_are_measured_along_best_first() -> None:
    records = [record(0, 0.9, 1.0), record(1, 0.8, 1.2), record(2, 0.85, 1.1), record(3, 0.5, 1.0)]
    assert slots(candidates(records, OBJECTIVES, fill=3)) == [0, 2, 3]
    assert slots(candidates(records, OBJECTIVES, fill=9)) == [0, 2, 3, 1]


def test_a_bound_is_judged_by_what_was_measured() -> None:
    bounded = Objectives(accuracy={"direction": "maximize"}, latency_ms={"at_most": 1.0})
    records = [record(0, 0.9, 0.9), record(1, 0.8, 0.8), record(2, 0.7, 0.9)]
    assert slots(candidates(records, bounded)) == [0]
    over = measured(records[0], 1.2, bounded)
    assert over.violation == pytest.approx(0.2)
    assert slots(candidates([over, *records[1:]], bounded)) == [1]
    assert not eligible([over, *records[1:]]).any()
    settled = [over, measured(records[1], 0.9, bounded), records[2]]
    assert candidates(settled, bounded) == []
    assert eligible(settled).tolist() == [False, True, False]


def test_where_another_evaluator_gives_the_figure_nothing_is_open() -> None:
    given = record(0, 0.9, 1.0)
    assert unmeasured(given) == ["latency_ms"]
    other = replace(given, metrics={"accuracy": 0.9, "latency_ms": 1.1})
    assert unmeasured(other) == []
    assert candidates([other], OBJECTIVES) == []


def test_a_check_says_by_how_much() -> None:
    (check,) = checks(measured(record(0, 0.9, 1.0, 0.1), 1.3))
    assert check.disagrees
    assert (check.predicted, check.off) == (1.0, pytest.approx(0.3))
    assert str(check) == (
        "latency_ms 1.3 is 30% above the predicted 1 ms, outside of the 90 % interval from 0.8355 to 1.164"
    )
    assert not checks(measured(record(0, 0.9, 1.0, 0.1), 1.16))[0].disagrees
    assert checks(record(0, 0.9, 1.0)) == []
