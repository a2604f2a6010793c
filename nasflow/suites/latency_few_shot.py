"""How well predictors rank latencies on a device of which few are known, with other devices to learn from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from devices import load_latencies
from nasflow.evaluators import TableLookup
from nasflow.suites.base import Cell, Row, UnavailableError, present
from nasflow.suites.few_shot import Fitted, KeptPredictors, content, held_out, methods_of
from nasflow.suites.partition import weakly_correlated
from predictors.base import SourceSamples
from predictors.choosers import Chooser
from predictors.encodings import Encoding
from predictors.latency.help import HELP
from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError, TableError, unknown
from searchspaces.files import located
from searchspaces.space import SearchSpace
from searchspaces.unreduced import Unreduced

_SOME = 200  # architectures by which choosers are told apart


@dataclass(frozen=True)
class DeviceTask:
    """Target devices, and source devices to learn from.

    Attributes:
        space: The space of the table.
        table: Path of a table with one column of latencies per device.
        sources: Names of the source devices; or how many of the table's devices to choose so that they tell little of
            the targets, see `weakly_correlated`; None for all that are no targets.
        targets: Names of the target devices, or how many; None for half of the devices, or all that are no sources.
        encodings: Encodings by the names that methods give.
        choosers: What picks the samples, by the names that methods give.
        source_samples: Architectures measured on every source device.
        suffix: What follows a device's name in that of its column.
        partition: Seed of the choice of sources and targets, where these are numbers.
        unreduced: Whether the table's networks were executed with their operations without effect.
        elsewhere: Another task whose source devices are learned from in place of devices of this table, such as one of
            another space.
        references: The architectures by whose latencies a publication describes devices, as places in the table; None
            for those that a predictor draws.
        published: Rows of publications: method, samples, spearman, source.
    """

    space: SearchSpace
    table: str
    sources: Sequence[str] | int | None
    targets: Sequence[str] | int | None
    encodings: Mapping[str, Encoding]
    choosers: Mapping[str, Chooser]
    source_samples: int = 800
    suffix: str = "_latency_ms"
    partition: int = 0
    unreduced: bool = False
    elsewhere: "DeviceTask | None" = None
    references: Sequence[int] | None = None
    published: Sequence[Mapping[str, Any]] = ()

    @property
    def missing(self) -> list[str]:
        """The tables that are not there."""
        missing = [] if located(self.table).is_file() else [self.table]
        return missing + (self.elsewhere.missing if self.elsewhere else [])

    @cached_property
    def devices(self) -> tuple[list[str], list[str]]:
        """Names of the sources, and of the targets.

        Raises:
            ConfigError: If names and numbers are mixed, or the table has too few devices.
        """
        sources, targets = self.sources, self.targets
        if isinstance(sources, Sequence) and isinstance(targets, Sequence):
            return list(sources), list(targets)
        if isinstance(sources, Sequence) or isinstance(targets, Sequence):
            raise ConfigError(
                "Name both the sources and the targets, or give numbers of both (null for half of the devices), but "
                f"they are {sources!r} and {targets!r}."
            )
        table = load_latencies(located(self.table), self.space)
        names = [name.removesuffix(self.suffix) for name in table.columns if name.endswith(self.suffix)]
        figures = np.array([table.column(f"{name}{self.suffix}") for name in names])
        known = figures[:, ~np.isnan(figures).any(axis=0)]
        return weakly_correlated(known, names, sources, targets, self.partition)

    @cached_property
    def lookup(self) -> TableLookup:
        """The table with the columns of all devices."""
        columns = [f"{device}{self.suffix}" for devices in self.devices for device in devices]
        return TableLookup(self.space, self.table, {column: column for column in columns})

    @cached_property
    def archs(self) -> ArchBatch:
        """The architectures that were measured on all devices."""
        archs = self.lookup.table.archs[self._known]
        return ArchBatch(Unreduced(self.space), archs.rows) if self.unreduced else archs

    @cached_property
    def anchors(self) -> list[int]:
        """Where the references stand among `archs`.

        Raises:
            ConfigError: If one was not measured on all devices.
        """
        places = {int(at): i for i, at in enumerate(self._known)}
        unknown = [at for at in self.references or () if at not in places]
        if unknown:
            raise ConfigError(f"No architectures {unknown} of {self.table} were measured on all devices of the task.")
        return [places[at] for at in self.references or ()]

    @cached_property
    def _known(self) -> NDArray[np.int64]:
        columns = [self.lookup.table.column(name) for name in self.lookup.columns]
        return np.flatnonzero(~np.isnan(columns).any(axis=0))

    def figures(self, device: str) -> NDArray[np.float64]:
        """Return the latencies on a device."""
        return self.lookup.table.column(f"{device}{self.suffix}")[self._known]

    def order(self, seed: int, first: Sequence[int] = ()) -> NDArray[np.int64]:
        """Return the architectures: some first, others in random order. Sources were measured on those in front."""
        order = np.random.default_rng([seed, 21]).permutation(len(self.archs))
        return np.array([*first, *order[~np.isin(order, first)]])

    def learned_from(self, seed: int, samples: int | None = None, first: Sequence[int] = ()) -> list[SourceSamples]:
        """Return what is known of source devices: so many samples of each, or as many as the task says."""
        if self.elsewhere is not None:
            return self.elsewhere.learned_from(seed, samples)
        measured = self.order(seed, first)[: samples or self.source_samples]
        archs = self.archs[measured]
        return [SourceSamples(archs, self.figures(name)[measured], name) for name in self.devices[0]]

    def places(self, archs: ArchBatch) -> list[int]:
        """Return where architectures stand among those of the task."""
        places = {key: i for i, key in enumerate(self.archs.keys())}
        return [places[key] for key in archs.keys()]  # noqa: SIM118 (a method)

    def chooser(self, name: str) -> Chooser:
        """Return a chooser.

        Raises:
            ConfigError: If there is none of that name.
        """
        if name not in self.choosers:
            raise ConfigError(unknown("chooser", name, self.choosers))
        return self.choosers[name]

    def picked(self, name: str) -> list[int]:
        """Return what a chooser picks of some of the architectures, which tells one chooser from another."""
        some = self.archs[:_SOME]
        return [int(i) for i in self.chooser(name).choose(some, min(5, len(some)), np.random.default_rng(0))]

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """What decides the figures."""
        devices = dict(zip(("sources", "targets"), self.devices, strict=True))
        figures = {"content": self.lookup.content, "unreduced": self.unreduced}
        settings = devices | figures | {"source_samples": self.source_samples}
        return settings | ({"elsewhere": self.elsewhere.settings} if self.elsewhere is not None else {})


@dataclass(frozen=True)
class Adapted(Fitted):
    """A predictor of the suite, and how its samples are picked.

    Attributes:
        samples: Numbers of samples; None for those of the suite.
        chooser: Name of the task's chooser that picks the samples.
        source_samples: Architectures measured on every source device; None for as many as the task says.
        references: Whether the first of the samples are those by which the predictor describes devices, as HELP does:
            the task's, or its own choice. They were measured on the sources, too.
    """

    samples: Sequence[int] | None = None
    chooser: str = "random"
    source_samples: int | None = None
    references: bool = False


class LatencyFewShot:
    """Adapts predictors to target devices with few samples each, and compares ranks on all other architectures.

    Some architectures are measured on every source device. Of the others a chooser picks those that are measured on
    each target device; all that are left are tested on. Reported are means over the target devices of Spearman's
    coefficient, Kendall's tau-b and the share of latencies within the 90 % interval; the median over them of the
    seconds to adapt, which leaves out those for models of the sources, made once; and the seconds to score a thousand
    architectures for the first of them, after which their features are known.

    Args:
        tasks: Sets of devices by name. One whose table is missing is left out, with a line that says so.
        methods: Predictors by name. Tasks without a method's encoding are passed over.
        samples: Samples of each target device.
        seeds: Seeds per cell.
        name: The suite's name.

    Raises:
        ConfigError: If no table is there.
    """

    version = 1

    def __init__(
        self,
        tasks: Mapping[str, DeviceTask],
        methods: Mapping[str, Mapping[str, Any]],
        samples: Sequence[int] = (5, 10, 20, 50),
        seeds: int = 10,
        name: str = "latency_few_shot",
    ) -> None:
        self.name = name
        self._devices = present(tasks)
        self._methods = methods_of(Adapted, methods)
        self.tasks, self.methods = tuple(self._devices), tuple(self._methods)
        self._samples = tuple(samples)
        own = {n for method in self._methods.values() for n in method.samples or ()}
        self.samples = tuple(sorted({*samples, *own}))
        self.seeds = seeds
        self._told: dict[tuple[str, str], Mapping[str, Any]] = {}
        self._kept = KeptPredictors()

    @property
    def published(self) -> list[Row]:
        """The tasks' published rows."""
        return [
            Row(name, row["method"], row["samples"], "spearman", row["spearman"], None, [], None, row["source"])
            for name, task in self._devices.items()
            for row in task.published
        ]

    def settings(self) -> Mapping[str, Any]:
        """Nothing that is not in the cell's."""
        return {}

    def cell_settings(self, cell: Cell) -> Mapping[str, Any]:
        """The devices' figures, the predictor, its encoding and what picks the samples."""
        of = cell.task, cell.method
        if of not in self._told:
            task, method = self._devices[cell.task], self._methods[cell.method]
            encoding = task.encodings.get(method.encoding or "")
            self._told[of] = {
                **task.settings,
                "predictor": method.predictor,
                "transfer": method.transfer,
                "encoding": None if encoding is None else self._content(cell.method, encoding, task.archs),
                "picked": task.picked(method.chooser),
                **({} if method.source_samples is None else {"source_samples": method.source_samples}),
                **({"references": list(task.references or ()) or True} if method.references else {}),
            }
        return self._told[of]

    def _content(self, method: str, encoding: Encoding, archs: ArchBatch) -> str:
        try:
            return content(encoding, archs)
        except TableError as error:
            raise UnavailableError(f"Method {method!r} reads a table that is not there. {error}") from error

    def summary(self, results: Mapping[Cell, Mapping[str, float]]) -> Sequence[Row]:
        """Nothing follows from several cells."""
        return []

    def run(self, cell: Cell) -> Mapping[str, float]:
        """Adapt to all target devices of a task; nothing where the method has not the samples, seed or encoding."""
        task, method = self._devices[cell.task], self._methods[cell.method]
        if cell.samples not in (method.samples or self._samples) or cell.seed >= (method.seeds or cell.seed + 1):
            return {}
        if method.encoding is not None and method.encoding not in task.encodings:
            return {}
        anchors = task.anchors if method.references else []
        order = task.order(cell.seed, anchors)
        source_samples = method.source_samples or task.source_samples
        rest = order[source_samples:]
        if len(rest) < 2 * cell.samples:
            raise ConfigError(
                f"{cell.task} has {len(order)} architectures, too few for {source_samples} of the sources, "
                f"{cell.samples} of the target and as many to test on."
            )
        candidates = task.archs[rest]
        rng = np.random.default_rng([cell.seed, 22, cell.samples])
        sources = task.learned_from(cell.seed, method.source_samples, anchors) if method.transfer else []
        described = {"references": task.archs[anchors].format()} if anchors else {}
        predictor = self._kept.predictor(cell, method, task.encodings, **described)
        given: list[int] = []
        if method.references:
            if not isinstance(predictor, HELP):
                raise ConfigError(f"{cell.method} asks for references, which only latency_help has: leave it out.")
            given = task.places(predictor.references_of(sources))
        picked = cell.samples - len(given)
        if picked < 0:
            return {}
        chosen = task.chooser(method.chooser).choose(candidates, picked, rng) if picked else np.zeros(0, dtype=np.int64)
        train, test = np.array([*given, *rest[chosen]]), np.delete(rest, chosen)
        archs, tested = task.archs[train], task.archs[test]
        found = [
            held_out(predictor, archs, y[train], tested, y[test], sources) for y in map(task.figures, task.devices[1])
        ]
        figures = {name: [entry[name] for entry in found] for name in found[0]}
        means = {name: float(np.mean(figures[name])) for name in ("spearman", "kendall_tau", "within_90")}
        return means | {"adapt_s": float(np.median(figures["fit_s"])), "score_1000_s": figures["score_1000_s"][0]}
