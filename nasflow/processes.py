"""Processes that end with the one that started them."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from typing import Any, TypeVar

from searchspaces.errors import StudyError

Result = TypeVar("Result")


def follow_parent() -> None:
    """End this process when the one that started it does, however that dies."""
    parent = parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def in_fresh_process(function: Callable[..., Result], *arguments: Any) -> Result:
    """Call a module's function in a new process that ends when this one does, and return what it returns.

    Raises:
        StudyError: If the process dies.
    """
    with ProcessPoolExecutor(1, get_context("spawn"), follow_parent) as executor:
        try:
            return executor.submit(function, *arguments).result()
        except BrokenProcessPool as error:
            raise StudyError(
                "The fresh process died, perhaps for lack of memory. What had finished is kept: give the same command "
                "again to continue."
            ) from error
