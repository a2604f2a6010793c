"""What the table of a latency dataset tells beside the latencies."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Entry = Mapping[str, Any]


def in_words(name: str, options: Mapping[str, Any], machine: Mapping[str, str]) -> str:
    """Describe a device by its options and its machine."""
    threads = f"{options['threads']} thread{'s' if options['threads'] > 1 else ''}"
    return (
        f"device {name}: {machine['processor']}, ONNX Runtime {machine['onnxruntime']} {options['provider']}, "
        f"{options['precision']}, {threads}, batch {options['batch']}, optimisation {options['optimisation']}"
    )


def details(found: Sequence[Entry | None]) -> dict[str, list[Any]]:
    """Return columns of what the measurements' records hold beside the latency, None where there is no record.

    Samples are in the order of rounds; an operator histogram is JSON. Times are known to four or five digits, so single
    precision holds them.
    """
    plain = ("std_ms", "iqr_ms", "redone", "drifted", "job", "reference_ms")
    columns = {name: [None if one is None else one[name] for one in found] for name in plain}
    for name in ("anchor_ms", "samples_ms"):
        columns[name] = [None if one is None else np.ravel(one[name]).astype(np.float32) for one in found]
    columns["operators"] = [None if one is None else json.dumps(one["operators"]) for one in found]
    columns["load_average"] = [None if one is None else one["environment"]["load_average"] for one in found]
    return columns


def device_facts(stored: Entry, found: Sequence[Entry | None]) -> dict[str, Any]:
    """Return what the figures of a device's records have in common, JSON-able.

    Args:
        stored: The device's settings and identity.
        found: The records, None where there is none.
    """
    known = [one for one in found if one is not None]
    facts = {**stored["settings"], "identity": stored["identity"]}
    facts |= {"measured": len(known), "missing": len(found) - len(known)}
    if not known:
        return facts
    loads = [one["environment"]["load_average"][0] for one in known]
    return facts | {
        "environment": {key: value for key, value in known[0]["environment"].items() if key != "load_average"},
        "load_average": [min(loads), max(loads)],
        "governors": sorted({str(one["environment"]["governor"]) for one in known}),
        "spread_percent": round(100 * float(np.median([one["std_ms"] / one["latency_ms"] for one in known])), 3),
        "drifted_rounds": round(float(np.mean([one["drifted"] / len(one["anchor_ms"]) for one in known])), 4),
    }
