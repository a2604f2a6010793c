"""`nasflow worker`."""

import logging
import time
from pathlib import Path

from omegaconf import DictConfig

from nasflow.flow import CONFIG, Search
from searchspaces.errors import ConfigError

logger = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.2


def run(config: DictConfig) -> None:
    """Evaluate slots of a running search until its budget is spent."""
    folder = Path(str(config.run))
    wait_for_search(folder, config.wait_s)
    search = Search.load(folder)
    logger.info("Joining the search in %s", search.folder)
    records = search.run()
    print(f"{len(records)} evaluations in {search.folder}, nothing is left to do here.")
    print(f"Models and report are written by the search itself, or by: nasflow report run={search.folder}")


def wait_for_search(folder: Path, limit: float) -> None:
    """Wait for the search to begin, for it may have been started a moment ago."""
    if isinstance(limit, bool) or not isinstance(limit, (int, float)) or limit < 0:
        raise ConfigError(f"wait_s is 0 or a positive number of seconds, but is {limit!r}.")
    deadline = time.monotonic() + limit
    if not (folder / CONFIG).is_file() and limit > 0:
        logger.info("Waiting for a search in %s to begin, for at most %g s", folder, limit)
    while not (folder / CONFIG).is_file() and time.monotonic() < deadline:
        time.sleep(_LOOK_EVERY_S)
