"""The part of a report that says how its figures came about and how to get them again."""

import json
import shlex
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from nasflow.config import plain
from nasflow.report.markup import Section, code, details, facts, paragraph, section
from nasflow.report.results import measured
from nasflow.report.sections import Run
from nasflow.report.text import esc, moment
from nasflow.study.study import Study


def provenance(run: Run, study: Study, created: str) -> Section:
    """Configuration, seed, versions, device, commands.

    Args:
        run: The run.
        study: Its study.
        created: When the report was written.
    """
    parts = [facts(_facts(run, study, created))]
    commands = _commands(run.folder)
    if commands:
        purpose = "To continue this run, help it, repeat it elsewhere, or write this page again:"
        parts += [paragraph(purpose), code(commands)]
    parts.append(details("Resolved configuration", code(_json(run.config))))
    parts.append(details("Environment", code(_json(run.environment))))
    measurements = _measurement(run)
    if measurements:
        parts.append(details("Conditions of the last measurement", code(_json(measurements))))
    return section("provenance", "Provenance", *parts)


def _facts(run: Run, study: Study, created: str) -> list[tuple[str, str]]:
    pairs = [
        ("Study", study.optuna.study_name),
        ("Seed", study.seed),
        ("Fingerprint of the space", run.space.fingerprint),
        ("Fingerprint of the study", fingerprint(study)),
    ]
    if run.times:
        pairs += [("First evaluation began", moment(run.times.first)), ("Last one ended", moment(run.times.last))]
    known = [key for key in ("python", "system", "processor", "cores") if key in run.environment]
    pairs += [(key.capitalize(), run.environment[key]) for key in known]
    packages = run.environment.get("packages")
    if isinstance(packages, Mapping):
        pairs.append(("Versions", ", ".join(f"{package} {version}" for package, version in packages.items())))
    return [*((term, esc(text)) for term, text in pairs), ("Report written", f"<time>{esc(created)}</time>")]


def fingerprint(study: Study) -> str:
    """Return a digest of all that decides a study's results: space, seed and configuration."""
    identity = json.dumps(study.optuna.user_attrs.get("nasflow"), sort_keys=True)
    return sha256(identity.encode()).hexdigest()[:16]


def _commands(folder: Path) -> str:
    """The commands that work on a folder of `nasflow search`; empty for other folders."""
    if not (folder / "config.yaml").is_file():
        return ""
    place = shlex.quote(str(folder))
    worker, report = f"nasflow worker run={place}", f"nasflow report run={place}"
    overrides = folder / ".hydra" / "overrides.yaml"
    if not overrides.is_file():
        return f"{worker}\n{report}"
    given = plain(OmegaConf.load(overrides), resolve=False)  # a password from the environment stays there
    search = shlex.join(["nasflow", "search", *map(str, given)])
    return "\n".join([f"{search} hydra.run.dir={place}", worker, search, report])


def _measurement(run: Run) -> Mapping[str, Any]:
    """Environment of the latest measurement that noted one."""
    for record in reversed(run.results.records):
        for metric in record.metrics:
            noted = measured(record, metric).get("environment")
            if isinstance(noted, Mapping):
                return {"slot": record.slot, "metric": metric, **noted}
    return {}


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2, default=str, ensure_ascii=False)
