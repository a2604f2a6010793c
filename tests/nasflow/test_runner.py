import errno
import logging
import os
import shutil
import signal
import threading
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nasflow.evaluators.base import Context, Evaluation
from nasflow.objectives import Objectives
from nasflow.strategies import Random
from nasflow.study.evaluation import proposal_rng
from nasflow.study.runner import Runner, select, slot_seed
from nasflow.study.storage import journal, memory
from nasflow.study.study import Study
from searchspaces.arch import ArchBatch
from searchspaces.errors import ArchitectureError, ConfigError, NasflowError, StudyError, TrainingError
from tests.nasflow.studies import (
    Drawn,
    Known,
    Toy,
    Verdict,
    evolving,
    exit_code,
    forked,
    opened,
    told,
    two_objectives,
)


def run(study: Study, *evaluators: Any, budget: int = 4, **given: Any) -> list[Any]:
    return Runner(study, given.pop("strategy", Random()), evaluators, **given).run(budget)


# -- budget, seeds, order ----------------------------------------------------------------------------------------


def test_budget_is_spent_exactly_and_can_be_raised() -> None:
    expected = told(run(opened(memory()), Known(), budget=7))
    study, known = opened(memory()), Known()
    assert told(run(study, known, budget=3)) == expected[:3]
    assert told(run(study, known, budget=3)) == expected[:3], "nothing is left to do"
    assert told(run(study, known, budget=7)) == expected
    assert told(run(study, known, budget=2)) == expected, "a smaller budget takes nothing back"
    assert known.calls == 7


def test_seeds_depend_on_study_and_slot() -> None:
    first = told(run(opened(memory(), seed=1), Known()))
    assert told(run(opened(memory(), seed=1), Known())) == first
    assert told(run(opened(memory(), seed=2), Known())) != first
    seeds = {slot_seed(seed, slot) for seed in range(20) for slot in range(50)}
    assert len(seeds) == 1000
    assert all(0 <= seed < 2**31 for seed in seeds)
    draws = {proposal_rng(seed, slot).integers(2**62) for seed in range(20) for slot in range(50)}
    assert len(draws) == 1000


def test_evaluator_receives_seed_folder_and_front(tmp_path: Path) -> None:
    seen: list[Context] = []

    class Watching(Known):
        def evaluate(self, archs: ArchBatch, context: Context) -> Evaluation:
            seen.append(context)
            return super().evaluate(archs, context)

    study = opened(memory(), seed=3)
    run(study, Watching(), folder=tmp_path)
    assert [context.seeds for context in seen] == [[slot_seed(3, slot)] for slot in range(4)]
    assert {context.folder for context in seen} == {tmp_path}
    assert seen[0].front is None
    assert seen[1].front is not None
    assert np.array_equal(seen[1].front.rows, study.log().rows[:1])


def test_progress_sees_all_records_after_every_slot() -> None:
    told_of: list[int] = []
    study = opened(memory())
    run(study, Known(), budget=2, progress=lambda records: told_of.append(len(records)))
    run(study, Known(), budget=4, progress=lambda records: told_of.append(len(records)))
    assert told_of == [0, 1, 2, 2, 3, 4]


def test_fidelity_of_the_strategy_reaches_evaluator_and_log() -> None:
    class Short(Random):
        def propose(self, log: Any, k: int, rng: np.random.Generator) -> Any:
            return super().propose(log, k, rng)[0], 3.0

    study = opened(memory())
    run(study, Known(), strategy=Short())
    assert study.log().fidelity.tolist() == [3.0] * 4


def test_strategy_with_nothing_left_ends_the_run(caplog: pytest.LogCaptureFixture) -> None:
    class Twice(Random):
        def propose(self, log: Any, k: int, rng: np.random.Generator) -> Any:
            return super().propose(log, k if len(log) < 2 else 0, rng)

    with caplog.at_level(logging.WARNING):
        assert len(run(opened(memory()), Known(), strategy=Twice())) == 2
    assert "stopping early" in caplog.text


@pytest.mark.parametrize("row", [[3, 0, 0, 0, 0, 0], [-1, 0, 0, 0, 0, 0], [0, 0]])
def test_proposal_outside_the_space_is_named_before_it_is_written(row: list[int]) -> None:
    class Wrong(Random):
        def propose(self, log: Any, k: int, rng: np.random.Generator) -> Any:
            return np.array([row]), None

    study = opened(memory())
    with pytest.raises(ArchitectureError, match="toy"):
        run(study, Known(), strategy=Wrong())
    assert study.optuna.trials == []


# -- evaluators ----------------------------------------------------------------------------------------------------


