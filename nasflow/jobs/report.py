"""`nasflow report`."""

from pathlib import Path

from omegaconf import DictConfig

from nasflow.flow import Search
from searchspaces.errors import ConfigError


def run(config: DictConfig) -> None:
    """Write the report of one run anew, or a comparison of several."""
    if bool(config.run) == bool(config.runs):
        raise ConfigError("Give either run=FOLDER for one search, or 'runs=[FOLDER,FOLDER]' to compare several.")
    if config.run:
        search = Search.load(Path(config.run))
        search.write()
        print(f"Report: {search.folder / 'report.html'}")
        return
    from nasflow.report import write_comparison

    searches = [Search.load(Path(folder)) for folder in config.runs]
    out = write_comparison(Path(config.out), [(search.folder.name, search.study) for search in searches])
    print(f"Comparison: {out}")
