"""TFRecord files and protocol-buffer messages, without TensorFlow.

A record is its length as 8 bytes, a masked CRC-32C of those, the content, and a masked CRC-32C of the content, all
little-endian. A message is a sequence of fields, each a number and a type followed by a value.
"""

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from searchspaces.errors import TableError

_BATCH = 8192
_POLYNOMIAL = 0x82F63B78
_MASK = 0xA282EAD8
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def read_records(path: Path) -> Iterator[bytes]:
    """Yield the contents of a TFRecord file in order, all checksums verified.

    Raises:
        TableError: If the file is truncated or a checksum is wrong.
    """
    try:
        with path.open("rb") as file:
            number = 0
            while batch := _read_batch(file, path, number):
                contents, checksums = [content for content, _ in batch], [checksum for _, checksum in batch]
                wrong = np.flatnonzero(masked_crc32c(contents) != np.array(checksums, dtype=np.uint32))
                if len(wrong):
                    raise _damaged(path, number + int(wrong[0]), "its content does not fit its checksum")
                yield from contents
                number += len(batch)
    except OSError as error:
        raise TableError(f"{path} cannot be read as a TFRecord file: {error.strerror or error}.") from error


def _read_batch(file: BinaryIO, path: Path, number: int) -> list[tuple[bytes, int]]:
    batch: list[tuple[bytes, int]] = []
    while len(batch) < _BATCH:
        header = file.read(12)
        if not header:
            break
        place = number + len(batch)
        if len(header) < 12:
            raise _damaged(path, place, "the file ends within it")
        if _masked_crc32c(header[:8]) != struct.unpack("<I", header[8:])[0]:
            raise _damaged(path, place, "its length does not fit its checksum")
        length = struct.unpack("<Q", header[:8])[0]
        body = file.read(length + 4)
        if len(body) < length + 4:
            raise _damaged(path, place, "the file ends within it")
        batch.append((body[:length], struct.unpack("<I", body[length:])[0]))
    return batch


def _damaged(path: Path, number: int, reason: str) -> TableError:
    return TableError(
        f"{path} is not a whole TFRecord file: record {number} is damaged, {reason}. The download was cut short, or it "
        "is another file. Get it again and compare its size with the publication's."
    )


def masked_crc32c(contents: Sequence[bytes]) -> NDArray[np.uint32]:
    """Return the masked CRC-32C of each content, shape `(n,)`; one pass over the bytes of all of them at once."""
    order = sorted(range(len(contents)), key=lambda i: -len(contents[i]))
    lengths = np.array([len(contents[i]) for i in order])
    width = int(lengths[0])
    padded = b"".join(contents[i].ljust(width, b"\0") for i in order)
    data = np.frombuffer(padded, dtype=np.uint8).reshape(len(contents), width).T.copy()
    crc = np.full(len(contents), 0xFFFFFFFF, dtype=np.uint32)
    longer = np.searchsorted(-lengths, -np.arange(width))  # how many contents reach beyond each place
    for place, count in enumerate(longer):
        crc[:count] = _TABLE[(crc[:count] ^ data[place, :count]) & 0xFF] ^ (crc[:count] >> np.uint32(8))
    crc ^= np.uint32(0xFFFFFFFF)
    masked = ((crc >> np.uint32(15)) | (crc << np.uint32(17))) + np.uint32(_MASK)
    result = np.empty_like(masked)
    result[order] = masked
    return result


def _masked_crc32c(content: bytes) -> int:
    """The same of one content of a few bytes, for which arrays would be slow."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc = _STEPS[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF


def _crc_table() -> NDArray[np.uint32]:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> np.uint32(1)) ^ np.uint32(_POLYNOMIAL), table >> np.uint32(1))
    return table.astype(np.uint32)


_TABLE = _crc_table()
_STEPS: list[int] = _TABLE.tolist()


def read_fields(message: bytes) -> Iterator[tuple[int, int | float | bytes]]:
    """Yield number and value of each field of a protocol-buffer message; fixed 64-bit fields are read as doubles.

    Raises:
        ValueError: If the message ends within a field, or a field has a type that is not in use.
    """
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        kind = key & 7
        if kind == _VARINT:
            value, place = _varint(message, place)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            length, place = _varint(message, place)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"a message has a field of the unknown type {kind}")
        content = message[place : place + length]
        if len(content) < length:
            raise ValueError("a message ends within a field")
        place += length
        yield key >> 3, struct.unpack("<d", content)[0] if kind == _FIXED64 else content


def _varint(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if place >= len(message) or shift > 63:
            raise ValueError("a message ends within a number")
        byte = message[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place
