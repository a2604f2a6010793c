"""Slots: claims, ends, reaping; identity; what Optuna sees."""

import logging
import os
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from nasflow.objectives import Objectives
from nasflow.strategies import Random
from nasflow.study.records import Record, Records
from nasflow.study.runner import Runner
from nasflow.study.storage import database, journal, memory
from nasflow.study.study import MAX_ATTEMPTS, Claim, Study
from nasflow.study.workers import Liveness, Worker
from searchspaces.errors import ConfigError, StudyError
from tests.nasflow.studies import (
    RESULT,
    ROW,
    Known,
    Other,
    Toy,
    Verdict,
    counted,
    evolving,
    exit_code,
    forked,
    opened,
    told,
    two_objectives,
    won,
)


@pytest.fixture(params=["memory", "journal", "sqlite"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> BaseStorage:
    if request.param == "memory":
        return memory()
    if request.param == "journal":
        return journal(str(tmp_path / "study.journal"))
    return database(f"sqlite:///{tmp_path}/study.db")


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "study.journal")


def claimed(study: Study, slot: int, worker: str = "me") -> Claim:
    claim = study.claim(slot, ROW, worker)
    assert claim is not None
    return claim


# -- what is written comes back ----------------------------------------------------------------------------------


def test_records_of_every_state(storage: BaseStorage) -> None:
    study = opened(storage)
    assert study.finish(claimed(study, 0), RESULT)
    assert study.fail(claimed(study, 2), "the loss diverged")
    missed = {"metrics": {"latency_ms": 9.0}, "violations": {"latency_ms": 1.25}, "provenance": {}, "seconds": 0.1}
    assert study.finish(claimed(study, 1), missed, ruled_out=True)
    claimed(study, 3)
    for reader in (study, opened(storage)):
        records = reader.records()
        assert [(r.slot, r.trial) for r in records] == [(0, 0), (1, 2), (2, 1)]
        assert [r.state for r in records] == ["complete", "ruled_out", "failed"]
        assert all(np.array_equal(r.row, ROW) for r in records)
        assert records[0].metrics == RESULT["metrics"]
        assert records[0].provenance == RESULT["provenance"]
        assert records[0].seconds == 0.5
        assert records[1].violation == 1.25
        assert records[2].error == "the loss diverged"
        log = reader.log()
        assert log.slots.tolist() == [0, 1, 2]
        assert log.losses.tolist() == [[-90.0, 2.0], [np.inf, np.inf], [np.inf, np.inf]]
        assert log.violation.tolist() == [0.0, 1.25, np.inf]
        assert np.isnan(log.fidelity).all()
        assert log.pending.tolist() == [ROW.tolist()]
        assert log.succeeded.tolist() == [True, False, False]
        assert reader.front().tolist() == [ROW.tolist()]
        assert reader.next_slot(5) == 4
        assert reader.next_slot(4) is None
        assert [trial.user_attrs["worker"] for trial in reader.running()] == ["me"]


def test_log_is_read_only_and_made_once(storage: BaseStorage) -> None:
    study = opened(storage)
    study.finish(claimed(study, 0), RESULT)
    log = study.log()
    assert study.log() is log
    for array in (log.slots, log.rows, log.losses, log.violation, log.fidelity, log.pending):
        assert not array.flags.writeable
    claim = claimed(study, 1)
    assert len(study.log().pending) == 1
    study.finish(claim, RESULT | {"provenance": {"fidelity": 3.0}})
    assert study.log().fidelity.tolist()[1:] == [3.0]
    assert len(log) == 1, "a log that was given stays as it was"


def test_log_grows_in_any_order(path: str) -> None:
    study, n = opened(journal(path)), 150
    order = np.random.default_rng(0).permutation(n)
    for slot in order:
        result = RESULT | {"metrics": {"accuracy": float(slot % 7), "latency_ms": float(slot)}}
        study.finish(claimed(study, int(slot)), result)
        assert study.next_slot(n) == next((s for s in range(n) if s not in study.log().slots), None)
    log = study.log()
    assert log.slots.tolist() == list(range(n))
    assert log.losses[:, 1].tolist() == list(range(n))
    assert [record.slot for record in study.records()] == list(range(n))
    assert len(study.front()) == 7, "one per accuracy: the fastest"


def test_front_holds_the_feasible_non_dominated_rows() -> None:
    study = opened(memory(), objectives=two_objectives(at_most=10))
    figures = [(90.0, 5.0), (80.0, 6.0), (95.0, 9.0), (99.0, 20.0), (91.0, 5.0), (50.0, 1.0)]
    for slot, (accuracy, latency) in enumerate(figures):
        row = np.array([slot % 3, slot // 3, 0, 0, 0, 0])
        claim = study.claim(slot, row, "me")
        assert claim
        violations = {"latency_ms": max(0.0, latency / 10 - 1)}
        metrics = {"accuracy": accuracy, "latency_ms": latency}
        study.finish(claim, RESULT | {"metrics": metrics, "violations": violations})
        study.front()
    slots = [int(row[0] + 3 * row[1]) for row in study.front()]
    assert slots == [2, 4, 5]


# -- claims and ends ---------------------------------------------------------------------------------------------


def test_first_claim_has_the_slot(storage: BaseStorage) -> None:
    mine, theirs = opened(storage), opened(storage)
    claim = claimed(mine, 0)
    assert theirs.claim(0, ROW, "they") is None
    assert mine.finish(claim, RESULT)
    assert theirs.claim(0, ROW, "they") is None, "nor when it is spent"
    assert [(r.slot, r.trial) for r in theirs.records()] == [(0, 0)]
    assert theirs.running() == []


def test_released_slot_is_taken_up_again(storage: BaseStorage) -> None:
    study = opened(storage)
    assert study.release(claimed(study, 0), "interrupted")
    assert study.records() == []
    assert study.next_slot(1) == 0
    assert study.finish(claimed(study, 0), RESULT)
    assert [(r.slot, r.trial) for r in study.records()] == [(0, 1)]


@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_processes_race_for_slots(kind: str, tmp_path: Path) -> None:
    slots, workers = (25, 5) if kind == "journal" else (6, 3)

    def storage() -> BaseStorage:
        if kind == "journal":
            return journal(str(tmp_path / "study.journal"))
        return database(f"sqlite:///{tmp_path}/study.db")

    opened(storage())
    start, go = os.pipe()

    def race(worker: int) -> None:
        study = opened(storage())
        os.read(start, 1)
        (tmp_path / f"won{worker}").write_text(",".join(map(str, won(study, slots))))

    pids = [forked(lambda worker=worker: race(worker)) for worker in range(workers)]  # type: ignore[misc]
    os.write(go, b"!" * workers)
    assert [exit_code(pid) for pid in pids] == [0] * workers
    taken = [int(s) for w in range(workers) for s in (tmp_path / f"won{w}").read_text().split(",") if s]
    assert sorted(taken) == list(range(slots)), "each slot to exactly one"
    assert [record.slot for record in opened(storage()).records()] == list(range(slots))


# -- dead workers ------------------------------------------------------------------------------------------------


def test_zombie_that_finishes_late_does_not_count(storage: BaseStorage) -> None:
    zombie, reaper = opened(storage), opened(storage)
    claim = claimed(zombie, 0)
    assert reaper.reap(Verdict(dead=False)) == []
    assert reaper.reap(Verdict()) == [0]
    taken = claimed(reaper, 0, "reaper")
    assert not zombie.finish(claim, RESULT | {"metrics": {"accuracy": 0.0, "latency_ms": 0.0}})
    assert not zombie.fail(claim, "too late")
    assert not zombie.release(claim, "too late")
    assert reaper.finish(taken, RESULT)
    for study in (zombie, reaper, opened(storage)):
        assert [(r.trial, dict(r.metrics)) for r in study.records()] == [(1, RESULT["metrics"])]


def test_result_written_just_before_the_reaper_counts(storage: BaseStorage) -> None:
    zombie, reaper = opened(storage), opened(storage)
    claim = claimed(zombie, 0)
    assert reaper.reap(Verdict(meanwhile=lambda: zombie.finish(claim, RESULT))) == []
    assert [(r.slot, r.state) for r in reaper.records()] == [(0, "complete")]


@pytest.mark.parametrize(("metrics", "state"), [(RESULT["metrics"], "complete"), ({"latency_ms": 9.0}, "ruled_out")])
def test_result_without_a_final_state_is_kept(storage: BaseStorage, metrics: dict[str, float], state: str) -> None:
    study, result = opened(storage), RESULT | {"metrics": metrics, "violations": {"latency_ms": 0.5}}
    for _ in range(MAX_ATTEMPTS - 1):
        claimed(study, 0)
        assert study.reap(Verdict()) == [0]
    claim = claimed(study, 0)
    study.optuna._storage.set_trial_user_attr(claim.trial_id, "result", result)
    assert study.reap(Verdict()) == []
    for reader in (study, opened(storage)):
        assert [(r.slot, r.state, dict(r.metrics), r.violation) for r in reader.records()] == [(0, state, metrics, 0.5)]
        assert reader.running() == []


def test_double_reaping_is_harmless(storage: BaseStorage) -> None:
    worker, first, second = opened(storage), opened(storage), opened(storage)
    claimed(worker, 0)
    reaped: list[list[int]] = []
    assert second.reap(Verdict(meanwhile=lambda: reaped.append(first.reap(Verdict())))) == []
    assert reaped == [[0]]
    assert second.next_slot(1) == 0


def test_reaper_that_dies_half_way_is_made_up_for(path: str) -> None:
    study = opened(journal(path))
    claim = claimed(study, 0)
    study.optuna._storage.set_trial_user_attr(claim.trial_id, "abandoned", "its worker died (attempt 1)")
    for attempt in range(1, MAX_ATTEMPTS):
        assert study.reap(Verdict()) == [0], f"attempt {attempt}"
        claimed(study, 0)
    assert study.reap(Verdict()) == []
    assert [(r.slot, r.state) for r in study.records()] == [(0, "failed")]


def test_slot_that_kills_its_workers_fails_for_good(storage: BaseStorage) -> None:
    for _ in range(MAX_ATTEMPTS - 1):
        study = opened(storage)
        claimed(study, 0)
        assert study.reap(Verdict()) == [0]
    claimed(study, 0)
    assert study.reap(Verdict()) == []
    for reader in (study, opened(storage)):
        assert [(r.slot, r.state, r.error) for r in reader.records()] == [
            (0, "failed", "The worker died 3 times while evaluating this slot.")
        ]
        assert reader.next_slot(1) is None


def test_slots_given_back_are_no_deaths(storage: BaseStorage) -> None:
    study = opened(storage)
    for _ in range(MAX_ATTEMPTS + 1):
        study.release(claimed(study, 0), "its machine failed, yet no worker died")
    assert study.reap(Verdict()) == []
    claimed(study, 0)
    assert study.reap(Verdict()) == [0]


@pytest.mark.parametrize("first", ["finish", "reap"])
def test_losers_of_a_claim_that_die_do_not_spoil_the_slot(path: str, first: str) -> None:
    class LosersDie(Verdict):
        def is_dead(self, worker: str, heartbeat: float | None) -> bool:
            return worker == "loser"

    winner, loser = opened(journal(path)), opened(journal(path))
    claim = claimed(winner, 0)
    for _ in range(MAX_ATTEMPTS + 1):  # each dies between its template and its withdrawal
        template = winner.optuna.get_trials(deepcopy=True)[0]
        template.user_attrs = {"slot": 0, "worker": "loser"}
        loser.optuna._storage.create_new_trial(loser.optuna._study_id, template_trial=template)
        if first == "reap":
            assert loser.reap(LosersDie()) == []
    assert winner.finish(claim, RESULT)
    assert loser.reap(LosersDie()) == []
    for study in (winner, loser, opened(journal(path))):
        assert [(r.slot, r.trial, r.state) for r in study.records()] == [(0, 0, "complete")]
        assert study.running() == []
        assert counted(study) == {0: 1}


def test_result_goes_before_a_failure_of_the_same_slot() -> None:
    failed, complete = Record(0, 1, ROW, "failed", error="late"), Record(0, 2, ROW, "complete", RESULT["metrics"])
    for order in ([failed, complete], [complete, failed]):
        records = Records(Toy(), two_objectives())
        for record in order:
            records.add(record)
        assert records.ordered() == [complete]
        assert records.front().tolist() == [ROW.tolist()]
        assert records.log([]).losses.tolist() == [[-90.0, 2.0]]


def test_workers_elsewhere_live_by_the_heartbeats_of_the_log(path: str) -> None:
    clock = iter(count(0, 100))
    liveness = Liveness(lease_s=150, clock=lambda: next(clock))
    board = str(replace(Worker.current(), host="board", namespace="elsewhere"))
    study = opened(journal(path))
    claimed(study, 0, board)
    for beat in range(4):
        opened(journal(path)).beat(board, float(beat))
        assert study.reap(liveness) == []
    assert study.reap(liveness) == []
    assert study.reap(liveness) == [0]


# -- a study continues under the same configuration only ---------------------------------------------------------


CONFIG = {"space": {"scale": "small", "cells": 5}, "train": {"epochs": 3, "nan": float("nan")}, "list": [1, 2]}


def test_same_configuration_continues(storage: BaseStorage) -> None:
    opened(storage, config=CONFIG)
    assert opened(storage, config=CONFIG | {"new": None}).records() == []


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"config": CONFIG | {"list": [1, 3]}}, [r"list: was \[1, 2\], is now \[1, 3\]"]),
        ({"config": CONFIG | {"space": {"scale": "full", "cells": 4}}}, ["space.cells: was 5, is now 4", '"full"']),
        ({"config": CONFIG | {"extra": {"deep": 1}}}, [r'extra: was absent, is now {"deep": 1}']),
        ({"config": {k: v for k, v in CONFIG.items() if k != "train"}}, ['train: was {"epochs": 3.*is now absent']),
        ({"config": {}}, ["list: was .*, is now absent"]),
        ({"config": {f"key{i}": i for i in range(9)}}, ["and 7 more"]),
        ({"config": CONFIG, "seed": 5}, ["seed: was 0, is now 5"]),
        ({"config": CONFIG, "objectives": two_objectives(at_most=2)}, ["latency_ms.at_most: was absent, is now 2"]),
        ({"config": CONFIG, "objectives": Objectives(accuracy={"direction": "maximize"})}, ["latency_ms: was"]),
        ({"config": CONFIG, "space": Other()}, ['space: was "toy-.*is now "other-']),
    ],
)
def test_changed_configuration_is_refused(given: dict[str, Any], words: list[str]) -> None:
    storage = memory()
    opened(storage, config=CONFIG)
    with pytest.raises(StudyError, match=r"begun with another configuration.*Only the budget") as caught:
        opened(storage, **given)
    for word in words:
        caught.match(word)
    assert len(str(caught.value)) < 1000


