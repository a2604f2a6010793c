"""Where studies are kept: memory, a journal file, a relational database, or a gRPC proxy in front of one.

All are Optuna storages, so that Optuna's dashboard, plots and command line work on nasflow's studies.
"""

import logging
import time
import warnings
from typing import Any

from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage

from nasflow.study.journal import JournalBackend
from searchspaces.errors import NasflowError, StudyError

__all__ = ["JournalBackend", "database", "grpc", "journal", "memory"]

logger = logging.getLogger(__name__)

_LONGEST = 300
_EXTRA = "pip install 'nasflow[rdb]'"


def memory() -> BaseStorage:
    """Storage that ends with the process."""
    return InMemoryStorage()


def journal(path: str, lock: str = "flock") -> BaseStorage:
    """Storage in a journal file, shared by workers that see the file.

    Args:
        path: The file; it and its folder are created when absent.
        lock: `flock`, or `symlink` for file systems without it.

    Raises:
        ConfigError: If the lock is unknown.
        StudyError: If the file cannot be created or read, is corrupt, or is not a study log.
    """
    backend = JournalBackend(path, lock)
    try:
        return JournalStorage(backend)
    except NasflowError:
        raise
    except Exception as error:  # Optuna replays the log unchecked, so a foreign entry may raise anything
        raise backend.corrupt(backend.lines_read, f"{type(error).__name__}: {error}") from error


def database(url: str, retries: int = 5) -> BaseStorage:
    """Storage in a relational database (SQLite for one machine, PostgreSQL or MySQL for several).

    Args:
        url: SQLAlchemy URL, such as `postgresql+psycopg://user@host/name` or `sqlite:///study.db`.
        retries: How often to try to connect, with growing pauses of together some 3 s.

    Raises:
        StudyError: If the database cannot be reached or its driver is not installed.
    """
    from sqlalchemy.exc import DBAPIError

    hidden = url.rpartition("@")[2].partition("?")[0]
    error: Exception = StudyError("it was not tried.")
    for attempt in range(max(retries, 1)):
        if attempt:
            logger.info("Trying again to open the database %s.", hidden)
            time.sleep(0.1 * 2**attempt)
        try:
            return _rdb(url)
        except ImportError as missing:
            raise StudyError(f"The database {hidden} needs a driver that is not installed: {_EXTRA}.") from missing
        except (DBAPIError, StorageInternalError) as failed:  # not there yet, or another worker creates the tables too
            error = failed
        except Exception as failed:  # a URL that cannot be read, tables of another version of Optuna
            error = failed
            break
    raise StudyError(
        f"The database {hidden} cannot be opened: {reason(error)} Check that it runs, that storage.url is right and "
        "that the user may create tables."
    ) from error


def reason(error: Exception) -> str:
    """Return what a storage's error says, in one short line."""
    cause = error.__cause__ or error
    text = " ".join(f"{type(cause).__name__}: {cause}".split()).partition(" [SQL:")[0]
    return (text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…").removesuffix(".") + "."


def _rdb(url: str) -> RDBStorage:
    from sqlalchemy import event

    if not url.startswith("sqlite"):
        return RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
    # SQLite takes a lock at the first write only, and knows no SELECT ... FOR UPDATE: two workers could both find a
    # trial running and both end it. So each transaction takes the lock as it begins.
    storage = RDBStorage(url, engine_kwargs={"connect_args": {"isolation_level": None, "timeout": 60}})
    event.listen(storage.engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return storage


def grpc(host: str = "localhost", port: int = 13000, timeout_s: float = 10.0) -> BaseStorage:
    """Client of Optuna's gRPC proxy, which stands in front of a database and serves many workers.

    Start the proxy with `run_grpc_proxy_server(get_storage(url), host=..., port=...)` of `optuna.storages`. It must
    not stand in front of a journal, for then it mixes its workers up, and its port is open to whoever reaches it.

    Args:
        host: Where the proxy runs.
        port: Where it listens.
        timeout_s: How long to wait for it.

    Raises:
        StudyError: If there is no proxy, or gRPC is not installed.
    """
    storage: Any
    try:
        from optuna.storages import GrpcStorageProxy

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            storage = GrpcStorageProxy(host=host, port=port)
        storage.wait_server_ready(timeout=timeout_s)
    except ImportError as missing:
        raise StudyError(f"storage=grpc needs gRPC, which is not installed: {_EXTRA}.") from missing
    except ConnectionError as error:
        raise StudyError(
            f"No gRPC proxy answers at {host}:{port} within {timeout_s:g} s. Start one in front of a database (see "
            "optuna.storages.run_grpc_proxy_server), or check storage.host and storage.port."
        ) from error
    return storage  # type: ignore[no-any-return]
