"""`nasflow fit`."""

import logging
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from hydra.core.hydra_config import HydraConfig
from numpy.typing import NDArray
from omegaconf import DictConfig

from devices import heavy_work
from nasflow.config import composed, instantiate, plain
from nasflow.environment import environment
from nasflow.figures import read_figures, task_facts
from nasflow.flow import whole
from nasflow.portable import with_absolute_paths
from nasflow.progress import counting
from nasflow.statistics import Correlation, kendall_tau, spearman
from nasflow.study.identity import describe_changes
from nasflow.study.identity import identity as plain_json
from nasflow.tabulation import distinct
from predictors.base import WITHIN_90, Predictor, saved_facts
from predictors.encodings.learned import LearnedEncoding
from searchspaces.arch import ArchBatch
from searchspaces.errors import ArchitectureError, ConfigError, PredictorError
from searchspaces.files import located
from searchspaces.space import SearchSpace

logger = logging.getLogger(__name__)

ENCODING, PREDICTOR, CHECKPOINT = "encoding.safetensors", "predictor.safetensors", "checkpoint.safetensors"
_LEAST_TESTED = 5


def run(config: DictConfig) -> None:
    """Fit a predictor, or train a learned encoding, and save it in Hydra's run folder."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    config = with_absolute_paths(config)
    if config.get("predictor") is not None:
        fit_predictor(config, folder / PREDICTOR)
    elif config.get("encoding") is not None:
        fit_encoding(config, folder / ENCODING)
    else:
        raise ConfigError(
            "Give predictor=NAME to fit a predictor, or encoding=NAME to train an encoding: nasflow fit --help lists "
            "them."
        )


# -- encodings ---------------------------------------------------------------------------------------------------------


def fit_encoding(config: DictConfig, out: Path) -> None:
    """Train a learned encoding on architectures of one space or of several.

    Raises:
        ConfigError: If the encoding is not a learned one, or `out` is of other settings.
    """
    encoding = instantiate(config.encoding)
    if not isinstance(encoding, LearnedEncoding):
        raise ConfigError(
            f"Without a predictor, an encoding is trained, but {config.encoding._target_} has nothing to learn. Take "
            "encoding=arch2vec or encoding=cate, or name a predictor, too."
        )
    if config.encoding.get("path") is not None:
        raise ConfigError(
            f"encoding.path names a trained encoding, {config.encoding.path}. Leave it out to train one, or name a "
            "predictor to fit with it."
        )
    seed, spaces = whole("seed", config.seed, 0), _spaces(config)
    settings = {"encoding": plain(config.encoding), "n": config.n, "seed": seed}
    identity = plain_json(**settings, spaces=[space.fingerprint for space in spaces])
    former = _finished(out, identity, lambda path: encoding.load(path).facts)
    if former is None:
        rng = np.random.default_rng(seed)
        samples = [_draw(space, config.n, rng) for space in spaces]
        checkpoint = out.with_name(CHECKPOINT)
        if checkpoint.exists():
            logger.info("Continuing from %s", checkpoint)
        names = ", ".join(f"{len(archs)} of {archs.space.name}" for archs in samples)
        logger.info("Training %s on architectures: %s", type(encoding).__name__, names)
        with counting("epochs") as report:
            encoding.fit(samples, seed, checkpoint, report, heavy_work)
        encoding.save(out, identity=identity, environment=environment())
        checkpoint.unlink(missing_ok=True)
        former = encoding.facts
    for space, quality in former["quality"].items():
        shares = ", ".join(f"{value:.1%} of {name}" for name, value in quality.items())
        print(f"{space}: restores {shares} on architectures that were held out")
    print(f"Encoding: {out}")


def _spaces(config: DictConfig) -> list[SearchSpace]:
    if not config.spaces:
        return [_space(config.space)]
    given = [text for text in HydraConfig.get().overrides.task if text.partition("=")[0] != "spaces"]
    if any(text.startswith("space=") for text in given):
        raise ConfigError("Give either space=NAME or 'spaces=[NAME,NAME]', not both.")
    return [_space(composed("fit", [*given, f"space={name}"]).space) for name in config.spaces]


def _space(config: DictConfig) -> SearchSpace:
    space = instantiate(config)
    if not isinstance(space, SearchSpace):
        raise ConfigError(f"space._target_ must build a SearchSpace, but {config._target_} does not.")
    return space


def _draw(space: SearchSpace, n: Any, rng: np.random.Generator) -> ArchBatch:
    """Draw `n` architectures of different classes, uniformly over classes where the space can list them."""
    count = None if n == "all" else whole("n", n, 1)
    try:
        rows = space.enumerate_classes()
    except ArchitectureError:
        if count is None:
            raise
        return distinct(space, count, rng)
    if count is not None and count > len(rows):
        logger.info("Space %s has %d classes, so all are taken.", space.name, len(rows))
    return ArchBatch(space, rows[rng.permutation(len(rows))[:count]])


# -- predictors --------------------------------------------------------------------------------------------------------


def fit_predictor(config: DictConfig, out: Path) -> None:
    """Fit a predictor to samples from a table, and say how it ranks the rest of the table.

    Raises:
        ConfigError: If it is no predictor, no table or column is named, or `out` is of other settings.
        TableError: If the table holds no such figures, or latencies that nothing can be learned from.
    """
    space, task, seed = _space(config.space), instantiate(config.task), whole("seed", config.seed, 0)
    figures = read_figures(config, space, task)
    archs, y, sources = figures.archs, figures.y, figures.sources
    predictor = _predictor(config, {"space": space, "task": task, "seed": seed})
    samples = whole("samples", config.samples, 2)
    chosen, rest = split(archs, samples, np.random.default_rng(seed))
    parts = {key: plain(config[key]) for key in ("predictor", "encoding", "space") if config.get(key) is not None}
    settings = {"column": figures.column, "samples": samples, "seed": seed, "sources": figures.target["sources"]}
    files = _digests([parts, str(config.table)])
    identity = plain_json(**parts, **settings, **task_facts(task), files=files)
    former = _finished(out, identity, lambda path: dict(saved_facts(path)["facts"]))
    if former is None:
        also = f", with {len(sources)} other columns to learn from" if sources else ""
        logger.info("Fitting %s to %d of %d architectures%s", type(predictor).__name__, len(chosen), len(archs), also)
        with heavy_work():
            predictor.fit(archs[chosen], y[chosen], sources)
            former = {"results": _results(predictor, archs[rest], y[rest]), "target": figures.target}
            former["within_90"] = _within_90(predictor, archs[rest], y[rest])
        predictor.save(out, identity=identity, environment=environment(), **former)
    for name, result in former["results"].items():
        print(f"held-out {name}: {Correlation(**result)} on {result['n']} architectures")
    if former.get("within_90") is not None:
        print(f"held-out figures within the 90 % interval: {former['within_90']:.1%}")
    if not former["results"]:
        print(f"Fewer than {_LEAST_TESTED} architectures of the table are left to test on.")
    print(f"Predictor: {out}")


def _predictor(config: DictConfig, available: Mapping[str, Any]) -> Predictor:
    if config.get("encoding") is not None:
        available = {**available, "encoding": instantiate(config.encoding, **available)}
    predictor = instantiate(config.predictor, **available)
    if not isinstance(predictor, Predictor):
        raise ConfigError(f"predictor._target_ must build a Predictor, but {config.predictor._target_} does not.")
    return predictor


def split(
    archs: ArchBatch, samples: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw `samples` architectures of different classes, and return their places, and those of all other classes.

    Raises:
        ConfigError: If there are not so many classes.
    """
    order = rng.permutation(len(archs))
    keys = np.array(archs.keys(), dtype=object)[order]
    classes, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    if samples > len(classes):
        raise ConfigError(
            f"The table has figures of {len(classes)} different architectures, but samples={samples}: ask for at most "
            "these."
        )
    taken = np.argsort(first)[:samples]
    return order[first[taken]], order[~np.isin(inverse, taken)]