def test_changed_seed_is_refused_by_every_storage(storage: BaseStorage) -> None:
    opened(storage)
    with pytest.raises(StudyError, match="seed: was 0, is now 1"):
        opened(storage, seed=1)


def test_configuration_that_cannot_be_kept() -> None:
    with pytest.raises(ConfigError, match="JSON"):
        opened(memory(), config={"path": Path()})


def test_negative_seed_is_refused() -> None:
    with pytest.raises(ConfigError, match="seed"):
        opened(memory(), seed=-1)


def test_study_that_is_not_ours_is_refused() -> None:
    theirs = optuna.create_study(study_name="nasflow")
    theirs.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    with pytest.raises(StudyError, match=r"nasflow did not begin.*storage\.study"):
        opened(theirs._storage)


def test_creator_that_died_before_it_wrote_who_it_was(path: str) -> None:
    optuna.create_study(study_name="nasflow", storage=journal(path), directions=["maximize", "minimize"])
    assert len(evolving(opened(journal(path))).run(2)) == 2


def test_two_studies_share_a_storage(storage: BaseStorage) -> None:
    first, second = opened(storage, name="first"), opened(storage, name="second", seed=7)
    first.finish(claimed(first, 0), RESULT)
    assert second.records() == []
    second.finish(claimed(second, 0), RESULT)
    first.finish(claimed(first, 1), RESULT)
    assert [r.slot for r in opened(storage, name="first").records()] == [0, 1]
    assert [r.slot for r in opened(storage, name="second", seed=7).records()] == [0]


