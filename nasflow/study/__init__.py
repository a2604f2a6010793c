"""Studies: the durable log of a run, and the runner that fills it.

`Log`, `Record`, `Runner` and `Study` are imported when they are first used, for strategies need `Log` alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nasflow.study.log import Log
    from nasflow.study.records import Record
    from nasflow.study.runner import Runner
    from nasflow.study.study import Study

__all__ = ["Log", "Record", "Runner", "Study"]

_HOMES = {"Log": "log", "Record": "records", "Runner": "runner", "Study": "study"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'nasflow.study' has no attribute {name!r}")
    return getattr(import_module(f"nasflow.study.{_HOMES[name]}"), name)