def _results(predictor: Predictor, archs: ArchBatch, figures: NDArray[np.float64]) -> dict[str, Any]:
    if len(archs) < _LEAST_TESTED:
        return {}
    expected = predictor.predict(archs).mean
    return {"Kendall tau-b": vars(kendall_tau(expected, figures)), "Spearman": vars(spearman(expected, figures))}


def _within_90(predictor: Predictor, archs: ArchBatch, figures: NDArray[np.float64]) -> float | None:
    """Return the share of figures within the predictor's 90 % interval; None where they are too few to tell."""
    if len(archs) < _LEAST_TESTED:
        return None
    mean, std = predictor.predict(archs)
    return float(np.mean(np.abs(figures - mean) <= WITHIN_90 * std))


# -- both --------------------------------------------------------------------------------------------------------------


def _finished(out: Path, identity: Mapping[str, Any], read: Callable[[Path], dict[str, Any]]) -> dict[str, Any] | None:
    """Return the facts of what a former run with the same settings has saved; None where there is none.

    Raises:
        ConfigError: If it was saved with other settings.
    """
    if not out.exists():
        return None
    try:
        facts = read(out)
    except PredictorError as error:
        logger.warning("What %s holds cannot be used, so it is made anew: %s", out, error)
        return None
    if facts.get("identity") != identity:
        changed = describe_changes(facts.get("identity"), identity)
        raise ConfigError(f"{out} was fitted with other settings ({changed}). Give another hydra.run.dir.")
    print("This was finished before: nothing is left to do.")
    return facts


def _digests(value: Any) -> list[str]:
    """Return digests of all files that a plain configuration names."""
    if isinstance(value, (Mapping, list)):
        entries = value.values() if isinstance(value, Mapping) else value
        return sorted(digest for entry in entries for digest in _digests(entry))
    if isinstance(value, str) and located(value).is_file():
        return [sha256(located(value).read_bytes()).hexdigest()]
    return []
