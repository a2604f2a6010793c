"""Latency datasets in the making: a log of measurements, and the table that it amounts to."""

import fcntl
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from devices import RESIDENTS, Device, Job, Outcome, latency_column, protocol
from nasflow.collection_table import Entry, details, device_facts, in_words
from nasflow.repeats import Agreement, agreement
from nasflow.study.identity import identity as plain_json
from nasflow.tabulation import Report, begun, check_failures, refuse_changes
from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError, StudyError
from searchspaces.jsonlines import JsonLines
from searchspaces.space import SearchSpace
from searchspaces.table import Column, Table
from searchspaces.task import Task

logger = logging.getLogger(__name__)

LOG, ANCHORS, LOCK = "measurements.jsonl", "anchors.json", "collect.lock"
DATASET_VERSION = 2
"""Of the table's provenance and details; raise it when their meaning changes."""

LEAST_REPEATED = 5
"""Models that a report on noise needs."""

Runner = Callable[[Device, Sequence[Job], np.random.Generator, Path, int], Iterator[list[Outcome]]]


class Collection:
    """Latencies of architectures on devices, each measured once per repetition.

    What is measured stands in a log at once, so that a stopped collection continues; a failure stands there with its
    reason and is tried again by the next start. Architectures of one class build the same network, so a class is
    measured once.

    Args:
        folder: Receives the log and the known times of the devices' anchors.
        space: The search space.
        task: The task that networks are built for.
        devices: The devices; further ones may be added later.
        settings: What else decides which networks are built, JSON-able: a log made under other ones is refused.
        max_failure_rate: Stop when a larger share of the measurements fails.

    Raises:
        StudyError: If the log is damaged, was made under other settings, on another machine or by other versions.
        ConfigError: If two devices are one under two names, or share a name.
    """

    def __init__(
        self,
        folder: Path,
        space: SearchSpace,
        task: Task,
        devices: Sequence[Device],
        settings: Mapping[str, Any],
        max_failure_rate: float = 0.5,
    ) -> None:
        self.folder = folder
        self.space = space
        self.task = task
        self.devices = {device.name: device for device in devices}
        self.settings = settings
        self.max_failure_rate = max_failure_rate
        self.log = JsonLines(folder / LOG)
        self._stored: dict[str, Entry] = {}  # devices by name, as the log describes them
        self._new: dict[str, dict[str, Any]] = {}  # those that the log is told of with their first measurement
        self._known: dict[tuple[str, int, bytes], Entry] = {}
        self._read(devices)

    def _read(self, devices: Sequence[Device]) -> None:
        identity = {**self.settings, "dataset": DATASET_VERSION, "protocol": protocol.VERSION}
        entries = begun(self.log, identity, self.space)
        self._stored = {entry["device"]: entry for entry in entries if "settings" in entry}
        _check_names(devices)
        for device in devices:
            now = plain_json(device=device.name, settings=_settings(device), identity=device.identity)
            before = self._stored.get(device.name, now)
            if before["settings"] != now["settings"]:
                refuse_changes(self.log, {device.name: before["settings"]}, {device.name: now["settings"]})
            _check_identity(now, self._stored.values())
            if device.name not in self._stored:
                self._stored[device.name] = self._new[device.name] = now
        rows = [entry for entry in entries if "row" in entry]
        keys = self.space.keys(np.array([entry["row"] for entry in rows])) if rows else []
        self._known = {(e["device"], e["repeat"], key): e for e, key in zip(rows, keys, strict=True)}

    def entries(self, device: str, repeat: int = 0) -> list[Entry]:
        """Return the log's entries of one repetition on a device, in the order in which the classes came up."""
        return [entry for (name, number, _), entry in self._known.items() if (name, number) == (device, repeat)]

    def missing(self, archs: ArchBatch, device: str, repeat: int = 0) -> ArchBatch:
        """Return those of `archs` that are not measured, one of each class."""
        todo: dict[bytes, int] = {}
        for i, key in enumerate(archs.keys()):
            if "measurement" not in self._known.get((device, repeat, key), {}):
                todo.setdefault(key, i)
        return archs[np.fromiter(todo.values(), dtype=np.int64, count=len(todo))]

    def run(
        self,
        archs: ArchBatch,
        repeat: int = 0,
        residents: int = RESIDENTS,
        report: Report | None = None,
        runner: Runner | None = None,
    ) -> None:
        """Measure what is missing of `archs` on each device.

        Args:
            archs: The architectures, in random order: neighbours are measured side by side.
            repeat: Number of the repetition; 0 is the dataset itself.
            residents: Models in memory together, at most.
            report: Told after each batch how many measurements are done, and of how many.
            runner: Has jobs measured and yields their outcomes; the device's own way when absent.

        Raises:
            StudyError: If too many models fail, the log cannot be written, or the models are not those of the log.
            DeviceError: If a device cannot measure.
        """
        todo = {name: self.missing(archs, name, repeat) for name in self.devices}
        total = len(set(archs.keys())) * len(self.devices)
        done, failed, finished = total - sum(map(len, todo.values())), 0, 0
        for name, device in self.devices.items():
            if not len(todo[name]):
                continue
            self._check_models(device)
            rng = np.random.default_rng([len(self._known), repeat])
            jobs = [self._job(device, row, repeat) for row in todo[name].rows]
            measure = device.run_jobs if runner is None else partial(runner, device)
            for outcomes in measure(jobs, rng, self.folder / ANCHORS, residents):
                self._keep(name, repeat, outcomes)
                errors = [outcome.error for outcome in outcomes if outcome.measurement is None]
                failed, finished = failed + len(errors), finished + len(outcomes)
                if report is not None:
                    report(done + finished, total)
                check_failures(failed, finished, self.max_failure_rate, errors, self.log)

    def _job(self, device: Device, row: NDArray[np.int64], repeat: int = 0) -> Job:
        return Job((repeat, *map(int, row)), lambda: device.prepare(self.space.network(row, self.task)))

    def _keep(self, device: str, repeat: int, outcomes: Sequence[Outcome]) -> None:
        entries = [
            {"device": device, "repeat": repeat, "row": list(one.key[1:]), **_found(one)} for one in outcomes
        ]
        self.log.append([*(new for name, new in self._new.items() if name == device), *entries])
        self._new.pop(device, None)
        for entry, key in zip(entries, self.space.keys(np.array([entry["row"] for entry in entries])), strict=True):
            self._known[device, repeat, key] = entry

    def _check_models(self, device: Device) -> None:
        """Make sure that the models are still those of the log: another version may build or lower them otherwise."""
        first = next((entry for entry in self.entries(device.name) if "measurement" in entry), None)
        if first is None:
            return
        row = np.array(first["row"])
        if device.job(self._job(device, row).prepare()) != first["measurement"]["job"]:
            raise StudyError(
                f"{self.space.format(row[None])[0]} builds another model for device {device.name!r} than the one that "
                f"was measured in {self.log.path}: nasflow or onnx is of another version. Go on with the versions that "
                "began the folder, or give another hydra.run.dir to measure all anew."
            )

    def failures(self) -> list[str]:
        """Return one line for each measurement of the dataset that failed."""
        failed = [entry for name in self._stored for entry in self.entries(name) if "error" in entry]
        texts = self.space.format(np.array([entry["row"] for entry in failed])) if failed else []
        return [f"{text} on {entry['device']}: {entry['error']}" for text, entry in zip(texts, failed, strict=True)]

    def table(self, provenance: Mapping[str, Any]) -> tuple[Table, dict[str, list[Any]]]:
        """Return the dataset that the log amounts to, and its details: all that the figures were derived from.

        The table has a column for each device that was ever measured here, NaN where a model failed or is not measured
        yet. Details are columns named `DEVICE.NAME`, None where there is no measurement.

        Raises:
            StudyError: If nothing is measured yet.
        """
        rows: dict[bytes, Entry] = {}
        for (_, repeat, key), entry in self._known.items():
            if repeat == 0:
                rows.setdefault(key, entry)
        values, columns, facts = {}, [], {}
        rest: dict[str, list[Any]] = {}
        for name, stored in self._stored.items():
            found = [self._known.get((name, 0, key), {}).get("measurement") for key in rows]
            values[latency_column(name)] = [np.nan if one is None else one["latency_ms"] for one in found]
            words = in_words(name, **{key: stored["settings"][key] for key in ("options", "machine")})
            columns.append(Column(latency_column(name), "ms", "minimize", words))
            rest |= {f"{name}.{key}": column for key, column in details(found).items()}
            facts[name] = device_facts(stored, found) | {"noise": [report.facts() for report in self.agreements(name)]}
            if name in self.devices:
                facts[name] |= {"references_ms": self.devices[name].known_times(self.folder / ANCHORS)}
        if all(not fact["measured"] for fact in facts.values()):
            raise StudyError(f"No model was measured. What failed stands in {self.log.path}.")
        archs = ArchBatch(self.space, np.array([entry["row"] for entry in rows.values()]))
        known = {"dataset": "latency", "schema": DATASET_VERSION, "protocol": protocol.VERSION, "devices": facts}
        return Table(archs, values, columns, {**provenance, **known}, by_class=True), rest

    def agreements(self, device: str) -> list[Agreement]:
        """Return how each repetition on a device agrees with the dataset, where enough models were repeated."""
        pairs: dict[int, list[tuple[float, float]]] = {}
        for (name, repeat, key), entry in self._known.items():
            first = self._known.get((device, 0, key), {})
            if name == device and repeat and "measurement" in entry and "measurement" in first:
                latencies = first["measurement"]["latency_ms"], entry["measurement"]["latency_ms"]
                pairs.setdefault(repeat, []).append(latencies)
        return [agreement(*zip(*pairs[n], strict=True)) for n in sorted(pairs) if len(pairs[n]) >= LEAST_REPEATED]


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep a second collection out of a folder.

    Raises:
        StudyError: If one is at work there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StudyError(
                f"Another process collects in {folder}. Wait until it has ended (see `fuser -v {folder / LOCK}`), or "
                "give another hydra.run.dir."
            ) from error
        yield


def _check_names(devices: Sequence[Device]) -> None:
    names = [device.name for device in devices]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"Devices share the name {twice[0]!r}: give each one of its own (name: in its yaml).")


def _check_identity(device: Entry, others: Iterable[Entry]) -> None:
    for other in others:
        if other["device"] != device["device"] and other["identity"] == device["identity"]:
            raise ConfigError(
                f"Devices {other['device']!r} and {device['device']!r} have the same options on machines of one kind, "
                "so they are one device under two names. Leave one of them out."
            )


def _found(outcome: Outcome) -> dict[str, Any]:
    one = outcome.measurement
    return {"error": outcome.error} if one is None else {"measurement": one.record()}


def _settings(device: Device) -> dict[str, Any]:
    return {"options": device.options, "plan": asdict(device.plan), "machine": device.machine}