def test_select_takes_first_providers_and_runs_cheap_ones_first() -> None:
    train, table = Known(["accuracy", "loss"]), Known(["accuracy", "params_m"], "cheap")
    costs = Known(["params_m", "macs_m"], "cheap")
    device = Known(["latency_ms"])
    assert select([train, device, costs, table], ["accuracy", "params_m", "latency_ms"]) == [costs, train, device]
    assert select([device, train], ["accuracy"]) == [train]
    with pytest.raises(ConfigError, match=r"No evaluator gives 'latency_us'.*Did you mean 'latency_ms'"):
        select([train, device], ["latency_us"])


def test_metric_of_several_evaluators_comes_from_the_first() -> None:
    class Constant(Known):
        def evaluate(self, archs: ArchBatch, context: Context) -> Evaluation:
            return Evaluation({name: np.array([float(self.sleep_s)]) for name in self.provides})

    trained = Constant(["accuracy"], sleep_s=1)
    predicted = Constant(["accuracy", "latency_ms"], "cheap", sleep_s=2)
    records = run(opened(memory()), trained, predicted)
    assert {(r.metrics["accuracy"], r.metrics["latency_ms"]) for r in records} == {(1.0, 2.0)}
    records = run(opened(memory()), predicted, trained)
    assert {(r.metrics["accuracy"], r.metrics["latency_ms"]) for r in records} == {(2.0, 2.0)}


def test_missed_bound_spares_the_expensive_evaluator() -> None:
    cheap, expensive = Known(["latency_ms"], "cheap"), Known(["accuracy"])
    study = opened(memory(), objectives=two_objectives(at_most=20.0))
    records = run(study, expensive, cheap, budget=20)
    spared = [record for record in records if record.state == "ruled_out"]
    done = [record for record in records if record.state == "complete"]
    assert spared
    assert done
    assert len(spared) + len(done) == 20
    assert expensive.calls == len(done)
    assert all(record.metrics["latency_ms"] > 20 and "accuracy" not in record.metrics for record in spared)
    assert all(record.violation == pytest.approx(record.metrics["latency_ms"] / 20 - 1) for record in spared)
    assert all(record.violation == 0 for record in done)


def test_bound_missed_when_all_is_known_is_a_complete_record() -> None:
    study = opened(memory(), objectives=two_objectives(at_most=0.5))
    records = run(study, Known())
    assert {record.state for record in records} == {"complete"}
    assert all(record.violation > 0 for record in records)
    assert len(study.front()) == 0


def test_bounded_only_metric_is_kept() -> None:
    objectives = Objectives(accuracy={"direction": "maximize"}, params_m={"at_most": 1e9})
    records = run(opened(memory(), objectives=objectives), Known(["params_m"], "cheap"), Known(["accuracy", "extra"]))
    assert all(record.metrics.keys() == {"accuracy", "params_m", "extra"} for record in records)


def test_provenance_is_kept_by_evaluator_and_made_plain() -> None:
    class Device(Known):
        def evaluate(self, archs: ArchBatch, context: Context) -> Evaluation:
            columns = super().evaluate(archs, context).columns
            return Evaluation(columns, [{"raw": np.arange(2.0), "n": np.int64(3), "file": Path("a") / "b"}])

    record = run(opened(memory()), Device(["latency_ms"]), Device(["accuracy"]), budget=1)[0]
    plain = {"raw": [0.0, 1.0], "n": 3, "file": "a/b"}
    assert record.provenance == {"device": plain, "device_2": plain}


# -- failures --------------------------------------------------------------------------------------------------------


def test_raising_evaluator_is_recorded_and_the_run_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    faults: dict[int, Any] = {1: TrainingError("The loss diverged."), 3: ValueError("a defect")}
    records = run(opened(memory()), Known(faults=faults), budget=6, folder=tmp_path)
    errors = ["", "The loss diverged.", "", "ValueError: a defect", "", ""]
    assert [record.error for record in records] == errors
    assert [record.state for record in records] == ["failed" if error else "complete" for error in errors]
    assert [path.name for path in (tmp_path / "errors").iterdir()] == ["slot_3.txt"], "defects leave their traceback"
    assert 'raise fault\nValueError: a defect' in (tmp_path / "errors" / "slot_3.txt").read_text()
    assert "Slot 1 failed: The loss diverged." in caplog.text
    healthy = told(run(opened(memory()), Known(), budget=6))
    assert [t for t in told(records) if not t[4]] == [t for t in healthy if t[0] not in (1, 3)]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_number_that_is_not_finite_is_a_failure_with_a_reason(value: float) -> None:
    records = run(opened(memory(), objectives=two_objectives(at_most=30)), Known(faults={2: value}))
    assert [record.state for record in records].count("failed") == 1
    assert records[2].error == f"accuracy is {value}, not a finite number."


