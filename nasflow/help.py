"""What `nasflow JOB --help` shows: the job's configuration file as its author explained it, and the choices."""

from importlib.resources import files
from textwrap import wrap
from typing import Any

import yaml
from hydra.core.global_hydra import GlobalHydra

from nasflow.config import CONF, composer

_NOT_CHOSEN = ("override", "_self_")
_WIDTH = 118


def job_help(job: str) -> str:
    """Return the help text of a job: what it does, commands, the choices of each group, values with their comments."""
    text = _file(job)
    told: dict[str, Any] = yaml.safe_load(text)
    texts = told["hydra"]["help"]
    commands = [line.removeprefix("# ") for line in _leading_comments(text)]
    parts = [texts["header"].strip(), "Commands\n" + _indented(commands)]
    if choices := _choices(job):
        parts.append("Choices, given as name=choice; each is a file of that name\n" + _indented(choices))
    if values := _values(text):
        parts.append("Values, given as name=value\n" + _indented(values))
    parts.append(texts["footer"].strip())
    parts.append(
        f"nasflow {job} --cfg job shows the whole configuration it would run with; every value in it can be given as\n"
        "name.of.it=value. Quote what the shell would read itself: 'name=[a,b]'."
    )
    return "\n\n".join(parts)


def groups(job: str) -> dict[str, Any]:
    """Return the groups of files that a job chooses from, and its choices by default."""
    return {
        group: value
        for entry in yaml.safe_load(_file(job)).get("defaults", [])
        if isinstance(entry, dict)
        for group, value in entry.items()
        if group.partition(" ")[0] not in _NOT_CHOSEN
    }


def _file(job: str) -> str:
    return files(CONF).joinpath(f"{job}.yaml").read_text(encoding="utf-8")


def _leading_comments(text: str) -> list[str]:
    lines = text.splitlines()
    return lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))]


def _choices(job: str) -> list[str]:
    """Return a line for each group that a job chooses from, the default in brackets."""
    chosen = groups(job)
    with composer():
        loader = GlobalHydra.instance().config_loader()
        options = {group: loader.get_group_options(group) for group in chosen}
    width = max(map(len, chosen), default=0)
    lines = (f"{group:{width}}  {', '.join(_marked(options[group], value))}" for group, value in chosen.items())
    hanging = " " * (width + 2)
    return [part for line in lines for part in wrap(line, _WIDTH, subsequent_indent=hanging, break_long_words=False)]


def _marked(options: list[str], default: Any) -> list[str]:
    chosen = default if isinstance(default, list) else [default]
    return [f"[{option}]" if option in chosen else option for option in options]


def _values(text: str) -> list[str]:
    """Return the lines of the file between its defaults and Hydra's own section."""
    lines = text.splitlines()
    first = next((i + 1 for i, line in enumerate(lines) if line.strip() == "- _self_"), 0)
    while first < len(lines) and lines[first].startswith("  - "):
        first += 1
    last = next(i for i, line in enumerate(lines) if line.startswith("hydra:"))
    return [line for line in lines[first:last] if line.strip() and not line.startswith("#")]


def _indented(lines: list[str]) -> str:
    return "\n".join(f"  {line}" for line in lines)
