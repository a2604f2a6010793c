"""`nasflow search`."""

import logging
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from nasflow.config import plain
from nasflow.flow import Search

logger = logging.getLogger(__name__)


def run(config: DictConfig) -> None:
    """Run or resume a search in Hydra's run folder, then write its models and report."""
    hydra = HydraConfig.get()
    search = Search(config, Path(hydra.runtime.output_dir))
    search.start(plain(hydra.overrides.task, resolve=False))
    logger.info("Searching %s for %s, seed %d, in %s", search.space.name, search.task.name, config.seed, search.folder)
    search.run()
    models = search.finish()
    print(f"{len({model.slot for model in models})} non-dominated models in {search.folder / 'models'}")
    for model in models:
        print(f"  {model.describe()}")
    print(f"Report: {search.folder / 'report.html'}")
