"""A private sshd on the loopback interface: own port, keys and configuration, nothing of the system's."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest


class Sshd:
    """A server, and the client's configuration that leads to it as host `board`.

    Args:
        folder: Holds keys, configurations and what the runner keeps (`there`).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin") or ""
        if not self.program or shutil.which("ssh") is None:
            pytest.skip("needs openssh-server")
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where sshd locks itself in before a login
        for key in ("host_key", "other_key", "user_key"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)]
            subprocess.run(command, check=True, capture_output=True)
        shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        server = [
            f"Port {self.port}", "ListenAddress 127.0.0.1", f"HostKey {folder}/host_key", "PidFile none",
            f"AuthorizedKeysFile {folder}/authorized_keys", "StrictModes no", "UsePAM no", "PasswordAuthentication no",
            "KbdInteractiveAuthentication no", "PermitRootLogin prohibit-password", "PrintMotd no",
            f"SetEnv NASFLOW_LOCK={folder}/machine.lock OMP_NUM_THREADS=1",
        ]  # fmt: skip
        (folder / "sshd_config").write_text("\n".join(server) + "\n")
        client = [
            "Host board", "  HostName 127.0.0.1", f"  Port {self.port}", f"  User {getpass.getuser()}",
            f"  IdentityFile {folder}/user_key", "  IdentitiesOnly yes", "  IdentityAgent none",
            f"  UserKnownHostsFile {folder}/known_hosts", "  GlobalKnownHostsFile none",
        ]  # fmt: skip
        self.config = folder / "ssh_config"
        self.config.write_text("\n".join(client) + "\n")
        self.know("host_key")
        self.there = folder / "there"
        self.process: subprocess.Popen[bytes] | None = None
        self._stopped: list[int] = []
        self.start()

    def know(self, *keys: str) -> None:
        """Write the host keys that the client knows."""
        lines = [f"[127.0.0.1]:{self.port} {(self.folder / f'{key}.pub').read_text()}" for key in keys]
        (self.folder / "known_hosts").write_text("".join(lines))

    def start(self) -> None:
        with (self.folder / "sshd.log").open("ab") as log:
            command = [self.program, "-D", "-e", "-f", str(self.folder / "sshd_config")]
            self.process = subprocess.Popen(command, stderr=log)
        deadline = time.monotonic() + 30
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self.process.poll() is None, (self.folder / "sshd.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def stop(self) -> None:
        """End the server and the links; what runs detached goes on."""
        if self.process is not None:
            sessions = self._sessions()
            self.process.kill()
            self.process.wait()
            for pid in sessions:
                _signal(pid, signal.SIGKILL)
            self.process = None

    def cut(self) -> int:
        """Kill the processes that hold the links, as a lost network does; return how many there were."""
        found = self._sessions()
        for pid in found:
            _signal(pid, signal.SIGKILL)
        return len(found)

    def suspend(self) -> int:
        """Stop the processes that hold the links, which stay open; return how many there were."""
        found = self._sessions()
        for pid in found:
            _signal(pid, signal.SIGSTOP)
        self._stopped += found
        return len(found)

    def _sessions(self) -> list[int]:
        assert self.process is not None
        return [pid for pid in _descendants(self.process.pid) if _comm(pid).startswith("sshd")]

    def runners(self) -> list[int]:
        """Process numbers of what measures there."""
        found = []
        for pid in _processes():
            words = _command(pid)
            if "work" in words and any(word.startswith(str(self.there)) for word in words):
                found.append(pid)
        return found

    def overrides(self, **options: object) -> list[str]:
        """Return the words of a command line that lead here."""
        given = {"host": "board", "ssh_config": self.config, "folder": self.there, "python": sys.executable, **options}
        quoted = {key: f'"{value}"' if isinstance(value, str | Path) else value for key, value in given.items()}
        return ["device=ssh", *(f"device.{key}={value}" for key, value in quoted.items())]

    def close(self) -> None:
        """End all of it."""
        self.stop()
        for pid in [*self.runners(), *self._stopped]:
            _signal(pid, signal.SIGKILL)


def _processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _descendants(parent: int) -> list[int]:
    parents = {pid: _parent(pid) for pid in _processes()}
    found, new = [], [parent]
    while new:
        new = [pid for pid, above in parents.items() if above in new]
        found += new
    return found


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return -1


def _comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return ""


def _command(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
