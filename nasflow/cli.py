"""`nasflow JOB [hydra overrides]`: each job is a Hydra application with a primary configuration of its name."""

import errno
import os
import re
import sys
import textwrap
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import version
from typing import Any

import hydra
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from nasflow.config import CONF, check_given, composed, register_plugins
from nasflow.help import groups, job_help
from nasflow.portable import refuse_passwords
from searchspaces.errors import ConfigError, NasflowError, unknown

JOBS = {
    "search": "run a study; with the same hydra.run.dir it resumes",
    "worker": "join a running study: start it as often as there are cores or machines",
    "collect": "measure a latency dataset on a device; with the same hydra.run.dir it resumes",
    "fit": "fit a predictor to a table of figures, or train a learned encoding",
    "score": "evaluate many architectures into a table, by zero-cost proxies or other evaluators",
    "export": "turn an architecture into an ONNX file, checked in ONNX Runtime",
    "report": "write the HTML report of one run, or a comparison of several",
    "bench": "run an evaluation suite",
    "data": "list, verify or import published tables",
}
FIRST_WORD = {"data": "action"}  # jobs whose first word may stand for a value: nasflow data list
RAW = {"export": "arch"}  # values in a notation of their own, which Hydra's grammar would refuse
FAILED, MISUSED, INTERRUPTED = 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one job and return the exit code; errors become one paragraph unless NASFLOW_DEBUG is set."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0 if arguments else MISUSED
    if arguments[0] == "--version":
        print(f"nasflow {version('nasflow')}")
        return 0
    try:
        return _run(arguments[0], arguments[1:])
    except KeyboardInterrupt:
        print("Interrupted. Give the same command again to continue.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:  # every error ends here, in words
        return _tell(arguments, error).code


class JobError(NasflowError):
    """A job's error in words, as it comes back from another process.

    Attributes:
        code: The exit code.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message, code)  # both, for they are what pickling hands to the copy
        self.message, self.code = message, code

    def __str__(self) -> str:
        return self.message


def _tell(arguments: Sequence[str], error: Exception) -> JobError:
    """Print what there is to tell of an error, and return that."""
    if os.environ.get("NASFLOW_DEBUG"):
        traceback.print_exception(error)
    told = error if isinstance(error, JobError) else JobError(*_explain(arguments, error))
    print(textwrap.fill(f"nasflow: {told}", 100, break_long_words=False, break_on_hyphens=False), file=sys.stderr)
    return told


def _explain(arguments: Sequence[str], error: Exception) -> tuple[str, int]:
    """Return what to tell of an error, and the exit code."""
    if isinstance(error, (NasflowError, HydraException, OmegaConfBaseException)):
        ours = isinstance(error, NasflowError) and not isinstance(error, ConfigError)
        return _message(arguments, error), FAILED if ours else MISUSED
    if isinstance(error, OSError):
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        advice = "Free space" if full else "Mend what is named"
        return f"{error}. {advice}, then give the same command again: what had finished is kept.", FAILED
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


def as_overrides(job: str, words: Sequence[str]) -> list[str]:
    """Return the words after a job's name as Hydra reads them.

    Raises:
        ConfigError: If a word is no `name=value`, or chooses nothing where something must be chosen.
    """
    words = list(words)
    if job in FIRST_WORD and words and words[0].isalpha():
        words[0] = f"{FIRST_WORD[job]}={words[0]}"
    for i, word in enumerate(words):
        follows_option = i > 0 and words[i - 1].startswith("-")
        if "=" not in word and not word.startswith(("-", "~")) and not follows_option:
            raise ConfigError(
                f"{word!r} is not of the form name=value, such as run={word} or budget=20. nasflow {job} --help shows "
                "the names."
            )
        name, _, value = word.partition("=")
        if value == "null" and name in (choices := groups(job)):
            if choices[name] is not None:
                raise ConfigError(f"{word}: one must be chosen. nasflow {job} --help lists them.")
            words[i] = f"~{name}"  # how Hydra spells it
        if name == RAW.get(job) and value[:1] not in ("'", '"') and value != "null":
            words[i] = f"{name}='{value}'"
    return words


def _run(job: str, overrides: list[str]) -> int:
    if job not in JOBS:
        raise ConfigError(unknown("job", job, JOBS))
    if {"-h", "--help"} & set(overrides):
        print(job_help(job))
        return 0
    overrides = as_overrides(job, overrides)
    for override in overrides:  # Hydra writes them into the folder of a sweep before any job begins
        key, _, value = override.partition("=")
        refuse_passwords(value, key)
    register_plugins()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach main(), which words them
    task = _Task(job, home=os.getpid())
    former, sys.argv = sys.argv, [f"nasflow {job}", *overrides]
    try:
        hydra.main(version_base="1.3", config_path=f"pkg://{CONF}", config_name=job)(task)()
    except SystemExit as leaving:
        return int(leaving.code or 0)
    finally:
        sys.argv = former
    for error in task.errors[:-1]:  # of a sweep, whose other jobs went on
        _tell([job], error)
    if task.errors:
        raise task.errors[-1]
    return 0


class _Task:
    """A job as Hydra's launchers run it: in this process, in a forked one, or as a pickled copy anywhere.

    Attributes:
        errors: Those of jobs that ran in this process.
    """

    def __init__(self, job: str, home: int | None = None) -> None:
        self.job = job
        self.errors: list[Exception] = []
        self._home = home

    def __reduce__(self) -> tuple[type["_Task"], tuple[str]]:
        return _Task, (self.job,)

    def __call__(self, config: DictConfig) -> None:
        function: Callable[[DictConfig], None] = import_module(f"nasflow.jobs.{self.job}").run
        try:
            check_given(self.job, config)
            function(config)
        except Exception as error:
            if self._home == os.getpid():  # Hydra would print it its own way, and might end a sweep at the first one
                self.errors.append(error)
            else:  # told here as well, for of several errors Hydra hands on the first
                raise _tell([self.job], error) from None


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
        return _unknown_key(arguments, match.group(1).partition("@")[0])
    if isinstance(error, OverrideParseException):
        return (
            f"{error.override!r} cannot be read as name=value. Put a value with signs such as , | [ ] {{ }} or spaces "
            f"in two pairs of quotes: name=\"'a|b'\"."
        )
    return text


def _unknown_key(arguments: Sequence[str], key: str) -> str:
    """Name the first part of a dotted key that does not exist, and what stands beside it."""
    job, *words = arguments
    # Files chosen on the command line decide which keys there are; what else was given does not.
    made = [word for word in words if "." not in word.partition("=")[0] and not word.startswith(("-", "+", "~"))]
    try:
        config = composed(job, made)
    except (HydraException, OmegaConfBaseException):
        config = composed(job)
    level: Any = OmegaConf.to_container(config, resolve=False)
    prefix = ""
    for part in key.split("."):
        if not isinstance(level, dict) or part not in level:
            break
        level, prefix = level[part], f"{prefix}{part}."
    names = [name for name in level if name != "_target_"] if isinstance(level, dict) else []
    choices = [f"{prefix}{name}" for name in names] or [prefix.rstrip(".")]
    return f"{unknown('configuration key', key, choices)} To add a key that is not there yet, write +{key}=..."


if __name__ == "__main__":
    # As nasflow.cli, not __main__, for launchers hand a _Task to other processes, which look it up by that name.
    sys.exit(import_module("nasflow.cli").main())
