"""What a serialised ONNX model says of itself, read without the onnx package.

The runner on another machine has ONNX Runtime and numpy only. A model is a protocol buffer, and names and operators are
a few of its fields: a message is a sequence of keys (`field number * 8 + wire type`) and values, and those that are
messages or strings begin with their length. Weights are skipped, so this takes a fraction of the time of parsing all.
"""

from collections import Counter
from collections.abc import Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_GRAPH = 7  # fields of ModelProto, GraphProto and NodeProto
_NODE, _NAME = 1, 2
_OP_TYPE, _DOMAIN = 4, 7


def graph_name(model: bytes) -> str:
    """Return the name of a model's graph.

    Raises:
        ValueError: If it is no ONNX model.
    """
    names = [_text(value) for field, value in _fields(_graph(model)) if field == _NAME]
    return names[-1] if names else ""


def count_operators(model: bytes) -> dict[str, int]:
    """Return how often each operator occurs, by `domain:operator`, without a domain for ONNX's own.

    Raises:
        ValueError: If it is no ONNX model.
    """
    counts: Counter[str] = Counter()
    for field, node in _fields(_graph(model)):
        if field == _NODE:
            parts = {key: _text(value) for key, value in _fields(node) if key in (_OP_TYPE, _DOMAIN)}
            domain, op = parts.get(_DOMAIN, ""), parts.get(_OP_TYPE, "")
            counts[f"{domain}:{op}" if domain not in ("", "ai.onnx") else op] += 1
    return dict(sorted(counts.items()))


def _graph(model: bytes) -> memoryview:
    graphs = [value for field, value in _fields(memoryview(model)) if field == _GRAPH]
    if not graphs:
        raise ValueError("there is no graph in it")
    return graphs[-1]


def _text(value: memoryview) -> str:
    return str(value, "utf-8")


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield field numbers and values of a message; a number's value is its bytes."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        kind = key & 7
        if kind == _BYTES:
            length, position = _varint(message, position)
            end = position + length
        elif kind == _VARINT:
            end = _varint(message, position)[1]
        elif kind in (_FIXED64, _FIXED32):
            end = position + (8 if kind == _FIXED64 else 4)
        else:
            raise ValueError(f"wire type {kind} is none of ONNX")
        if end > len(message):
            raise ValueError("it ends too early")
        yield key >> 3, message[position:end]
        position = end


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(message) and shift < 64:
        byte = message[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7
    raise ValueError("it ends too early")