def test_parameters_of_another_space_are_named(path: str) -> None:
    study = opened(journal(path))
    template = optuna.trial.create_trial(state=TrialState.RUNNING, user_attrs={"slot": 0, "worker": "me"})
    study.optuna._storage.create_new_trial(study.optuna._study_id, template_trial=template)
    with pytest.raises(StudyError, match="is not of space 'toy'"):
        study.log()


def test_opening_to_read_writes_nothing(path: str) -> None:
    evolving(opened(journal(path))).run(2)
    before = Path(path).read_bytes()
    assert len(opened(journal(path)).records()) == 2
    assert Path(path).read_bytes() == before


# -- Optuna ------------------------------------------------------------------------------------------------------


@pytest.fixture
def seen_by_optuna(path: str) -> Iterator[optuna.Study]:
    """A run with every kind of trial, as plain Optuna loads it."""
    study = opened(journal(path), objectives=two_objectives(at_most=20))
    study.release(claimed(study, 0), "interrupted")
    evaluators = [
        Known(["latency_ms"], "cheap"),
        Known(["accuracy"], faults={3: RuntimeError("no memory")}),
    ]
    Runner(study, Random(), evaluators).run(30)
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield optuna.load_study(study_name="nasflow", storage=JournalStorage(JournalFileBackend(path)))
    optuna.logging.set_verbosity(level)


