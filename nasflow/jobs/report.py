"""`nasflow report`."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from nasflow.config import plain
from nasflow.flow import OVERRIDES, Search
from nasflow.portable import absolute_path, without_passwords
from nasflow.report import Compared, write_comparison
from searchspaces.errors import ConfigError, NasflowError

_LONGEST = 60  # letters of the overrides in a label


def run(config: DictConfig) -> None:
    """Write the report of one run anew, or a comparison of several."""
    if bool(config.run) == bool(config.runs):
        raise ConfigError("Give either run=FOLDER for one search, or 'runs=[FOLDER,FOLDER]' to compare several.")
    if config.run:
        search = Search.load(Path(config.run))
        search.write()
        print(f"Report: {search.folder / 'report.html'}")
        return
    searches = [Search.load(Path(folder)) for folder in config.runs]
    names = labels([search.folder for search in searches])
    runs = [_compared(name, search) for name, search in zip(names, searches, strict=True)]
    print(f"Comparison: {write_comparison(Path(config.out), runs)}")


def _compared(name: str, search: Search) -> Compared:
    config = without_passwords(plain(search.config))
    return Compared(name, search.study, search.task, config, _providers(search))


def _providers(search: Search) -> dict[str, str]:
    """Name the evaluator of each metric; nothing where they cannot be built any more, as without their table."""
    try:
        named = list(zip(search.config.evaluator, search.evaluators, strict=True))
    except NasflowError:
        return {}
    first = {metric: str(name) for name, evaluator in reversed(named) for metric in evaluator.provides}
    return {metric: first[metric] for metric in search.objectives.metrics if metric in first}


def labels(folders: Sequence[Path]) -> list[str]:
    """Name runs by the overrides that not all of them have, and by as much of their folders as tells them apart."""
    given = [_overrides(folder) for folder in folders]
    common = set(given[0]).intersection(*given)
    differing = [_shortened(", ".join(text for text in overrides if text not in common)) for overrides in given]
    tails = _tails([absolute_path(folder).parts for folder in folders])
    return [f"{text} ({tail})" if text else tail for text, tail in zip(differing, tails, strict=True)]


def _overrides(folder: Path) -> list[str]:
    """What a search was given on the command line; the budget, which may change, apart."""
    path = folder / OVERRIDES
    if not path.is_file():
        return []
    given = map(str, plain(OmegaConf.load(path), resolve=False))
    return [without_passwords(text) for text in given if not text.startswith("budget=")]


def _tails(paths: Sequence[tuple[str, ...]]) -> list[str]:
    """Return the shortest ends of paths that tell them apart; where that is a number, as in a sweep, one part more."""
    length = 1
    while length < max(map(len, paths)) and len({parts[-length:] for parts in paths}) < len(set(paths)):
        length += 1
    return ["/".join(parts[-max(length, 1 + parts[-1].isdecimal()) :]) for parts in paths]


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
