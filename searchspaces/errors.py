"""The one family of errors that nasflow raises for bad input and faults.

A message states the rule, the values that broke it and what to do next; the command line prints it as one
paragraph without a traceback.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class NasflowError(Exception):
    """Base of all errors raised on purpose by nasflow."""


class ArchitectureError(NasflowError):
    """An architecture, its text form or its rows do not belong to the search space."""


class NetworkError(NasflowError):
    """A network cannot be described, converted or run."""


class TableError(NasflowError):
    """A table of results is missing, corrupt, of another space, or lacks an asked-for value."""


class ConfigError(NasflowError):
    """A configuration names something unknown or contradicts itself."""


class TaskError(NasflowError):
    """Training data are missing or malformed."""


class TrainingError(NasflowError):
    """Training failed, for instance because the loss diverged."""


class DeviceError(NasflowError):
    """A device refuses a model or cannot be measured."""


class PredictorError(NasflowError):
    """A predictor has nothing to learn from, was not fitted, or its file is missing, damaged or of another kind."""


class StudyError(NasflowError):
    """A study's log is corrupt, belongs to another configuration, or cannot go on."""


def unknown(kind: str, name: str, choices: Iterable[str]) -> str:
    """Return a message for an unknown name that lists the choices and the nearest match."""
    known = sorted(choices)
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"Unknown {kind} {name!r}.{hint} Choose one of: {', '.join(known)}."
