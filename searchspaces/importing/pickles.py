"""Reading pickles of others: plain containers, strings, numbers and arrays of numbers, nothing else.

Whatever a pickle names is either one of the stand-ins below or refused, so no code of its choice ever runs.
"""

import io
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchspaces.errors import TableError
from searchspaces.importing.reading import expecting, unpacked

_NUMBERS = "biuf"


class _Dtype:
    """Stands in for `numpy.dtype`: types of numbers, strings and objects."""

    def __init__(self, text: str, align: Any = False, copy: Any = False) -> None:
        dtype = np.dtype(str(text))
        if dtype.kind not in f"{_NUMBERS}OU" or dtype.names is not None:
            raise pickle.UnpicklingError(f"arrays of {text!r} are not read")
        self.dtype = dtype

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1]
        if order in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """Stands in for `numpy.ndarray`; `numpy.asarray` gives its content."""

    content: NDArray[Any]

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, raw = state
        if dtype.dtype.kind == "O":
            flat = np.empty(len(raw), dtype=object)
            flat[:] = raw
        else:
            flat = np.frombuffer(raw, dtype=dtype.dtype)
        self.content = flat.reshape(shape, order="F" if fortran else "C")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.content, dtype=dtype)

    def __len__(self) -> int:
        return len(self.content)

    def __getitem__(self, index: Any) -> Any:
        return self.content[index]


def _array(kind: Any, shape: Any, code: Any) -> _Array:
    return _Array()


def _scalar(dtype: _Dtype, raw: bytes) -> Any:
    if dtype.dtype.kind not in _NUMBERS:
        raise pickle.UnpicklingError(f"a single {dtype.dtype} is not read")
    return np.frombuffer(raw, dtype=dtype.dtype)[0].item()


def _encode(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):  # how Python 3 writes bytes for readers of Python 2
        raise pickle.UnpicklingError(f"bytes in encoding {encoding!r} are not read")
    return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
    ("_codecs", "encode"): _encode,
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Array,
} | {
    (f"numpy.{core}.multiarray", name): stand_in
    for core in ("core", "_core")
    for name, stand_in in (("scalar", _scalar), ("_reconstruct", _array))
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, content: bytes, path: Path) -> None:
        super().__init__(io.BytesIO(content))
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise TableError(
                f"{self._path} is a pickle that calls for {module}.{name}. Published tables need plain containers and "
                "numbers only, and a pickle can run any code, so it is refused. Get the file from its authors again."
            )
        return _ALLOWED[module, name]


def read_pickle(path: Path, expected: str) -> Any:
    """Return what a pickle of plain data holds, packed with bz2 or gzip or not.

    Single numpy numbers come as Python numbers; arrays come as objects that `numpy.asarray` takes.

    Args:
        path: The file.
        expected: What it should be, for error messages.

    Raises:
        TableError: If it is truncated or damaged, or calls for anything but containers, strings and numbers.
    """
    with expecting(path, expected):
        return _Unpickler(unpacked(path), path).load()
