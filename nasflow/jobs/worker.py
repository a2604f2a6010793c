"""`nasflow worker`."""

import logging
from pathlib import Path

from omegaconf import DictConfig

from nasflow.flow import Search

logger = logging.getLogger(__name__)


def run(config: DictConfig) -> None:
    """Evaluate slots of a running search until its budget is spent."""
    search = Search.load(Path(str(config.run)))
    logger.info("Joining the search in %s", search.folder)
    records = search.run()
    print(f"{len(records)} evaluations in {search.folder}, nothing is left to do here.")
    print(f"Models and report are written by the search itself, or by: nasflow report run={search.folder}")
