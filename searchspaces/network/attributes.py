"""What an operator's attributes may be: each kind converts a value to the type that ONNX has for it, or refuses it."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from numbers import Real
from operator import index
from typing import Any

import numpy as np

_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Attribute:
    """A kind of attribute.

    Attributes:
        meaning: What its values are, for messages.
        read: Returns a value as a plain int, float, str or tuple of ints; raises TypeError, ValueError or
            OverflowError for what is none.
    """

    meaning: str
    read: Callable[[Any], Any]


def _number(value: Any, least: float = -_LARGEST) -> float:
    """Return a number as a float within the range of float32, in which ONNX stores it."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError
    number = float(value)
    if not least <= number <= _LARGEST:
        raise ValueError
    return number


def _bound(value: Any) -> float:
    return float(value) if value in (inf, -inf) else _number(value)


def wholes(values: Any, least: int | None = None, count: int | None = None) -> tuple[int, ...]:
    """Return a sequence of whole numbers as a tuple of ints.

    Raises:
        TypeError: If it is none.
        ValueError: If an entry is less than `least`, or there are not `count`.
    """
    numbers = tuple(map(int, map(index, values)))
    if (least is not None and min(numbers, default=least) < least) or (count is not None and len(numbers) != count):
        raise ValueError
    return numbers


def _whole(value: Any, least: int | None = None) -> int:
    return wholes((value,), least)[0]


def _pads(values: Any) -> tuple[int, ...]:
    numbers = wholes(values, least=0, count=4)
    if numbers[:2] != numbers[2:]:  # torch pads opposite sides alike
        raise ValueError
    return numbers


def _shape(values: Any) -> tuple[int, ...]:
    numbers = wholes(values, least=1)
    if not numbers:
        raise ValueError
    return numbers


def _flag(value: Any) -> int:
    number = _whole(value, least=0)
    if number > 1:
        raise ValueError
    return number


def one_of(*choices: str) -> Attribute:
    """Return the kind whose values are these texts."""

    def read(value: Any) -> str:
        if value not in choices:
            raise ValueError
        return str(value)

    return Attribute(" or ".join(map(repr, choices)), read)


NUMBER = Attribute("a finite number in float32", _number)
BOUND = Attribute("a number in float32", _bound)
EPSILON = Attribute("a finite number in float32, at least 0", lambda value: _number(value, least=0.0))
WHOLE = Attribute("a whole number", _whole)
GROUP = Attribute("a whole number, at least 1", lambda value: _whole(value, least=1))
FLAG = Attribute("0 or 1", _flag)
PAIR = Attribute("two whole numbers, at least 1", lambda values: wholes(values, least=1, count=2))
PADS = Attribute(
    "four whole numbers, at least 0, for (top, left, bottom, right), the same on opposite sides: pad evenly", _pads
)
AXES = Attribute("whole numbers", wholes)
SHAPE = Attribute("one or more whole numbers, at least 1", _shape)
