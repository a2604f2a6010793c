"""Settings in which compared searches differ, and what that does to their figures."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nasflow.report.results import Results, measured
from nasflow.report.text import component, count, esc, listing, name, number
from nasflow.study.study import Study
from searchspaces.errors import ConfigError
from searchspaces.task import Task

_APART = ("budget", "seed")  # expected to differ; they have columns of their own
_IDLE = ("storage", "max_failure_rate", "lease_s", "reference")  # decide nothing that a comparison shows
_NAMED = 3  # settings that a warning names, and values of a setting
_ABSENT = object()
_UNKNOWN = "–"
_PURPOSES = {
    "task": "the task",
    "space": "the choice of networks",
    "objective": "which trials count",
    "strategy": "the search",
    "predictor": "the search",
    "encoding": "the search",
}
_FACTS = {
    "processor": "processor that {} was measured on",
    "onnxruntime": "ONNX Runtime that {} was measured with",
    "reference_ms": "anchor time that {} is relative to (ms)",
}


@dataclass(frozen=True)
class Compared:
    """One of the searches that are compared.

    Attributes:
        name: What it is called.
        study: Its study.
        task: The task it was for.
        config: Its resolved configuration; none where it is not known.
        providers: By metric, the name under which `config` has the evaluator that gives it, as far as known.
    """

    name: str
    study: Study
    task: Task
    config: Mapping[str, Any] = field(default_factory=dict)
    providers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Difference:
    """A setting in which runs differ.

    Attributes:
        key: The setting, as on the command line.
        values: Its value per run.
        decides: The metrics that it decides; empty where it decides none, or what the warnings tell otherwise.
    """

    key: str
    values: tuple[str, ...]
    decides: tuple[str, ...] = ()

    @property
    def told(self) -> str:
        """The values without repetition, in words."""
        values = ["not set" if value == _UNKNOWN else value for value in dict.fromkeys(self.values)]
        return " or ".join(values) if len(values) <= _NAMED else f"{len(values)} different values"


def check_tasks(runs: Sequence[Compared]) -> None:
    """See that the runs are for the same images and classes: otherwise no figure of theirs compares.

    Raises:
        ConfigError: If they are not.
    """
    first = runs[0]
    for run in runs[1:]:
        if (run.task.name, run.task.classes) != (first.task.name, first.task.classes):
            raise ConfigError(
                f"Only runs for the same task can be compared, but {first.name!r} is for {_task(first.task)} and "
                f"{run.name!r} for {_task(run.task)}: neither accuracies nor the networks' sizes and times stand for "
                "the same work. Compare the runs of one task at a time."
            )


def _task(task: Task) -> str:
    return f"{task.name} with {count(task.classes, 'class', 'classes')}"


def differences(runs: Sequence[Compared]) -> list[Difference]:
    """Return the settings in which `runs` differ, budget and seed apart.

    Copies of a setting are left out: an evaluator's trainer has what `trainer` says.
    """
    configs = [{k: v for k, v in run.config.items() if k not in (*_APART, *_IDLE)} for run in runs]
    found = [Difference(key, values, _decides(key, runs)) for key, values in _differing("", configs)]
    kept: dict[str, Difference] = {}
    for entry in sorted(found, key=lambda entry: entry.key.count(".")):  # what is copied before its copies
        parts = entry.key.split(".")
        tails = (".".join(parts[i:]) for i in range(1, len(parts)))
        origin = next((kept[tail] for tail in tails if tail in kept and kept[tail].values == entry.values), entry)
        decides = tuple(dict.fromkeys((*origin.decides, *entry.decides)))
        kept[origin.key] = Difference(origin.key, origin.values, decides)
    return [*sorted(kept.values(), key=lambda entry: entry.key), *_sources(runs)]


def _differing(key: str, values: Sequence[Any]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Go down to where the values differ; components of different classes differ as wholes."""
    if all(value == values[0] for value in values):
        return
    maps = [value for value in values if isinstance(value, Mapping)]
    if len(maps) < len(values) or len({value.get("_target_") for value in maps}) > 1:
        yield key, tuple(_UNKNOWN if value is _ABSENT else component(value) for value in values)
        return
    idle = {"path"} if all("content" in value for value in maps) else set()  # where a known content lies is the same
    for part in dict.fromkeys(part for value in maps for part in value if part not in idle):
        yield from _differing(f"{key}.{part}" if key else part, [value.get(part, _ABSENT) for value in maps])


def _metrics(runs: Sequence[Compared]) -> tuple[str, ...]:
    """Metrics that any run optimises or bounds."""
    return tuple(dict.fromkeys(metric for run in runs for metric in run.study.objectives.metrics))


