"""Writing TFRecord files and protocol-buffer messages, the plain way, to check reading against."""

import struct


def crc32c(content: bytes) -> int:
    """CRC-32C bit by bit."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(crc: int) -> int:
    """Rotate right by 15 bits and add a constant."""
    return ((crc >> 15 | crc << 17 & 0xFFFFFFFF) + 0xA282EAD8) & 0xFFFFFFFF


def framed(content: bytes) -> bytes:
    """One record."""
    length = struct.pack("<Q", len(content))
    checksums = (struct.pack("<I", masked(crc32c(part))) for part in (length, content))
    return length + next(checksums) + content + next(checksums)


def varint(value: int) -> bytes:
    """A number in groups of seven bits."""
    groups = [value & 0x7F]
    while value := value >> 7:
        groups[-1] |= 0x80
        groups.append(value & 0x7F)
    return bytes(groups)


def double(number: int, value: float) -> bytes:
    """A field with a double."""
    return varint(number << 3 | 1) + struct.pack("<d", value)


def nested(number: int, content: bytes) -> bytes:
    """A field with bytes, a text or a message."""
    return varint(number << 3 | 2) + varint(len(content)) + content
