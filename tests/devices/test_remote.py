"""The runner in a process of this machine, in place of one behind ssh."""

import ast
import io
import json
import platform
import shlex
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from devices import Device, Job, Measurement, RefusedModelError, SshDevice
from devices.remote import device as remote
from devices.remote import link as link_module
from devices.remote.bundle import BOOT, PYTHON, runner
from devices.remote.link import Link, LinkLostError
from devices.remote.openssh import explain, ssh_command
from devices.remote.queue import RESULTS, JobQueue, Tail
from devices.remote.server import Server
from devices.remote.state import RemoteState
from devices.remote.transfer import Transfer
from nasflow.testing.devices import chain
from searchspaces.errors import DeviceError, NetworkError

PLAN = {"rounds": 2, "runs_per_round": 2, "restarts": 1}


@pytest.fixture
def there(tmp_path, monkeypatch):
    """A folder of the other machine; a shell of this one takes the place of ssh."""
    monkeypatch.setattr(remote, "ssh_command", lambda host, port, config, words: ["sh", "-c", shlex.join(words)])
    monkeypatch.setattr(remote, "_POLL_S", 0.1)
    return tmp_path / "the other's $(folder)"


def opened(there, **arguments):
    return SshDevice(**{"host": "board", "folder": str(there), "python": sys.executable} | PLAN | arguments)


def job(device, width, key=None):
    return Job((width,) if key is None else key, lambda: device.prepare(chain(width)))


def outcomes_of(device, jobs, state):
    return {one.key: one for batch in device.run_jobs(jobs, np.random.default_rng(0), state) for one in batch}


def results(there):
    lines = [line for path in there.glob(f"*/{RESULTS}") for line in path.read_text().splitlines()]
    return [json.loads(line) for line in lines]


def wrapped(folder, script):
    """Return a Python whose start a line of shell decides."""
    folder.mkdir(exist_ok=True)
    path = folder / "a python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


# -- what is pushed ----------------------------------------------------------------------------------------------------


def test_the_runner_is_one_file_of_the_modules_that_measure_here():
    assert runner() == runner.__wrapped__(), "the same bytes every time"
    with zipfile.ZipFile(io.BytesIO(runner())) as archive:
        sources = {name: archive.read(name).decode() for name in archive.namelist()}
    assert sources["devices/protocol.py"] == Path(sys.modules["devices.protocol"].__file__).read_text()
    for name, source in {**sources, "boot": BOOT}.items():
        ast.parse(source, name, feature_version=PYTHON)
    assert not any("time.time(" in source or "datetime" in source for source in sources.values())


_BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked}:
            raise ImportError(name + " is not there")
