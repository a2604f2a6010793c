"""Configurations: composing them, and turning them into objects."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import entry_points
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from hydra import compose, initialize_config_module
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.utils import get_object
from hydra.version import VersionBase
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, InterpolationToMissingValueError

from searchspaces.errors import ConfigError, unknown

CONF = "nasflow.conf"
PLUGIN_GROUP = "nasflow.conf"


class PluginSearchPath(SearchPathPlugin):
    """Adds to Hydra's search path the packages of yamls that entry points `nasflow.conf` name."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append one path per plug-in."""
        for point in entry_points(group=PLUGIN_GROUP):
            search_path.append(provider=f"nasflow-{point.name}", path=f"pkg://{point.value}")


def register_plugins() -> None:
    """Make the configurations of installed plug-ins known to Hydra; safe to call more than once."""
    plugins = Plugins.instance()
    if PluginSearchPath not in plugins.discover(SearchPathPlugin):
        plugins.register(PluginSearchPath)


@contextmanager
def composer() -> Iterator[None]:
    """Let `hydra.compose` read nasflow's configurations while the context is open.

    Afterwards Hydra is as it was, for the caller may be in the middle of an application of its own.
    """
    register_plugins()
    former, base = GlobalHydra.instance().hydra, VersionBase.instance().version_base
    GlobalHydra.instance().clear()
    try:
        with initialize_config_module(config_module=CONF, version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().hydra = former
        VersionBase.instance().version_base = base


def composed(job: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Compose the configuration of a job, as its command line would.

    Args:
        job: `search`, `worker`, ….
        overrides: Hydra overrides, such as `budget=20`.
    """
    with composer():
        return compose(job, overrides=list(overrides))


def instantiate(config: Any, **available: Any) -> Any:
    """Build the object that a configuration describes.

    A mapping with `_target_` becomes a call of the named class or function with the other entries, themselves built
    first. Parameters that the configuration leaves out are taken from `available` where the names match.

    Args:
        config: A leaf of the configuration, or any nesting of mappings and lists of them.
        **available: What components may ask for, such as `space` and `task`.

    Raises:
        ConfigError: If the target does not exist, or takes other arguments.
    """
    if isinstance(config, DictConfig) or OmegaConf.is_list(config):
        config = plain(config)
    if isinstance(config, Mapping):
        values = {key: instantiate(value, **available) for key, value in config.items() if key != "_target_"}
        return _call(config["_target_"], values, available) if "_target_" in config else values
    if isinstance(config, list):
        return [instantiate(value, **available) for value in config]
    return config


def _call(target: str, values: dict[str, Any], available: Mapping[str, Any]) -> Any:
    try:
        component = get_object(target)
    except Exception as error:  # Hydra raises whatever importing the module raised
        raise ConfigError(
            f"The configuration names {target!r}, which cannot be imported: {error}. Check the spelling and that the "
            "package is installed."
        ) from error
    parameters = inspect.signature(component).parameters
    named = {name for name, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for key in values:
        if key not in named and not open_ended:
            raise ConfigError(unknown(f"argument of {target}", key, named))
    values = {key: available[key] for key in named & available.keys() - values.keys()} | values
    missing = [n for n in named - values.keys() if parameters[n].default is inspect.Parameter.empty]
    if missing:
        raise ConfigError(f"{target} needs the arguments {', '.join(sorted(missing))}, which are not given.")
    hints = _hints(component)
    for key, value in values.items():
        _check_type(target, key, value, hints.get(key))
    return component(**values)


def _hints(component: Any) -> dict[str, Any]:
    """Types of a component's parameters, as far as they can be read."""
    sources = [component, vars(component).get("__init__")] if isinstance(component, type) else [component]
    hints: dict[str, Any] = {}
    for source in filter(None, sources):
        try:
            hints |= get_type_hints(source)
        except (NameError, TypeError):
            continue
    return hints


def _check_type(target: str, name: str, value: Any, hint: Any) -> None:
    """Raise a `ConfigError` where a plain value is not of the plain type that a parameter asks for."""
    options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if not options or not set(options) <= {int, float, str, bool, NoneType}:
        return
    fits = (value is None and NoneType in options) or (
        type(value) in options or (type(value) is int and float in options)
    )
    if not fits:
        wanted = " or ".join("null" if option is NoneType else option.__name__ for option in options)
        raise ConfigError(f"{name} of {target} must be {wanted}, but is {value!r}.")


def check_given(job: str, config: DictConfig) -> None:
    """Raise a `ConfigError` where a job's configuration lacks a value that has no default."""
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        rest = f" (and {', '.join(missing[1:])})" if len(missing) > 1 else ""
        raise ConfigError(f"{missing[0]}{rest} must be given: nasflow {job} {missing[0]}=...")


def plain(config: Any, resolve: bool = True) -> Any:
    """Return a configuration as plain dictionaries and lists.

    Args:
        config: The configuration or a part of it.
        resolve: Whether references such as `${task.scale}` are replaced by what they lead to.

    Raises:
        ConfigError: If a value refers to something that is not there, such as an environment variable.
    """
    try:
        return OmegaConf.to_container(config, resolve=resolve)
    except InterpolationToMissingValueError:
        raise
    except InterpolationResolutionError as error:
        text = str(error).partition("\n")[0].partition("resolving interpolation: ")
        raise ConfigError(
            f"{error.full_key} cannot be read: {(text[2] or text[0]).strip(chr(34))}. Set what it refers to, or give "
            "another value."
        ) from error
