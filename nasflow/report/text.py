"""Words and numbers of reports: escaping, units, durations."""

import html
import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from nasflow.objectives import Objective

_UNITS = {
    "us": "µs", "ms": "ms", "s": "s", "mj": "mJ", "j": "J", "mw": "mW", "w": "W", "mm2": "mm²", "kb": "kB", "mb": "MB",
    "gb": "GB", "mhz": "MHz", "m": "M", "g": "G",
}  # fmt: skip
_WORDS = {"params": "parameters", "macs": "MACs", "flops": "FLOPs"}


def esc(text: Any) -> str:
    """Return `text` safe for HTML, inside elements and quoted attributes alike."""
    return html.escape(str(text), quote=True)


def unit(metric: str) -> str:
    """Return the unit that ends a metric's name; empty where there is none."""
    stem, _, ending = metric.rpartition("_")
    return _UNITS.get(ending, "") if stem else ""


def name(metric: str) -> str:
    """Return a metric's name in words, without its unit."""
    stem = metric.rpartition("_")[0] if unit(metric) else metric
    return _WORDS.get(stem, stem.replace("_", " "))


def label(metric: str) -> str:
    """Return a metric's name with its unit, as on an axis: `latency_ms` is `latency (ms)`."""
    return f"{name(metric)} ({unit(metric)})" if unit(metric) else name(metric)


def number(value: float) -> str:
    """Return `value` with four significant digits."""
    if not math.isfinite(value):
        return "–" if math.isnan(value) else str(value)
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:.4g}"


def figure(value: float) -> str:
    """Return `value` as in a column of figures: four significant digits, also where they are zeros."""
    return number(value) if not math.isfinite(value) or value == round(value) or abs(value) >= 1e4 else f"{value:#.4g}"


def quantity(metric: str, value: float) -> str:
    """Return `value` with the metric's unit."""
    return f"{number(value)} {unit(metric)}".rstrip()


def spread(metric: str, values: Sequence[float]) -> str:
    """Return the range of `values` with the metric's name and unit."""
    low, high = number(min(values)), number(max(values))
    return f"{name(metric)} {low if low == high else f'{low} to {high}'} {unit(metric)}".rstrip()


def notation(text: str) -> str:
    """Return an architecture's text as HTML that may break between its parts."""
    parts = "<wbr>".join(esc(part) for part in re.split(r"(?<=[|,+;])", text))
    return f'<span class="arch">{parts}</span>'


def bounds(objective: Objective) -> str:
    """Return the bounds of an objective in words; empty where it has none."""
    limits = (("at least", objective.at_least), ("at most", objective.at_most))
    return " and ".join(f"{word} {quantity(objective.metric, bound)}" for word, bound in limits if bound is not None)


def aim(objective: Objective) -> str:
    """Return what is done with an objective in words; empty for one that is only bounded."""
    return {"maximize": "maximise", "minimize": "minimise", None: ""}[objective.direction]


def count(n: int, singular: str, plural: str = "") -> str:
    """Return a number with its noun: `1 model`, `2 models`."""
    return f"{n:,} {singular if n == 1 else plural or singular + 's'}"


def listing(parts: Sequence[str]) -> str:
    """Join with commas and a last `and`."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))


def duration(seconds: float) -> str:
    """Return a span of time in its two largest units."""
    if round(seconds) < 60:
        return "under 1 s" if seconds < 1 else f"{seconds:.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    first = next(i for i, (amount, _) in enumerate(parts) if amount)
    return " ".join(f"{amount} {sign}" for amount, sign in parts[first : first + 2] if amount)


def moment(time: datetime) -> str:
    """Return a point in time to the second, in UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC")


def component(config: Any) -> str:
    """Return a configured component as a call: `Local(threads=1)`; None for what is not configured stays out."""
    if not isinstance(config, Mapping):
        return str(config)
    if "_target_" not in config:
        return ", ".join(f"{key}={component(value)}" for key, value in config.items())
    arguments = [
        f"{key}={component(value)}" for key, value in config.items() if key != "_target_" and value is not None
    ]
    return f"{str(config['_target_']).rpartition('.')[2]}({', '.join(arguments)})"