def _decides(key: str, runs: Sequence[Compared]) -> tuple[str, ...]:
    """Metrics that an evaluator's setting decides: those that it gives; all where it is not known who gives them."""
    parts = key.split(".")
    if parts[0] != "evaluator":
        return ()
    return tuple(
        metric for metric in _metrics(runs) if any(run.providers.get(metric, parts[1]) == parts[1] for run in runs)
    )


def _sources(runs: Sequence[Compared]) -> Iterator[Difference]:
    """What decides figures and stands in no configuration: who gave them, and how latencies were normalised."""
    for metric in _metrics(runs):
        givers = tuple(run.providers.get(metric, _UNKNOWN) for run in runs)
        if len(set(givers) - {_UNKNOWN}) > 1:
            yield Difference(f"evaluator of {metric}", givers, (metric,))
        notes = [_measured(run, metric) for run in runs]
        for fact in ("processor", "onnxruntime", "reference_ms"):
            values = tuple(_fact(note.get(fact)) for note in notes)
            if len(set(values) - {_UNKNOWN}) > 1:
                yield Difference(_FACTS[fact].format(name(metric)), values, (metric,))


def _measured(run: Compared, metric: str) -> Mapping[str, Any]:
    """What the last measurement of a metric noted; empty where it was not measured."""
    noted = (measured(record, metric) for record in reversed(Results.of(run.study).records))
    found = next((note for note in noted if note), {})
    environment = found.get("environment")
    return {**(environment if isinstance(environment, Mapping) else {}), **found}


def purpose(entry: Difference) -> str:
    """Say what a setting decides."""
    if entry.decides:
        return listing([name(metric) for metric in entry.decides])
    return _PURPOSES.get(entry.key.split(".")[0], "nothing that is compared")


def _fact(value: Any) -> str:
    return _UNKNOWN if value is None else number(value) if isinstance(value, float) else str(value)


def warnings(runs: Sequence[Compared], found: Sequence[Difference]) -> list[str]:
    """Return in words, as HTML, why figures of the runs do not compare; empty where they do."""
    spaces = [entry for entry in found if entry.key.split(".")[0] == "space"]
    tasks = [entry for entry in found if entry.key.split(".")[0] == "task" and entry.key != "task.scale"]
    texts = [_metric_warning(metric, runs, found) for metric in _metrics(runs)]
    if tasks:
        texts.append(
            "<strong>The task differs</strong>: " + _named(tasks) + ". What depends on the images, above all "
            "accuracy, does not compare."
        )
    if spaces:
        texts.append(
            "<strong>The searches chose among different networks</strong>: " + _named(spaces) + ". Fronts and "
            "hypervolume tell which networks are better; they do not tell which search is, for none had the "
            "others' networks to choose from."
        )
    limits = [entry for entry in found if entry.key.startswith("objective")]
    if limits:
        texts.append(
            "<strong>The bounds differ</strong>: " + _named(limits) + ". Each run counts the trials that meet "
            "its own."
        )
    return [text for text in texts if text]


def _metric_warning(metric: str, runs: Sequence[Compared], found: Sequence[Difference]) -> str:
    """Why a metric does not compare; empty where it does."""
    reference = _FACTS["reference_ms"].format(name(metric))
    deciding = [entry for entry in found if metric in entry.decides]
    others = [entry for entry in deciding if entry.key != reference]
    if others:
        return (
            f"<strong>{esc(_headed(metric))} does not compare</strong>: {_named(others)}. A difference "
            "between the runs in it, in the joint front or in hypervolume may come from that and not from the search."
        )
    if not deciding:
        return ""
    times = [note["reference_ms"] for run in runs if (note := _measured(run, metric)) and "reference_ms" in note]
    apart = max(times) / min(times) - 1
    return (
        f"<strong>{esc(_headed(metric))} is on scales up to {apart:.1%} apart</strong>: each run gives it "
        f"relative to the time of an anchor model, taken once at its start ({esc(deciding[0].told)} ms). "
        "Differences below that between the runs mean nothing."
    )


def _headed(metric: str) -> str:
    return name(metric)[:1].upper() + name(metric)[1:]


def _named(found: Sequence[Difference]) -> str:
    """The first few settings with their values, html."""
    texts = [f"{entry.key} is {entry.told}" for entry in found[:_NAMED]]
    if len(found) > _NAMED:
        texts.append(f"{count(len(found) - _NAMED, 'more setting')}, listed below")
    return esc(listing(texts))
