import logging
import os
import signal
import time
from dataclasses import replace

import pytest

from nasflow.study import workers
from nasflow.study.storage import memory
from nasflow.study.workers import Heartbeat, Liveness, Worker
from tests.nasflow.studies import ROW, exit_code, forked, opened


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def elsewhere() -> str:
    return str(replace(Worker.current(), host="board", namespace="other-boot/pid:[1]"))


def test_text_and_back() -> None:
    worker = Worker.current()
    assert Worker.parse(str(worker)) == worker
    assert str(worker) != str(Worker.current()), "two workers of one process are told apart"


def test_own_worker_lives_while_its_context_is_open() -> None:
    worker = Worker.current()
    liveness = Liveness()
    with Heartbeat(worker, lambda text: None):
        assert not liveness.is_dead(str(worker), None)
    assert liveness.is_dead(str(worker), None), "a run that ended left its trial behind, though its process goes on"


def test_process_of_this_machine_is_looked_up() -> None:
    read, write = os.pipe()

    def work() -> None:
        os.write(write, str(Worker.current()).encode())
        time.sleep(60)

    pid = forked(work)
    text = os.read(read, 4096).decode()
    assert Worker.parse(text).pid == pid
    assert Worker.parse(text).alive_here() is True
    assert not Liveness(lease_s=0).is_dead(text, None), "no lease for processes that can be seen"
    assert Worker.parse(text).alive_here() is True
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while Worker.parse(text).alive_here() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert Liveness().is_dead(text, None), "a zombie is dead"
    exit_code(pid)
    assert Liveness().is_dead(text, None), "so is a process that is gone"


def test_later_process_with_the_same_number_is_not_the_worker() -> None:
    parent = replace(Worker.current(), pid=os.getppid())
    assert not Liveness().is_dead(str(replace(parent, started=workers._status(os.getppid())[1])), None)
    assert Liveness().is_dead(str(replace(parent, started="17")), None)
    assert Liveness().is_dead(str(replace(Worker.current(), started="17")), None)


@pytest.mark.parametrize(
    "text",
    [elsewhere(), "", "somebody", "a|b|c|d|e", "host|x|1||t"],
    ids=["elsewhere", "nobody", "name", "no number", "half a number"],
)
def test_others_live_by_their_heartbeat(text: str) -> None:
    clock = Clock()
    liveness = Liveness(lease_s=300, clock=clock)
    assert not liveness.is_dead(text, 1.0)
    clock.now += 299
    assert not liveness.is_dead(text, 1.0)
    clock.now += 1
    assert not liveness.is_dead(text, 2.0), "the heartbeat changed"
    clock.now += 300
    assert not liveness.is_dead(text, 2.0)
    clock.now += 1
    assert liveness.is_dead(text, 2.0)
    assert not liveness.is_dead(text, 3.0), "it has come back"


def test_worker_of_a_former_boot_is_dead_at_once() -> None:
    worker = Worker.current()
    former = str(replace(worker, namespace=f"former-boot/{worker.namespace.partition('/')[2]}"))
    liveness = Liveness(lease_s=1e9)
    assert liveness.is_dead(former, workers._boot_time() - 60)
    assert liveness.is_dead(former, None)
    assert not liveness.is_dead(former, workers._boot_time() + 60), "another machine of the same name"
    assert not liveness.is_dead(str(replace(Worker.parse(former), host="board")), workers._boot_time() - 60)
    assert not liveness.is_dead(str(replace(worker, namespace="", started="")), workers._boot_time() - 60)
    now = time.time()
    assert 0 < now - workers._boot_time() <= now


def test_slot_of_a_former_boot_is_taken_up_at_once() -> None:
    study, worker = opened(memory()), Worker.current()
    former = str(replace(worker, namespace="former-boot/pid:[1]"))
    study.beat(former, workers._boot_time() - 60)
    assert study.claim(0, ROW, former)
    assert study.reap(Liveness(lease_s=1e9)) == [0]
    study.claim(0, ROW, former)
    study.beat(former, time.time())
    assert study.reap(Liveness(lease_s=1e9)) == []


def test_heartbeat_that_never_came_counts_from_first_sight() -> None:
    clock = Clock()
    liveness = Liveness(lease_s=10, clock=clock)
    assert not liveness.is_dead(elsewhere_text := elsewhere(), None)
    clock.now += 11
    assert liveness.is_dead(elsewhere_text, None)


def test_clocks_of_machines_need_not_agree() -> None:
    clock = Clock()
    liveness = Liveness(lease_s=10, clock=clock)
    text = elsewhere()
    for heartbeat in (5e9, 5e9 - 60, -3.0):
        assert not liveness.is_dead(text, heartbeat)
        clock.now += 9


def test_heartbeat_repeats_and_outlives_faults(caplog: pytest.LogCaptureFixture) -> None:
    beats: list[str] = []

    def beat(text: str) -> None:
        beats.append(text)
        if len(beats) == 2:
            raise OSError("the link is down")

    worker = Worker.current()
    with caplog.at_level(logging.WARNING), Heartbeat(worker, beat, interval_s=0.005):
        deadline = time.monotonic() + 10
        while len(beats) < 4 and time.monotonic() < deadline:
            time.sleep(0.005)
    assert len(beats) >= 4
    assert set(beats) == {str(worker)}
    assert "the link is down" in caplog.text
    ended = len(beats)
    time.sleep(0.03)
    assert len(beats) == ended
