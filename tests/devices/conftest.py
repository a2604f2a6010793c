from pathlib import Path

import pytest

from searchspaces.network import INPUT, Network, NetworkBuilder


@pytest.fixture(autouse=True)
def lock_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine-wide lock of the test's own."""
    path = tmp_path / "machine.lock"
    monkeypatch.setenv("NASFLOW_LOCK", str(path))
    return path


@pytest.fixture
def network() -> Network:
    """Convolution, batch normalisation and a residual sum, two convolutions in all."""
    builder = NetworkBuilder("tiny", (3, 16, 16))
    x = builder.conv_bn(INPUT, 8, 3)
    y = builder.conv_bn(x, 8, 3, act=None)
    return builder.build(builder.classifier(builder.act(builder.sum([x, y]), "Relu"), 4))
