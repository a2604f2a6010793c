"""`nasflow worker`."""

import logging
from pathlib import Path

from omegaconf import DictConfig

from nasflow.search import Search

logger = logging.getLogger(__name__)


def run(config: DictConfig) -> None:
    """Evaluate slots of a running search until its budget is spent."""
    search = Search.load(Path(config.run))
    logger.info("Joining the search in %s", search.folder)
    records = search.run()
    print(f"The budget is spent: {len(records)} evaluations in {search.folder}")