def test_optuna_sees_params_values_constraints(seen_by_optuna: optuna.Study, path: str) -> None:
    ours = opened(journal(path), objectives=two_objectives(at_most=20))
    records = {record.trial: record for record in ours.records()}
    trials = seen_by_optuna.trials
    assert len(trials) == 31
    assert {t.state for t in trials} == {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL}
    for trial in trials[1:]:
        record = records[trial.number]
        labels = [gene.choices[choice] for gene, choice in zip(Toy.genes, record.row, strict=True)]
        assert list(trial.params.values()) == labels
        assert trial.duration is not None
        if trial.state == TrialState.COMPLETE:
            assert trial.values == [record.metrics["accuracy"], record.metrics["latency_ms"]]
            assert trial.constraints == {"0": 0.0}
        if trial.state == TrialState.PRUNED:
            assert trial.constraints["0"] == record.violation > 0
    best = {trial.number for trial in seen_by_optuna.best_trials}
    front = {tuple(row) for row in ours.front()}
    assert {tuple(records[number].row) for number in best} == front
    assert seen_by_optuna.metric_names == ["accuracy", "latency_ms"]


@pytest.mark.filterwarnings("ignore")
def test_plots_and_samplers_of_optuna_work(seen_by_optuna: optuna.Study) -> None:
    from optuna.visualization import matplotlib as plots

    plots.plot_pareto_front(seen_by_optuna)
    plots.plot_timeline(seen_by_optuna)
    plots.plot_hypervolume_history(seen_by_optuna, reference_point=[0, 100])
    for index in range(2):

        def target(trial: optuna.trial.FrozenTrial, index: int = index) -> float:
            return float(trial.values[index])

        plots.plot_optimization_history(seen_by_optuna, target=target)
        plots.plot_slice(seen_by_optuna, target=target)
        plots.plot_param_importances(seen_by_optuna, target=target)
        plots.plot_parallel_coordinate(seen_by_optuna, target=target)
    seen_by_optuna.sampler = optuna.samplers.TPESampler(seed=0)
    seen_by_optuna.optimize(lambda trial: (trial.suggest_categorical("op", ["none", "skip", "conv"]) == "conv", 1.0), 1)


def test_dataframe_of_optuna(seen_by_optuna: optuna.Study) -> None:
    pytest.importorskip("pandas")
    frame = seen_by_optuna.trials_dataframe()
    assert {"values_accuracy", "values_latency_ms", "params_op", "user_attrs_slot"} <= set(frame.columns)


def test_trials_that_others_add_take_no_slot(path: str) -> None:
    study = opened(journal(path))
    study.optuna.enqueue_trial({"op": "conv"})
    study.optuna.add_trial(optuna.trial.create_trial(values=[1.0, 2.0]))
    expected = told(evolving(opened(memory())).run(4))
    assert told(evolving(study).run(4)) == expected


def test_optuna_stays_silent(path: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    level = optuna.logging.get_verbosity()
    with caplog.at_level(logging.INFO):
        opened(journal(path))
        opened(journal(path))
    assert capfd.readouterr() == ("", "")
    assert optuna.logging.get_verbosity() == level