def test_further_metric_that_is_not_finite_is_left_out() -> None:
    known, further = Known(), Known(["extra"], faults={0: float("nan")})

    class Both(Known):
        def evaluate(self, archs: ArchBatch, context: Context) -> Evaluation:
            first, second = known.evaluate(archs, context), further.evaluate(archs, context)
            return Evaluation(first.columns | second.columns)

    records = run(opened(memory()), Both(["accuracy", "latency_ms", "extra"]), budget=2)
    assert ["extra" in record.metrics for record in records] == [False, True]
    assert [record.state for record in records] == ["complete", "complete"]


def test_evaluator_that_breaks_its_promise_is_named() -> None:
    class Silent(Known):
        def evaluate(self, archs: ArchBatch, context: Context) -> Evaluation:
            return Evaluation({})

    records = run(opened(memory()), Silent(), budget=1)
    assert records[0].error == "Silent says that it gives 'accuracy', but did not."


def test_provenance_that_cannot_be_kept_is_a_failure() -> None:
    class Odd(Known):
        def evaluate(self, archs: ArchBatch, context: Context) -> Evaluation:
            return Evaluation(super().evaluate(archs, context).columns, [{"model": object()}])

    assert "provenance of odd" in run(opened(memory()), Odd(), budget=1)[0].error


def test_run_stops_when_too_many_fail_and_continues_once_mended() -> None:
    study = opened(memory())
    broken = Known(faults={i: TrainingError(f"no GPU at call {i}") for i in range(100)})
    with pytest.raises(StudyError, match=r"5 of 5 evaluations failed, more than 50%.*slot 4, said: no GPU at call 4"):
        run(study, broken, budget=20)
    assert broken.calls == 5
    with pytest.raises(StudyError, match="5 of 5"):
        run(study, broken, budget=20)
    assert broken.calls == 10, "not mended: the patience begins anew, the budget does not"
    records = run(study, Known(), budget=20)
    assert [record.state for record in records] == ["failed"] * 10 + ["complete"] * 10


@pytest.mark.parametrize(
    ("rate", "failures", "stops"),
    [(0.5, 3, False), (0.5, 4, True), (1.0, 6, False), (0, 1, True)],
)
def test_failure_rate_is_a_share(rate: float, failures: int, stops: bool) -> None:
    faults: dict[int, Any] = {i: TrainingError("broken") for i in range(failures)}
    runner = Runner(opened(memory()), Random(), [Known(faults=faults)], max_failure_rate=rate, patience=6)
    if stops:
        with pytest.raises(StudyError, match=f"{failures} of 6"):
            runner.run(12)
    else:
        assert len(runner.run(6)) == 6


def test_failure_rate_must_be_a_share() -> None:
    with pytest.raises(ConfigError, match="max_failure_rate"):
        Runner(opened(memory()), Random(), [Known()], max_failure_rate=50)


# -- faults of the machine, interruptions ----------------------------------------------------------------------------


def _wrapped(error: OSError) -> NasflowError:
    wrapped = NasflowError("the weights could not be written")
    wrapped.__cause__ = error
    return wrapped


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("wrapped", [False, True])
def test_fault_of_the_machine_stops_the_run_and_spends_nothing(number: int, wrapped: bool) -> None:
    error = OSError(number, os.strerror(number))
    study = opened(memory())
    with pytest.raises(StudyError, match=f"Slot 2 .*{os.strerror(number)}.*same command again"):
        run(study, Known(faults={2: _wrapped(error) if wrapped else error}))
    assert [record.slot for record in study.records()] == [0, 1]
    assert study.next_slot(4) == 2
    assert told(run(study, Known())) == told(run(opened(memory()), Known()))


def test_other_faults_of_the_system_are_the_architectures() -> None:
    missing = FileNotFoundError(errno.ENOENT, "No such file", "weights")
    assert run(opened(memory()), Known(faults={1: missing}))[1].state == "failed"


def test_fault_that_hits_the_log_as_well_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    class Filling(Known):
        def evaluate(self, archs: ArchBatch, context: Context) -> Evaluation:
            monkeypatch.setattr(os, "fsync", full)
            raise OSError(errno.ENOSPC, "No space left on device", "weights")

    with pytest.raises(StudyError, match=r"Slot 0 .* because of the machine.*No space left on device: 'weights'"):
        run(opened(journal(str(tmp_path / "study.journal"))), Filling())


def test_folder_that_is_not_there_yet_is_no_fault_of_the_machine(tmp_path: Path) -> None:
    faults: dict[int, Any] = {1: TrainingError("The loss diverged."), 2: ValueError("a defect")}
    records = run(opened(memory()), Known(faults=faults), folder=tmp_path / "new", patience=9)
    assert [record.state for record in records] == ["complete", "failed", "failed", "complete"]
    assert (tmp_path / "new" / "errors" / "slot_2.txt").exists()


