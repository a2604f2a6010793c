"""Configurations as a run's folder keeps them: with paths that hold from elsewhere, and without passwords."""

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from nasflow.config import plain
from searchspaces.errors import ConfigError

PATHS = ("path", "folder", "table")  # keys whose values are paths
_FOLDER = "{folder}"  # stands for the run's folder, which may move
_SCHEME = r"\w[\w+.-]*://"
_FROM_ENVIRONMENT = re.compile(r"\$\{oc\.env:\w+\}")
# As SQLAlchemy reads URLs, where a user's name may hold an @ and a password a slash; or as an argument of the URL.
_IN_AUTHORITY = re.compile(r"(://[^:/\s]*):.+@")
_IN_QUERY = re.compile(r"(://\S*[?&]\w*passw\w*=)[^&\s]+", re.IGNORECASE)


def absolute_path(path: str | Path) -> Path:
    """Return the path from the root on; links stay, but for those before a `..`, which they decide about."""
    path = Path(path)
    whole = (path.expanduser() if path.parts[:1] == ("~",) else path).absolute()
    return whole.resolve() if ".." in whole.parts else whole


def with_absolute_paths(config: DictConfig) -> DictConfig:
    """Return a copy in which relative paths, the values of keys in `PATHS`, start from the root; URLs stay.

    Raises:
        ConfigError: If a value refers to something that is not there.
    """
    plain(config)
    config = copy.deepcopy(config)
    _make_absolute(config)
    return config


def _make_absolute(node: DictConfig | ListConfig) -> None:
    for key in list(node) if isinstance(node, DictConfig) else range(len(node)):
        if OmegaConf.is_missing(node, key) or (OmegaConf.is_interpolation(node, key) and key not in PATHS):
            continue  # what a reference leads to is visited by itself
        value = node[key]
        if isinstance(value, (DictConfig, ListConfig)):
            _make_absolute(value)
        elif key in PATHS and isinstance(value, str) and value and "://" not in value:
            node[key] = str(absolute_path(value))


def portable(config: DictConfig, folder: Path) -> dict[str, Any]:
    """Return a resolved configuration to be kept: it says nothing of where the run's folder is, and no password.

    Args:
        config: The configuration.
        folder: The run's folder; a placeholder takes its place.

    Returns:
        What `opened` reads. Values with passwords stay as they were written, so that they are looked up anew.
    """
    here = re.compile(rf"^({_SCHEME}/)?{re.escape(str(absolute_path(folder)))}(?=[/?]|$)")
    kept = _unresolved_where_secret(plain(config, resolve=False), plain(config))
    return dict(_map(kept, lambda text: here.sub(lambda match: (match[1] or "") + _FOLDER, text)))


def opened(config: Any, folder: Path) -> DictConfig:
    """Return what `portable` made of a configuration, for the folder where it now lies."""
    there = re.compile(rf"^({_SCHEME}/)?{re.escape(_FOLDER)}")
    here = str(absolute_path(folder))
    raw = plain(config, resolve=False)
    return OmegaConf.create(dict(_map(raw, lambda text: there.sub(lambda match: (match[1] or "") + here, text))))


def _unresolved_where_secret(raw: Any, resolved: Any) -> Any:
    if isinstance(raw, dict) and isinstance(resolved, dict):
        return {key: _unresolved_where_secret(raw[key], value) for key, value in resolved.items()}
    if isinstance(raw, list) and isinstance(resolved, list):
        return [_unresolved_where_secret(*pair) for pair in zip(raw, resolved, strict=True)]
    return resolved if without_passwords(resolved) == resolved else _map(raw, _drop_literal)


def _map(value: Any, change: Callable[[str], str]) -> Any:
    """Apply a function to all texts in nested dictionaries and lists."""
    if isinstance(value, dict):
        return {key: _map(entry, change) for key, entry in value.items()}
    if isinstance(value, list):
        return [_map(entry, change) for entry in value]
    return change(value) if isinstance(value, str) else value


def _drop(text: str) -> str:
    return _IN_QUERY.sub(r"\1…", _IN_AUTHORITY.sub(r"\1@", text))


def _is_literal(text: str) -> bool:
    rest = _FROM_ENVIRONMENT.sub("", text)
    return _drop(rest) != rest


def _drop_literal(text: str) -> str:
    return _drop(text) if _is_literal(text) else text


def without_passwords(config: Any) -> Any:
    """Return a plain configuration in which the passwords of URLs are left out."""
    return _map(config, _drop)


def refuse_passwords(config: Any, key: str = "") -> None:
    """See that no password stands in a configuration in clear, for it is written into the run's folder.

    Args:
        config: Plain and unresolved.
        key: Where in the whole configuration it stands.

    Raises:
        ConfigError: If a URL holds a password, other than as the name of an environment variable.
    """
    if isinstance(config, (dict, list)):
        for name, value in config.items() if isinstance(config, dict) else enumerate(config):
            refuse_passwords(value, f"{key}.{name}" if key else str(name))
    elif isinstance(config, str) and _is_literal(config):
        raise ConfigError(
            f"{key} holds a password, which files of the run would keep in clear. Leave it out, as in {_drop(config)}, "
            "and let PGPASSWORD or ~/.pgpass give it, which PostgreSQL's client reads; or write ${oc.env:NAME} in its "
            "place (in single quotes), where NAME is an environment variable that every worker has."
        )
