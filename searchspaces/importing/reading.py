"""Reading text and torch files of others, with errors that name the file and what was expected."""

import bz2
import csv
import gzip
import io
import json
import math
import pickle
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchspaces.errors import NasflowError, TableError

_UNPACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.decompress, ".bz2": bz2.decompress, ".pbz2": bz2.decompress
}  # fmt: skip
# What readers of the standard library, numpy and torch raise for content that is damaged or of another kind.
_FOREIGN = (
    OSError, EOFError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError, zlib.error,
    pickle.UnpicklingError, csv.Error,
)  # fmt: skip


@contextmanager
def expecting(path: Path, expected: str) -> Iterator[None]:
    """Turn whatever goes wrong inside into a `TableError` that names the file and what was expected of it."""
    try:
        yield
    except TableError:
        raise
    except FileNotFoundError as error:
        raise TableError(f"There is no file {path}. Expected is {expected}.") from error
    except (NasflowError, *_FOREIGN) as error:
        text = " ".join(str(error).split())[:300] or type(error).__name__
        reason = f"it lacks {text}" if isinstance(error, KeyError) else text
        raise TableError(
            f"{path} is not {expected}: it is truncated, damaged or another file ({reason}). Get it again and compare "
            "its size with the publication's."
        ) from error


def unpacked(path: Path) -> bytes:
    """Return a file's content, unpacked where its name ends in .gz, .bz2 or .pbz2."""
    content = path.read_bytes()
    return _UNPACKERS[path.suffix](content) if path.suffix in _UNPACKERS else content


def read_csv(path: Path, columns: Sequence[str], rows: int) -> dict[str, list[str]]:
    """Return the columns of a CSV file, packed with gzip or not, as text.

    Args:
        path: The file.
        columns: The names that its first line must have, in this order.
        rows: How many records it must have.

    Raises:
        TableError: If the file has other columns, another number of records, or cannot be read.
    """
    expected = f"a CSV file of {rows:,} records with the columns {', '.join(columns)}"
    with expecting(path, expected):
        reader = csv.reader(io.StringIO(unpacked(path).decode(), newline=""))
        header = next(reader, [])
        if header != list(columns):
            raise TableError(f"{path} must be {expected}, but its first line is {','.join(header)[:200]!r}.")
        records = list(reader)
        uneven = next((i for i, record in enumerate(records, 2) if len(record) != len(columns)), None)
        if uneven is not None:
            raise TableError(f"{path} must be {expected}, but line {uneven} has {len(records[uneven - 2])} entries.")
        if len(records) != rows:
            raise TableError(f"{path} must be {expected}, but has {len(records):,}: it is truncated or another file.")
        return {name: list(column) for name, column in zip(columns, zip(*records, strict=True), strict=True)}


def numbers(path: Path, name: str, texts: Sequence[str]) -> NDArray[np.float64]:
    """Return a column of numbers, NaN where the entry is empty.

    Raises:
        TableError: If an entry is no finite number.
    """
    values = np.full(len(texts), np.nan)
    for i, text in enumerate(texts):
        try:
            values[i] = float(text) if text else np.nan
        except ValueError:
            values[i] = np.inf
        if text and not math.isfinite(values[i]):
            raise TableError(f"Column {name!r} of {path} holds numbers, but line {i + 2} has {text!r}.")
    return values


def read_json(path: Path, expected: str) -> Any:
    """Return the content of a JSON file.

    Raises:
        TableError: If it cannot be read.
    """
    with expecting(path, expected):
        return json.loads(unpacked(path).decode())


def read_torch(path: Path, expected: str) -> Any:
    """Return what a file of `torch.save` holds; nothing but tensors and plain containers is unpickled.

    Raises:
        TableError: If it cannot be read.
    """
    import torch

    with expecting(path, expected):
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:  # its advice is to allow any code
            raise TableError(
                f"{path} is not {expected}: it is damaged, or calls for more than tensors and plain containers, which "
                "is refused because such a file can run any code. Get it from its authors again."
            ) from error
