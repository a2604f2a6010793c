"""The system's OpenSSH client: its command line, and what its failures mean."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from devices.remote.link import LinkLostError
from searchspaces.errors import DeviceError

CONNECT_S = 20
_ALIVE_S, _ALIVE_COUNT = 15, 4
_HOST = re.compile(r"([A-Za-z0-9_.+-]+@)?[A-Za-z0-9_:\[][A-Za-z0-9_.:%\[\]-]*")


def check_host(host: str) -> None:
    """Make sure that a host's name can be nothing else.

    Raises:
        DeviceError: If it begins like an option, or holds what no name or address has.
    """
    if not _HOST.fullmatch(host) or host.startswith("-"):
        raise DeviceError(
            f"A host is a name, an address or USER@NAME, but device.host is {host!r}. Give one that ssh reaches, for "
            "instance as an entry of ~/.ssh/config."
        )


def ssh_command(host: str, port: int | None, config: str | None, words: Sequence[str]) -> list[str]:
    """Return the command that runs a program on a host.

    Keys, agents, jumps and names are those of the user's ssh configuration. No password is asked for, and the host's
    key must be known. An open master connection is used, but none is left behind.

    Args:
        host: The host.
        port: Its port; None for that of the configuration.
        config: The configuration's file; None for the usual ones.
        words: The program and its arguments, which the shell there gets quoted.
    """
    options = {
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
        "ConnectTimeout": CONNECT_S,
        "ServerAliveInterval": _ALIVE_S,
        "ServerAliveCountMax": _ALIVE_COUNT,
        "ControlMaster": "no",
        "ClearAllForwardings": "yes",
        "ForwardAgent": "no",
        "PermitLocalCommand": "no",
        "RemoteCommand": "none",
        "Compression": "yes",
    }
    command = ["ssh", "-T"]
    if config is not None:
        command += ["-F", str(Path(config).expanduser())]
    if port is not None:
        command += ["-p", str(port)]
    for name, value in options.items():
        command += ["-o", f"{name}={value}"]
    return [*command, "--", host, shlex.join(words)]


_HOST_KEYS = (
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "the host's key is not the one it had. If the machine was installed anew, remove the old key with "
        "ssh-keygen -R {name}, then log in once by hand and compare the new one's fingerprint; if it was not, somebody "
        "may be in between",
    ),
    (
        "Host key verification failed",
        "the host's key is not known here. Log in once by hand with ssh {host}, compare the fingerprint that it shows "
        "with that of the machine (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub there), and accept it",
    ),
)
_OTHERS = (
    (
        "Permission denied",
        "the login was refused. No password is asked for: put your public key there with ssh-copy-id {host}, load the "
        "key into ssh-agent, or name user and key in ~/.ssh/config. `ssh -o BatchMode=yes {host} true` must succeed",
    ),
    ("Could not resolve hostname", "its name is not known. Check device.host and ~/.ssh/config"),
    ("Connection refused", "nothing listens there. Check the port and whether sshd runs"),
    ("timed out", "it does not answer. Check that it is on and in reach"),
    ("No route to host", "it is not in reach. Check the network"),
)


def explain(host: str, python: str, status: int | None, told: str) -> Exception:
    """Return the error that tells why ssh ended; a `DeviceError` where trying again is of no use.

    A machine that starts up may refuse logins, or lack its file systems, for a while; a wrong host key stays wrong.

    Args:
        host: The host.
        python: The Python that was to run there.
        status: Its exit status: 255 for faults of its own, else that of the shell there.
        told: What it wrote to its standard error.
    """
    lines = [line.strip() for line in told.splitlines() if line.strip() and not line.startswith("@@@")]
    said = f" (ssh says: {lines[-1]})" if lines else ""
    words = {"host": host, "name": host.rpartition("@")[2]}
    if status in (126, 127):
        return LinkLostError(
            f"{host} has no Python at {python!r}{said}. The runner needs Python, numpy and onnxruntime there: install "
            "them, or name the right Python with device.python=PATH, which may be relative to the home folder."
        )
    for phrase, text in _HOST_KEYS:
        if phrase in told:
            return DeviceError(f"{host} cannot be trusted: {text.format(**words)}{said}.")
    for phrase, text in _OTHERS:
        if phrase in told:
            return LinkLostError(f"{host} cannot be reached: {text.format(**words)}{said}.")
    return LinkLostError(f"The link to {host} ended with status {status}{said}. Check that `ssh {host} true` succeeds.")
