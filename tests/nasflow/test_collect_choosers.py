"""Which architectures `nasflow collect` measures, by its choosers."""

from pathlib import Path

import numpy as np
import pytest

from devices import load_latencies
from nasflow.config import composed
from nasflow.jobs.collect import DATASET, choose
from nasflow.tasks import Digits
from predictors.encodings import LayerCosts
from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError, PredictorError
from searchspaces.nb201 import NB201
from tests.nasflow.test_cli import in_this_process
from tests.registry import leaves

SPACE = NB201(scale="small")
FAST = ("device.rounds=2", "device.runs_per_round=2", "device.restarts=1")


@pytest.fixture(autouse=True)
def lock_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine-wide lock of the test's own."""
    monkeypatch.setenv("NASFLOW_LOCK", str(tmp_path / "machine.lock"))


def chosen(*words: str) -> ArchBatch:
    return choose(composed("collect", ["candidates=200", *words]), SPACE, Digits())


@pytest.mark.parametrize("name", leaves("chooser"))
def test_every_chooser_picks_so_many_of_different_classes(name: str) -> None:
    first, same, other = chosen("n=12", f"chooser={name}"), chosen("n=12", f"chooser={name}"), chosen("n=12", "seed=1")
    assert len(set(first.keys())) == 12
    np.testing.assert_array_equal(first.rows, same.rows)
    assert not np.array_equal(first.rows, other.rows)


def test_strata_span_the_costs_evenly() -> None:
    column = LayerCosts().columns(SPACE).index("log macs")
    candidates = np.sort(LayerCosts().encode(chosen("n=200"))[:, column])
    picked = np.sort(LayerCosts().encode(chosen("n=10", "chooser=macs"))[:, column])
    strata = np.array_split(candidates, 10)
    assert all(part[0] <= value <= part[-1] for part, value in zip(strata, picked, strict=True))


def test_more_informative_architectures_add_to_fewer() -> None:
    few, many = (set(chosen(f"n={n}", "chooser=informative").keys()) for n in (8, 12))
    assert few < many


def test_choosers_pick_among_those_of_a_file(tmp_path: Path) -> None:
    archs = ArchBatch.sample(SPACE, 60, np.random.default_rng(2)).unique()
    (tmp_path / "archs.txt").write_text("\n".join(archs.format()))
    picked = chosen("n=5", "chooser=kmeans", f"archs={tmp_path / 'archs.txt'}")
    assert len(picked) == 5
    assert set(picked.keys()) <= set(archs.keys())
    with pytest.raises(PredictorError, match="was asked for 100 of"):
        chosen("n=100", "chooser=informative", f"archs={tmp_path / 'archs.txt'}")


def test_a_chooser_that_cannot_work_says_so(tmp_path: Path) -> None:
    for n in ("n=all", "n=null"):
        with pytest.raises(ConfigError, match="KMeans picks n of more architectures, but n is"):
            chosen(n, "chooser=kmeans")
    with pytest.raises(PredictorError, match="Strata of 'log mac' need an encoding with that column"):
        chosen("n=5", "chooser=macs", "chooser.column='log mac'")
    alike = "|none~0|+|none~0|none~1|+|none~0|none~1|skip_connect~2|"
    line = SPACE.format(SPACE.parse([alike]))[0]
    (tmp_path / "one.txt").write_text(f"{line}\n{line}")
    with pytest.raises(PredictorError, match="was asked for 2 of 1 different"):
        chosen("n=2", "chooser=cosine", f"archs={tmp_path / 'one.txt'}")
    done = in_this_process("collect", "n=5", "chooser=informativ", f"hydra.run.dir={tmp_path / 'out'}")
    assert "Unknown chooser 'informativ'. Did you mean 'informative'" in done.stderr


def test_collect_measures_what_the_chooser_picks(tmp_path: Path) -> None:
    done = in_this_process("collect", *FAST, "n=4", "candidates=100", "chooser=macs", f"hydra.run.dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    table = load_latencies(tmp_path / DATASET, SPACE)
    config = composed("collect", ["n=4", "candidates=100", "chooser=macs"])
    assert set(table.archs.keys()) == set(choose(config, SPACE, Digits()).keys())
    assert table.provenance["chooser"]["_target_"] == "predictors.choosers.Strata"
