"""What is known on this machine of a folder on another one."""

import json
import secrets
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from devices import protocol
from devices.meter import Meter
from devices.remote.link import Link
from devices.remote.worker import spec_of
from searchspaces.errors import DeviceError
from searchspaces.files import locked, write_text


def new_name() -> str:
    """Return a name that no other folder has."""
    return secrets.token_hex(8)


class RemoteState:
    """What is known here of a folder there: its name, the machine, and the anchors' known times.

    Args:
        host: The host.
        meter: The device.
        path: The file that keeps it, None for none.
        known: What is known without a file; it is added to.
    """

    def __init__(self, host: str, meter: Meter, path: Path | None, known: dict[str, Any]) -> None:
        self._host, self._meter, self._path = host, meter, path
        self._known: dict[str, Any] = known if path is None else {}

    def open(self, link: Link, residents: int) -> dict[str, Any]:
        """Open the folder there; return the runner's reply.

        Raises:
            DeviceError: If the machine is not that of the file, or the anchors' times differ.
        """
        self._load()
        now = which(link.facts)
        if "machine" not in self._known:
            self._known["machine"] = now
            self._write()
        check_same(self._host, self._known["machine"], now)
        spec, anchors = spec_of(self._meter), self._meter._anchors
        # Other settings have another folder, so what is found there was measured under these.
        facts = spec | self._meter.options | {"protocol": protocol.VERSION}
        settings = sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
        request = {
            "id": f"{self._known['id']}-{settings}",
            "spec": {**spec, "anchors": len(anchors), "residents": residents},
            "references": self._known.get("references", ""),
        }
        reply, _ = link.ask("open", **request)
        if not reply["anchors"]:
            reply, _ = link.ask("open", anchors, **request)
        self.save(reply["references"])
        return reply

    def save(self, references: str) -> None:
        """Keep the anchors' times as they stand there; what was known before must be among them.

        Raises:
            DeviceError: If times have changed, or the file cannot be written.
        """
        if references in ("", self._known.get("references")):
            return
        before, now = (_times(text) for text in (self._known.get("references", ""), references))
        if any(now.get(key) != value for key, value in before.items()):
            raise DeviceError(
                f"The anchors' times on {self._host} are not those known here, {self._path or 'from before'}: "
                "its folder was changed by hand, or is used by two machines. Begin in a new folder."
            )
        self._known["references"] = references
        self._write()

    def _load(self) -> None:
        if self._path is None or self._known:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with locked(self._path.with_suffix(".lock")):
            if self._path.exists():
                try:
                    self._known = dict(json.loads(self._path.read_text()))
                    self._known["id"], _times(self._known.get("references", ""))
                except (ValueError, KeyError, TypeError) as error:
                    raise DeviceError(f"{self._path} is damaged: {error!r}. Restore it, or begin anew.") from error
            else:
                self._known = {"id": new_name()}
                self._write()

    def _write(self) -> None:
        if self._path is not None:
            try:
                write_text(self._path, json.dumps(self._known, indent=1))
            except OSError as error:
                raise DeviceError(f"{self._path} cannot be written: {error.strerror}. Make room.") from error


def _times(references: str) -> dict[str, float]:
    return dict(json.loads(references)["references_ms"]) if references else {}


def which(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return what tells a machine from others, of the facts that its runner tells."""
    return {**facts["machine"], "unit": facts["unit"]}


def check_same(host: str, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Make sure that a host is the machine that it was.

    Raises:
        DeviceError: If it is not.
    """
    if dict(before) != dict(now):
        raise DeviceError(
            f"{host} was {before} and is {now}: another machine, or another version of ONNX Runtime. Latencies "
            "measured from now on would not compare with those measured before. Go on with the former one, or begin "
            "in a new folder."
        )
