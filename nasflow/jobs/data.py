"""`nasflow data`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table as Shown

from nasflow.config import composer, instantiate
from searchspaces.errors import ConfigError, TableError, unknown
from searchspaces.genes import GeneSpace
from searchspaces.importing import Source, content_digest
from searchspaces.table import Table

_LOG_WIDTH = 160


def run(config: DictConfig) -> None:
    """List, verify or import tables."""
    actions = {"list": list_all, "verify": verify, "import": import_tables}
    if config.action not in actions:
        raise ConfigError(unknown("action", str(config.action), actions))
    actions[config.action](config)


def sources() -> dict[str, Source]:
    """Return what can be imported, by name: the leaves of the group `source`, those of plug-ins among them."""
    with composer():
        names = GlobalHydra.instance().config_loader().get_group_options("source")
        configs = compose("data", overrides=[f"+source@sources.{name}={name}" for name in names]).sources
    return {name: _source(configs[name]) for name in names}


def _source(config: DictConfig) -> Source:
    source = instantiate(config)
    if not isinstance(source, Source):
        raise ConfigError(f"source._target_ must build a Source, but {config._target_} does not.")
    return source


def list_all(config: DictConfig) -> None:
    """Print what can be imported, and the tables that are there."""
    known = sources()
    offered = Shown(title="What can be imported: nasflow data import source=NAME path=FILES")
    for heading in ("name", "space", "what", "files", "licence", "from"):
        offered.add_column(heading, overflow="fold")
    for name, source in known.items():
        offered.add_row(name, source.space.name, source.title, source.files, source.licence, source.url)
    there = Shown(title=f"Tables in {config.out}")
    for heading in ("table", "architectures", "columns", "source"):
        there.add_column(heading, overflow="fold")
    spaces = _spaces(known)
    for path in _stored(config):
        try:
            table = _open(path, spaces)
        except TableError:
            there.add_row(_name(path, config), "", "", "cannot be used; nasflow data verify says why")
            continue
        about = str(table.provenance.get("source", ""))
        there.add_row(_name(path, config), f"{len(table):,}", ", ".join(table.columns), about)
    console = Console(width=None if sys.stdout.isatty() else _LOG_WIDTH)
    console.print(offered)
    if not config.out:
        print("Set NASFLOW_DATA, or give out=FOLDER, to say where imported tables are kept.")
    else:
        console.print(there)


def verify(config: DictConfig) -> None:
    """Read every table that is there and compare it with its checksum.

    Raises:
        TableError: If one is damaged.
    """
    _folder(config)
    spaces = _spaces(sources())
    paths, damaged = _stored(config), []
    for path in paths:
        try:
            table = _open(path, spaces)
            digest = table.provenance.get("content_sha256")
            if digest not in (None, content_digest(table)):
                raise TableError(f"{path} holds other figures than when it was imported. Import it again.")
            state = f"OK, {len(table):,} architectures" + (", no checksum" if digest is None else "")
        except TableError as error:
            damaged.append(_name(path, config))
            state = f"DAMAGED: {error}"
        print(f"{_name(path, config)}: {state}")
    if damaged:
        names = ", ".join(damaged)
        raise TableError(f"{len(damaged)} of {len(paths)} tables cannot be used: {names}. Import them again.")
    print(f"{len(paths)} tables in {config.out} are whole.")


def import_tables(config: DictConfig) -> None:
    """Turn the files of a source into tables, one Parquet file each; former ones are replaced.

    Raises:
        ConfigError: If source, path or folder are not given.
        TableError: If a file is missing, truncated, damaged or another one.
    """
    folder = _folder(config)
    if config.get("source") is None or config.path is None:
        raise ConfigError("Give source=NAME and path=FILES: nasflow data list shows the sources and their files.")
    source = _source(config.source)
    for name, table in source.tables(Path(config.path)):
        path = folder / source.space.name / f"{name}.parquet"
        table.save(path)
        print(f"{path}: {len(table):,} architectures of {table.archs.space.fingerprint}, {', '.join(table.columns)}")


def _folder(config: DictConfig) -> Path:
    if not config.out:
        raise ConfigError("Set NASFLOW_DATA, or give out=FOLDER, to say where imported tables are kept.")
    return Path(config.out)


def _stored(config: DictConfig) -> list[Path]:
    return [] if not config.out else sorted(Path(config.out).rglob("*.parquet"))


def _name(path: Path, config: DictConfig) -> str:
    return path.relative_to(config.out).with_suffix("").as_posix()


def _spaces(known: dict[str, Source]) -> list[GeneSpace]:
    return list({source.space.fingerprint: source.space for source in known.values()}.values())


def _open(path: Path, spaces: Sequence[GeneSpace]) -> Table:
    """Read a table of one of `spaces`; those of the name of its folder are tried last, for their error is of use.

    Raises:
        TableError: If it is damaged, or of none of them.
    """
    for space in sorted(spaces, key=lambda space: space.name == path.parent.name):
        try:
            return Table.load(path, space)
        except TableError as error:
            failure = error
    raise failure