sys.meta_path.insert(0, Blocker())
import runpy
sys.argv = {argv}
sys.path.insert(0, sys.argv[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def greeting(tmp_path, *blocked):
    (tmp_path / "runner.pyz").write_bytes(runner())
    argv = [str(tmp_path / "runner.pyz"), "serve", str(tmp_path)]
    script = _BLOCKER.format(blocked=set(blocked), argv=argv)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, input=b"", cwd=tmp_path, check=False)
    return json.loads(done.stdout.partition(b"nasflow: ")[2]), done


def test_it_needs_nothing_but_numpy_and_onnxruntime(tmp_path):
    told, done = greeting(tmp_path, "onnx", "torch", "scipy", "hydra", "nasflow", "predictors", "proxies", "google")
    assert told["facts"]["machine"] == Device().machine, done.stderr
    assert told["facts"]["python"] == platform.python_version()


def test_what_it_lacks_is_named(tmp_path):
    told, _ = greeting(tmp_path, "onnxruntime")
    assert "needs numpy and onnxruntime" in told["error"]
    assert told["error"].endswith("onnxruntime is not there")


def test_an_old_python_is_told_so(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["-c", "folder", "0" * 64, "1"])
    monkeypatch.setattr(sys, "version_info", (3, 7, 3))
    with pytest.raises(SystemExit):
        exec(BOOT, {})
    assert "needs Python 3.10 or later" in json.loads(capsys.readouterr().out.partition("nasflow: ")[2])["error"]


# -- jobs --------------------------------------------------------------------------------------------------------------


def test_lines_are_read_when_they_are_whole(tmp_path):
    path = tmp_path / "log"
    tail = Tail(path)
    assert tail.read() == b""
    path.write_bytes(b"one\ntw")
    assert (tail.read(), tail.offset) == (b"one\n", 4)
    path.write_bytes(b"one\ntwo\nthree\nfour\nfi")
    assert Tail(path, 4).read() == tail.read() == b"two\nthree\nfour\n"
    tail = Tail(path)
    assert [tail.read(limit) for limit in (6, 1, 100, 100)] == [b"one\n", b"two\n", b"three\nfour\n", b""]


def test_a_job_is_open_until_its_result_and_comes_again_only_after_a_failure(tmp_path):
    queue, other = JobQueue(tmp_path), JobQueue(tmp_path)
    queue.submit([(1,), (2,), (3,)], [b"a", b"b", b"a"])
    queue.submit([(2,), (4,)], [b"b", b"d"])
    other.refresh()
    assert [key for key, *_ in other.open.values()] == [(1,), (2,), (3,), (4,)]
    tickets = list(other.open)
    found = [{"key": (1,), "measurement": 1}, {"key": (2,), "error": "x"}]
    other.finish([{"ticket": ticket, **one} for ticket, one in zip(tickets, found, strict=False)])
    with (tmp_path / RESULTS).open("a") as file:
        file.write('{"ticket":"2"')  # a write that was cut short
    assert len(list((tmp_path / "models").iterdir())) == 2, "that of 3 is the one of 1, and still needed"
    queue.submit([(1,), (2,)], [b"a", b"b"])
    for seen in (queue, JobQueue(tmp_path)):
        assert [key for key, *_ in seen.open.values()] == [(3,), (4,), (2,)]
        assert seen.finished == 2
    assert queue.model(next(name for _, name, _ in queue.open.values())) == b"a"
    for path in (tmp_path / "models").iterdir():
        path.write_bytes(b"other")
    with pytest.raises(DeviceError, match="damaged"):
        queue.model(next(name for _, name, _ in queue.open.values()))


def test_jobs_are_measured_there_once(there, tmp_path):
    device = opened(there)
    found = outcomes_of(device, [job(device, width) for width in range(1, 5)], tmp_path / "anchors.json")
    assert sorted(found) == [(1,), (2,), (3,), (4,)]
    one = found[3,].measurement
    assert one.job == device.job(device.prepare(chain(3)))
    assert one.environment["threads"] == 1
    assert one.samples_ms.shape == (2, 2)
    assert json.loads(json.dumps(one.record())) == Measurement.from_record(one.record()).record()
    again = opened(there)
    more = outcomes_of(again, [job(again, width) for width in range(3, 6)], tmp_path / "anchors.json")
    assert more[3,].measurement.record() == one.record(), "fetched, not measured"
    assert len(results(there)) == 5
    kept = json.loads((tmp_path / "anchors-ssh.json").read_text())
    assert len(json.loads(kept["references"])["references_ms"]) == 3
    with pytest.raises(DeviceError, match=r"board has measured another model for \[3\] than the one that is built now"):
        outcomes_of(again, [job(again, 4, key=(3,)), job(again, 9)], tmp_path / "anchors.json")
    other = opened(there, batch=2)
    assert len(outcomes_of(other, [job(other, 3)], tmp_path / "anchors.json")) == 1
    assert len(results(there)) == 6, "another device has a folder of its own"


def test_failures_are_told_and_tried_again_by_the_next_run(there, tmp_path):
    device = opened(there)

    def unbuildable():
        raise NetworkError("This one cannot be built.")

    jobs = [job(device, 1), Job((2,), lambda: device.prepare(chain(2))[:500]), Job((3,), unbuildable), job(device, 4)]
    for attempt in (1, 2):
        found = outcomes_of(device, jobs, tmp_path / "anchors.json")
        assert found[3,].error == "This one cannot be built."
        assert "refuses a file of 500 bytes" in found[2,].error
        assert found[1,].measurement.latency_ms > 0
        assert [entry["key"][0] for entry in results(there)].count(2) == attempt
    assert len(results(there)) == 2 + 2


def test_a_single_measurement_goes_the_same_way(there, tmp_path):
    device, rng = opened(there), np.random.default_rng(0)
    models = [device.prepare(chain(width)) for width in (4, 128)]
    small, large = device.measure(models, rng, anchors=models[:1], state=tmp_path / "state.json")
    assert small.latency_ms < large.latency_ms
    assert small.job == device.job(models[0])
    kept = json.loads((tmp_path / "state-ssh.json").read_text())
    assert len(json.loads(kept["references"])["references_ms"]) == 3 + 1
    with pytest.raises(RefusedModelError, match="no ONNX model") as caught:
        device.measure([models[0], b"junk"], rng)
    assert caught.value.model == b"junk"
    assert device.measure([], rng) == []


def test_anchors_known_here_are_those_of_a_folder_that_was_lost(there, tmp_path):
    state = tmp_path / "anchors.json"
    device = opened(there)
    before = outcomes_of(device, [job(device, 1)], state)[1,].measurement
    subprocess.run(["rm", "-r", str(there)], check=True)
    after = outcomes_of(device, [job(device, 1), job(device, 2)], state)
    assert after[2,].measurement.reference_ms == before.reference_ms
    path = next(there.glob("*/anchors.json"))
    path.write_text(path.read_text().replace("0.", "1."))
    with pytest.raises(DeviceError, match="anchors' times on board are not those known here"):
        outcomes_of(device, [job(device, 3)], state)


# -- faults ------------------------------------------------------------------------------------------------------------


def test_a_runner_that_dies_each_time_is_given_up(there, tmp_path):
    python = wrapped(tmp_path, f'case "$2" in work) echo out of luck; exit 9;; esac\nexec {sys.executable} "$@"')
    # The runner starts with the Python that runs it, so that is the wrapper.
    script = f'export PYTHONPATH="{tmp_path}"\nexec {sys.executable} "$@"'
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.executable = {python!r}\n")
    device = opened(there, python=wrapped(tmp_path / "bin", script))
    with pytest.raises(DeviceError, match="died 4 times without a result.* said last: out of luck .* MB free"):
        outcomes_of(device, [job(device, 1)], tmp_path / "anchors.json")


def test_what_the_machine_lacks_is_told_by_it(there, tmp_path):
    for arguments, message in (
        ({"threads": 4096}, "board: The device asks for 4096 threads"),
        ({"provider": "NPUExecutionProvider"}, "board: Unknown execution provider 'NPUExecutionProvider'"),
        ({"affinity": [10_000]}, "board: The device is to run on processors"),
    ):
        device = opened(there, **arguments)
        with pytest.raises(DeviceError, match=message):
            outcomes_of(device, [job(device, 1)], tmp_path / "anchors.json")
    with pytest.raises(DeviceError, match="board has no Python at 'pithon'.*device.python=PATH"):
        opened(there, python="pithon").machine  # noqa: B018
    there.mkdir(exist_ok=True)
    (there / "file").touch()
    with pytest.raises(DeviceError, match=r"board: The folder .*file/folder cannot be written: Not"):
        opened(there / "file" / "folder").machine  # noqa: B018


_ELSEWHERE = """
import itertools, pathlib, platform, time
read = pathlib.Path.read_text
pathlib.Path.read_text = lambda self, *a, **k: "" if str(self).startswith("/proc/") else read(self, *a, **k)
platform.processor = lambda: ""
platform.machine = lambda: "riscv64"
jumps = itertools.cycle([0.0, 1e9, -1e9, 86400.0])
time.time = lambda: next(jumps)
time.time_ns = lambda: int(next(jumps) * 1e9)
"""


def test_another_architecture_and_a_clock_that_jumps(there, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(_ELSEWHERE)
    script = f'export PYTHONPATH="{tmp_path}"\nexec {sys.executable} "$@"'
    device = opened(there, python=wrapped(tmp_path / "bin", script))
    assert device.machine["processor"] == "riscv64"
    assert device.identity != Device(**PLAN).identity
    found = outcomes_of(device, [job(device, width) for width in (4, 128)], tmp_path / "anchors.json")
    assert 0 < found[4,].measurement.latency_ms < found[128,].measurement.latency_ms < 1000
    assert found[4,].measurement.environment["processor"] == "riscv64"
    with pytest.raises(DeviceError, match="board was .*riscv64.* and is .*: another machine") as caught:
        outcomes_of(opened(there), [job(device, 4)], tmp_path / "anchors.json")
    assert "begin in a new folder" in str(caught.value)


@pytest.mark.parametrize("host", ["-oProxyCommand=touch x", "", "a b", "a;b", "$(a)", "a\nb", "user@-x", "@a", "a@b@c"])
def test_what_is_no_host_is_refused(host):
    with pytest.raises(DeviceError, match="A host is a name, an address or USER@NAME"):
        SshDevice(host)


def test_ssh_checks_host_keys_asks_for_nothing_and_gets_quoted_words(tmp_path):
    command = ssh_command("me@board", 2222, "conf ig", ["a b", "it's", "$(c)"])
    assert command[0] == "ssh"
    assert command[-3:-1] == ["--", "me@board"]
    assert shlex.split(command[-1]) == ["a b", "it's", "$(c)"]
    assert command[command.index("-p") + 1] == "2222"
    assert command[command.index("-F") + 1] == "conf ig"
    options = [command[i + 1] for i, word in enumerate(command) if word == "-o"]
    assert {"BatchMode=yes", "StrictHostKeyChecking=yes"} <= set(options)
    assert "-F" not in ssh_command("board", None, None, [])


@pytest.mark.parametrize(
    ("status", "told", "kind", "says"),
    [
        (255, "Host key verification failed.", DeviceError, "Log in once by hand with ssh me@pi, compare the finger"),
        (255, "@@@\nREMOTE HOST IDENTIFICATION HAS CHANGED!\nX failed.", DeviceError, "ssh-keygen -R pi, then"),
        (255, "me@pi: Permission denied (publickey).", LinkLostError, "ssh-copy-id me@pi"),
        (255, "ssh: Could not resolve hostname pi: Name or", LinkLostError, "its name is not known"),
        (255, "connect to host pi port 22: Connection refused", LinkLostError, "nothing listens there"),
        (255, "connect to host pi port 22: Connection timed out", LinkLostError, "does not answer"),
        (127, "sh: 1: python3: not found", LinkLostError, "has no Python at 'python3'"),
        (1, "", LinkLostError, "ended with status 1. Check"),
        (None, "something else", LinkLostError, "ssh says: something else"),
    ],
)
def test_failures_of_ssh_are_explained_in_one_paragraph(status, told, kind, says):
    error = explain("me@pi", "python3", status, told)
    assert type(error) is kind
    assert says in str(error)
    assert "\n" not in str(error)
    assert str(error).endswith((".", "succeeds."))


def _linked(script, **arguments):
    return Link("board", lambda words: ["sh", "-c", script, "sh", *words], sys.executable, "x",
                lambda status, told: LinkLostError(f"{status} {told}"), **arguments)  # fmt: skip


def test_a_link_that_hangs_or_ends_is_lost(monkeypatch):
    monkeypatch.setattr(link_module, "STALLED_S", 0.3)
    with pytest.raises(LinkLostError, match="board has not answered for 0.3 s"):
        _linked("exec sleep 60")
    with pytest.raises(LinkLostError, match="3 some words"):
        _linked("echo some words >&2; exit 3")
    monkeypatch.setattr(link_module, "STALLED_S", 30.0)
    monkeypatch.setattr(link_module, "_BANNER_BYTES", 1000)
    with pytest.raises(DeviceError, match="prints without end at login"):
        _linked("exec yes")


def test_what_a_login_shell_prints_is_passed_over(there, monkeypatch):
    monkeypatch.setattr(
        remote, "ssh_command", lambda host, port, config, words: ["sh", "-c", f"echo Welcome; {shlex.join(words)}"]
    )
    assert opened(there).machine == Device().machine


def test_a_lost_link_is_tried_again_for_a_while(there, tmp_path, monkeypatch, caplog):
    broken = tmp_path / "broken"
    monkeypatch.setattr(
        remote,
        "ssh_command",
        lambda host, port, config, words: ["sh", "-c", f"test -e {broken} && exit 1; {shlex.join(words)}"],
    )
    broken.touch()
    with pytest.raises(DeviceError, match=r"The link to board ended with status 1\. Check that `ssh board true` succ"):
        opened(there).machine  # noqa: B018
    broken.unlink()
    device = opened(there, patience_s=1.5)
    assert device.machine
    broken.touch()
    device._unlink()
    begun = time.monotonic()
    with pytest.raises(DeviceError, match=r"tried again for 1\.5 s\. The runner goes on there"):
        outcomes_of(device, [job(device, 1)], tmp_path / "anchors.json")
    assert time.monotonic() - begun >= 1
    assert "Trying again" in caplog.text


def test_another_machine_behind_the_same_name_is_refused(there, tmp_path):
    device = opened(there)
    outcomes_of(device, [job(device, 1)], tmp_path / "anchors.json")
    path = tmp_path / "anchors-ssh.json"
    known = json.loads(path.read_text())
    known["machine"]["unit"] = "another"
    path.write_text(json.dumps(known))
    with pytest.raises(DeviceError, match="board was .*another.* and is"):
        outcomes_of(opened(there), [job(device, 2)], tmp_path / "anchors.json")
    path.write_text("{")
    with pytest.raises(DeviceError, match="is damaged"):
        outcomes_of(opened(there), [job(device, 2)], tmp_path / "anchors.json")


def test_a_client_that_is_missing_is_named(monkeypatch, there):
    monkeypatch.setattr(remote, "ssh_command", ssh_command)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(DeviceError, match="ssh cannot be started.* Install OpenSSH"):
        opened(there).machine  # noqa: B018


# -- links that come and go --------------------------------------------------------------------------------------------


def _record(value):
    """A measurement's record, as short as it can be."""
    times = {"samples_ms": [[value]], "anchor_ms": [1.0], "latency_ms": value, "reference_ms": 1.0}
    rest = {"batch_seconds": 0.0, "std_ms": 0.0, "iqr_ms": 0.0, "redone": 0, "drifted": 0, "operators": {}}
    return times | rest | {"job": "", "environment": {}}


class Flaky:
    """A link to a server in this process that is lost now and then, before a request is answered or after it."""

    def __init__(self, base, rng, loss):
        self.facts = {"machine": {"processor": "a", "onnxruntime": "b"}, "unit": "c"}
        self.server, self.rng, self.loss = Server(base), rng, loss

    def ask(self, op, parts=(), seconds=None, **request):
        if self.rng.random() < self.loss:
            raise LinkLostError
        request = json.loads(json.dumps({"op": op, "sizes": [len(part) for part in parts], **request}))
        reply = self.server.answer(request, b"".join(parts))
        if self.rng.random() < self.loss:
            raise LinkLostError
        return json.loads(json.dumps(reply[0])), reply[1]


class Collector:
    """Has jobs measured until it is killed; what it was given before is on its disk."""

    def __init__(self, tmp_path, rng):
        self.tmp_path, self.rng, self.got = tmp_path, rng, {}

    def run(self, jobs, loss, kill):
        links = []

        def connect():
            if not links:
                links.append(Flaky(self.tmp_path / "there", self.rng, loss))
            return links[0]

        state = RemoteState("board", Device(**PLAN), self.tmp_path / "state.json", {})
        transfer = Transfer("board", [one for one in jobs if one.key not in self.got], connect, state, 4)
        while transfer.wanted:
            for action in (transfer.fetch, transfer.send):
                outcomes = None
                while outcomes is None:
                    try:
                        outcomes = action()
                    except LinkLostError:
                        links.clear()
                if self.rng.random() < kill:
                    return False
                for one in outcomes:
                    assert one.key not in self.got
                    if one.measurement is not None:
                        self.got[one.key] = one.measurement.latency_ms
        return True


@pytest.mark.parametrize("seed", range(6))
def test_whatever_is_lost_each_job_is_measured_and_told_once(seed, tmp_path, monkeypatch):
    rng = np.random.default_rng(seed)
    tried = []

    def start(server):
        """Stands in for the process that measures: takes some of the jobs, and dies or fails at times."""
        queue = JobQueue(server.folder)
        if rng.random() < 0.2:
            with (server.folder / RESULTS).open("ab") as file:
                file.write(b'{"ticket":"1')  # a write that a power cut ended
        waiting = list(queue.open.items())
        for ticket, (key, _, _) in waiting[: rng.integers(0, 1 + len(waiting))]:
            if rng.random() < 0.1:
                return
            tried.append(key)
            fails = rng.random() < 0.2
            found = {"error": "x"} if fails else {"measurement": _record(key[0])}
            queue.finish([{"ticket": ticket, "key": key, **found}])

    monkeypatch.setattr(Server, "_start", start)
    monkeypatch.setattr(Device, "_anchors", [b"anchor"])
    monkeypatch.setattr("devices.remote.server._REPLY_BYTES", 700)
    monkeypatch.setattr("devices.remote.transfer._CHUNK", 5)
    built = []
    jobs = [Job((i,), lambda i=i: built.append(i) or b"model %d" % (i % 30)) for i in range(40)]
    collector = Collector(tmp_path, rng)
    for _ in range(200):
        if collector.run(jobs, 0.15, 0.1) and len(collector.got) == len(jobs):
            break
    assert collector.got == {(i,): float(i) for i in range(40)}
    measured = [tuple(entry["key"]) for entry in results(tmp_path / "there") if "measurement" in entry]
    assert sorted(measured) == [(i,) for i in range(40)]
    assert len(tried) > 40, "some failed and were tried again"
    assert not list((tmp_path / "there").glob("*/models/*"))


def test_a_runner_without_jobs_and_damaged_files_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(Device, "_anchors", [b"anchor"])
    monkeypatch.setattr(Server, "_start", lambda server: None)
    link = Flaky(tmp_path / "there", np.random.default_rng(0), 0.0)
    state = RemoteState("board", Device(**PLAN), None, {"id": "ab"})
    transfer = Transfer("board", [Job((1,), lambda: b"model")], lambda: link, state, 4)
    assert transfer.fetch() == transfer.send() == transfer.fetch() == []
    (path,) = (tmp_path / "there").glob("*/jobs.jsonl")
    link.server._queue.open.clear()
    with pytest.raises(DeviceError, match="board has lost jobs"):
        transfer.fetch()
    path.write_text("{}\n")
    with pytest.raises(DeviceError, match=r"are damaged: KeyError\('\w+'\)\. Remove that folder"):
        JobQueue(path.parent)
    with pytest.raises(DeviceError, match="no name of a folder"):
        link.ask("open", id="../x", spec={}, references="")