def test_full_disk_behind_an_error_of_a_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = opened(memory())
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=0))
    with pytest.raises(StudyError, match=r"no space is left in .*unexpected pos"):
        run(study, Known(faults={1: RuntimeError("unexpected pos 64 vs 0")}), folder=tmp_path)
    assert len(study.records()) == 1


def test_traceback_that_cannot_be_kept_is_no_reason_to_stop(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "errors").touch()
    records = run(opened(memory()), Known(faults={1: ValueError("a defect")}), folder=tmp_path)
    assert len(records) == 4
    assert "traceback could not be kept" in caplog.text


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), SystemExit(143)])
def test_interrupted_slot_is_given_back(interruption: BaseException) -> None:
    study = opened(memory())
    with pytest.raises(type(interruption)):
        run(study, Known(faults={2: interruption}))
    assert [record.slot for record in study.records()] == [0, 1]
    assert study.running() == []
    assert told(run(study, Known())) == told(run(opened(memory()), Known()))


def test_termination_gives_the_slot_back(tmp_path: Path) -> None:
    path = str(tmp_path / "study.journal")
    expected = told(evolving(opened(memory())).run(6))

    def terminated() -> None:
        class Suicidal(Known):
            def evaluate(self, archs: ArchBatch, context: Context) -> Evaluation:
                if self.calls == 3:
                    os.kill(os.getpid(), signal.SIGTERM)
                return super().evaluate(archs, context)

        runner = evolving(opened(journal(path)))
        Runner(runner.study, runner.strategy, [Suicidal()]).run(6)

    former = signal.getsignal(signal.SIGTERM)
    assert exit_code(forked(terminated)) == 1, "SystemExit left the run"
    study = opened(journal(path))
    assert told(study.records()) == expected[:3]
    assert study.running() == []
    assert [t.user_attrs.get("abandoned") for t in study.optuna.trials][3] == "interrupted: SystemExit"
    assert told(evolving(study).run(6)) == expected
    assert signal.getsignal(signal.SIGTERM) == former


def test_run_in_a_thread_leaves_signals_alone() -> None:
    records: list[Any] = []
    thread = threading.Thread(target=lambda: records.extend(run(opened(memory()), Known())))
    thread.start()
    thread.join()
    assert len(records) == 4


def test_slot_of_a_failing_log_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "study.journal")
    study = opened(journal(path))
    calls = count()

    def full(descriptor: int) -> None:
        if next(calls) == 3:  # after the heartbeat and the ends of two trials
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(StudyError, match="cannot be written: No space left"):
            evolving(study).run(5)
    assert len(study.records()) == 2
    assert len(study.running()) == 1
    # The same process goes on, as in a notebook: its former run counts as dead.
    assert told(evolving(study).run(5)) == told(evolving(opened(memory())).run(5))


# -- other workers -----------------------------------------------------------------------------------------------


def test_result_of_a_slot_that_was_taken_away_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    storage = memory()
    other = opened(storage)

    class Slow(Known):
        def evaluate(self, archs: ArchBatch, context: Context) -> Evaluation:
            if self.calls == 1:
                assert other.reap(Verdict()) == [1]
            if self.calls == 2:
                assert other.reap(Verdict()) == [1]
                self.calls += 1
                raise TrainingError("late and failed")
            return super().evaluate(archs, context)

    with caplog.at_level(logging.WARNING):
        records = run(opened(storage), Slow())
    assert told(records) == told(run(opened(memory()), Known()))
    assert caplog.text.count("dropped") == 2


def test_worker_waits_for_others_and_takes_up_their_slots() -> None:
    storage = memory()
    study, other = opened(storage), opened(storage)
    claim = other.claim(1, Toy().sample(1, proposal_rng(0, 1))[0], "host|1|2|elsewhere|token")
    assert claim
    waited = 0

    class Patient(Verdict):
        def is_dead(self, worker: str, heartbeat: float | None) -> bool:
            nonlocal waited
            waited += study.next_slot(4) is None
            return waited > 2

    records = Runner(study, Drawn(), [Known()], liveness=Patient(), poll_s=0.001).run(4)
    assert waited == 3
    assert told(records) == told(run(opened(memory()), Known(), strategy=Drawn()))


def test_waiting_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    storage = memory()
    other = opened(storage)
    claim = other.claim(0, Toy().sample(1, proposal_rng(0, 0))[0], "board|17|2|elsewhere|token")
    assert claim
    polls = 0

    class Eventually(Verdict):
        def is_dead(self, worker: str, heartbeat: float | None) -> bool:
            nonlocal polls
            polls += 1
            if polls == 5:
                assert claim
                other.fail(claim, "its own reason")
            return False

    with caplog.at_level(logging.INFO):
        records = Runner(opened(storage), Random(), [Known()], liveness=Eventually(), poll_s=0.001).run(2)
    assert [record.state for record in records] == ["failed", "complete"]
    assert caplog.text.count("waiting for other workers (board process 17)") == 1
