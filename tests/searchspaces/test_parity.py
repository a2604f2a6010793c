"""Torch, ONNX Runtime and the formulas held against each other on many random architectures."""

import numpy as np
import pytest

from nasflow.testing import calibrated_weights, counted, outputs
from searchspaces.task import Task
from tests.registry import leaves
from tests.searchspaces.test_contract import build

# Published scales get images of their published size: the reductions of an ImageNet space leave one pixel of 32, and a
# batch normalisation over so few values amplifies rounding errors.
SIDES = {"fbnet": 224, "mobilenet": 224}


@pytest.mark.slow
@pytest.mark.parametrize(("scale", "n"), [("small", 100), ("full", 25)])
@pytest.mark.parametrize("name", leaves("space"))
def test_lowerings_and_costs_agree(name: str, scale: str, n: int) -> None:
    side = SIDES.get(name, 32)
    task = Task("digits", (1, 8, 8), 10) if scale == "small" else Task("images", (3, side, side), 10)
    space = build(name, scale)
    differ, miscounted, worst = 0, 0, 0.0
    for seed, row in enumerate(space.sample(n, np.random.default_rng(2026))):
        network = space.network(row, task)
        by_torch, by_onnx = outputs(network, calibrated_weights(network, seed), seed)
        error = float(np.abs(by_torch - by_onnx).max())
        worst = max(worst, error)
        differ += error > 1e-4
        miscounted += counted(network) != (network.params, network.macs)
    print(f"{name} {scale}: {n} architectures, {differ} differ, worst {worst:.1e}, {miscounted} miscounted")
    assert (differ, miscounted) == (0, 0)
