"""`nasflow JOB [hydra overrides]`: each job is a Hydra application with a primary configuration of its name."""

import os
import re
import sys
import textwrap
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import hydra
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from nasflow.config import CONF, composed, register_plugins
from searchspaces.errors import ConfigError, NasflowError, unknown

JOBS = {
    "search": "run a study; with the same hydra.run.dir it resumes",
    "worker": "join a running study: start it as often as there are cores or machines",
    "export": "turn an architecture into an ONNX file, checked in ONNX Runtime",
    "report": "write the HTML report of one run, or a comparison of several",
    "bench": "run an evaluation suite",
}
FAILED, MISUSED, INTERRUPTED = 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one job and return the exit code; errors become one paragraph unless NASFLOW_DEBUG is set."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0 if arguments else MISUSED
    try:
        return _run(arguments[0], arguments[1:])
    except KeyboardInterrupt:
        print("Interrupted. Give the same command again to continue.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:  # every error ends here, in words
        if os.environ.get("NASFLOW_DEBUG"):
            traceback.print_exc()
        message, code = _explain(arguments, error)
        print(textwrap.fill(f"nasflow: {message}", 100), file=sys.stderr)
        return code


def _explain(arguments: Sequence[str], error: Exception) -> tuple[str, int]:
    """Return what to tell of an error, and the exit code."""
    if isinstance(error, (NasflowError, HydraException, OmegaConfBaseException)):
        ours = isinstance(error, NasflowError) and not isinstance(error, ConfigError)
        return _message(arguments, error), FAILED if ours else MISUSED
    if isinstance(error, OSError):
        advice = "Free space or mend what is named, then give the same command again: what had finished is kept."
        return f"{error}. {advice}", FAILED
    hint = "This is a defect; NASFLOW_DEBUG=1 shows where. What had finished is kept."
    return f"{type(error).__name__}: {error}. {hint}", FAILED


def _usage() -> str:
    lines = [f"  {job:8}{purpose}" for job, purpose in JOBS.items()]
    return "\n".join(
        [
            "usage: nasflow JOB [name=value ...]",
            "",
            *lines,
            "",
            "nasflow JOB --help shows a job's choices, nasflow JOB --cfg job the configuration it would run with.",
        ]
    )


def _run(job: str, overrides: list[str]) -> int:
    if job not in JOBS:
        raise ConfigError(unknown("job", job, JOBS))
    register_plugins()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach main(), which words them
    errors: list[Exception] = []

    def task(config: DictConfig) -> None:
        function: Callable[[DictConfig], None] = import_module(f"nasflow.jobs.{job}").run
        try:
            function(config)
        except Exception as error:  # Hydra would print it its own way, and end a sweep at the first one
            errors.append(error)

    former, sys.argv = sys.argv, [f"nasflow {job}", *overrides]
    try:
        hydra.main(version_base="1.3", config_path=f"pkg://{CONF}", config_name=job)(task)()
    except SystemExit as leaving:
        return int(leaving.code or 0)
    finally:
        sys.argv = former
    for error in errors[:-1]:  # of a sweep, whose other jobs went on
        print(textwrap.fill(f"nasflow: {_explain([job], error)[0]}", 100), file=sys.stderr)
    if errors:
        raise errors[-1]
    return 0


def _message(arguments: Sequence[str], error: Exception) -> str:
    """Word Hydra's errors as our own are: the rule, the values, the nearest match."""
    if isinstance(error, NasflowError):
        return str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        return unknown(group, name, error.options)
    if isinstance(error, MissingMandatoryValue):
        key = getattr(error, "full_key", "") or "value"
        return f"{key} must be given: nasflow {arguments[0]} {key}=..."
    text = " ".join(str(error).split())
    missing = re.search(r"[Mm]issing mandatory value: ([\w.]+)|MissingMandatoryValue", text)
    if missing:
        return f"A value must be given: nasflow {arguments[0]} {missing.group(1) or 'NAME'}=... ({text})"
    match = re.search(r"Could not override '([^']+)'", text)
    if match:
        key = match.group(1).partition("@")[0]
        return _unknown_key(arguments[0], key)
    return text


def _unknown_key(job: str, key: str) -> str:
    """Name the first part of a dotted key that does not exist, and what stands beside it."""
    level: Any = OmegaConf.to_container(composed(job), resolve=False)
    prefix = ""
    for part in key.split("."):
        if not isinstance(level, dict) or part not in level:
            break
        level, prefix = level[part], f"{prefix}{part}."
    choices = [f"{prefix}{name}" for name in level] if isinstance(level, dict) else [prefix.rstrip(".")]
    return f"{unknown('configuration key', key, choices)} To add a key that is not there yet, write +{key}=..."


if __name__ == "__main__":
    sys.exit(main())
