"""What holds of all encodings that are learned."""

import json
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from predictors.encodings.arch2vec import Arch2Vec
from predictors.encodings.cate import CATE
from predictors.encodings.learned import LearnedEncoding
from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError, PredictorError
from searchspaces.fbnet import FBNet
from searchspaces.genes import Gene, GeneSpace
from searchspaces.nb101 import NB101
from searchspaces.nb201 import NB201
from searchspaces.pool import Pool
from tests.predictors.learned import TINY, classes

SPACE = NB201("small")
KINDS = pytest.mark.parametrize("kind", TINY, ids=lambda kind: kind.__name__)


@pytest.fixture(scope="module")
def trained() -> dict[type[LearnedEncoding], LearnedEncoding]:
    return {kind: kind(**settings).fit([classes(SPACE, 80)], seed=3) for kind, settings in TINY.items()}


class StoppedError(Exception):
    """Stands for a kill."""


def stop_after(epoch: int):
    def report(done: int, total: int) -> None:
        if done == epoch:
            raise StoppedError

    return report


@KINDS
def test_vectors_are_standardised_and_of_classes(kind, trained) -> None:
    encoding = trained[kind]
    archs = ArchBatch.sample(SPACE, 300, np.random.default_rng(1))
    vectors = encoding.encode(archs)
    assert vectors.shape == (300, 8) == (300, len(encoding.columns(SPACE)))
    assert len(set(encoding.columns(SPACE))) == 8
    np.testing.assert_array_equal(vectors, encoding.encode(archs))
    np.testing.assert_array_equal(vectors, encoding.encode(archs.canonical()))
    assert len(np.unique(vectors, axis=0)) == len(archs.unique())
    for part in (slice(0, 1), slice(17, 60)):
        np.testing.assert_allclose(encoding.encode(archs[part]), vectors[part], rtol=0, atol=1e-9)
    assert abs(vectors.mean(axis=0)).max() < 1
    assert 0.3 < vectors.std(axis=0).min() < vectors.std(axis=0).max() < 3  # of rows, not of classes
    assert encoding.encode(archs[:0]).shape == (0, 8)


@KINDS
def test_the_same_seed_trains_the_same(kind, trained) -> None:
    archs = classes(SPACE, 80)
    again, other = (kind(**TINY[kind]).fit([archs], seed=seed) for seed in (3, 4))
    np.testing.assert_array_equal(again.encode(archs), trained[kind].encode(archs))
    assert not np.allclose(other.encode(archs), trained[kind].encode(archs))


@KINDS
def test_a_space_that_was_not_seen_is_encoded(kind, trained) -> None:
    space = FBNet("small")
    archs = classes(space, 40)
    vectors = trained[kind].encode(archs)
    assert np.isfinite(vectors).all()
    assert len(np.unique(vectors, axis=0)) == len(archs)


@KINDS
def test_a_pool_is_encoded_as_its_base(kind, trained) -> None:
    archs = ArchBatch.sample(SPACE, 60, np.random.default_rng(2)).unique()
    pooled = ArchBatch(Pool(SPACE, archs.rows), archs.rows)
    np.testing.assert_array_equal(trained[kind].encode(pooled), trained[kind].encode(archs))


@KINDS
def test_what_is_saved_is_read(kind, trained, tmp_path: Path) -> None:
    path = tmp_path / "encoding.safetensors"
    trained[kind].save(path, command="a")
    read = kind(path, latent=4)
    archs = classes(SPACE, 50, seed=5)
    np.testing.assert_array_equal(read.encode(archs), trained[kind].encode(archs))
    assert read.settings == trained[kind].settings
    assert read.facts == trained[kind].facts | {"command": "a"}
    assert read.facts["spaces"] == [SPACE.fingerprint]
    with pytest.raises(PredictorError, match=rf"is of {kind.__name__}, not of"):
        (CATE if kind is Arch2Vec else Arch2Vec)(path)


def altered(path: Path, **changes: object) -> None:
    """Write a file's facts anew with some of them changed."""
    with safe_open(path, "numpy") as file:
        facts = json.loads(file.metadata()["nasflow"])
    save_file(load_file(path), path, {"nasflow": json.dumps(facts | changes)})


@KINDS
def test_files_that_cannot_be_used_are_told(kind, trained, tmp_path: Path) -> None:
    path = tmp_path / "encoding.safetensors"
    with pytest.raises(PredictorError, match="There is no encoding"):
        kind(path)
    trained[kind].save(path)
    whole = path.read_bytes()
    for cut in (0, 3, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(PredictorError, match="damaged, or no encoding"):
            kind(path)
    for changes, message in (
        ({"schema": 99}, "schema 99, but this version of nasflow reads 1"),
        ({"width": 7}, "described by 7 numbers"),
        ({"settings": trained[kind].settings | {"hidden": 32}}, "damaged: its weights do not fit its settings"),
        ({"settings": {}}, "damaged: its weights do not fit its settings"),
    ):
        path.write_bytes(whole)
        altered(path, **changes)
        with pytest.raises(PredictorError, match=message):
            kind(path)
    save_file({"a": np.zeros(2)}, path, {"nasflow": json.dumps({"schema": 1, "predictor": "GP"})})
    with pytest.raises(PredictorError, match="no encoding of nasflow: it lacks encoding"):
        kind(path)


@KINDS
def test_several_spaces_are_learned_at_once(kind) -> None:
    spaces = (SPACE, NB101("small"))
    samples = [classes(space, 80) for space in spaces]
    encoding = kind(**TINY[kind]).fit(samples)
    assert encoding.facts["spaces"] == [space.fingerprint for space in spaces] == list(encoding.facts["quality"])
    both = np.concatenate([encoding.encode(archs) for archs in samples])
    assert abs(both.mean(axis=0)).max() < 0.3
    assert 0.7 < both.std(axis=0).min() < both.std(axis=0).max() < 1.3


@KINDS
def test_a_stopped_training_goes_on(kind, trained, tmp_path: Path) -> None:
    path, archs = tmp_path / "checkpoint.safetensors", classes(SPACE, 80)
    encoding = kind(**TINY[kind])
    with pytest.raises(StoppedError):
        encoding.fit([archs], seed=3, checkpoint=path, report=stop_after(1))
    done = []
    encoding.fit([archs], seed=3, checkpoint=path, report=lambda epoch, epochs: done.append((epoch, epochs)))
    assert done == [(2, 2)]
    np.testing.assert_array_equal(encoding.encode(archs), trained[kind].encode(archs))
    with pytest.raises(PredictorError, match="of a training with other architectures or settings"):
        encoding.fit([archs], seed=4, checkpoint=path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(PredictorError, match="Delete it, and the training starts anew"):
        encoding.fit([archs], seed=3, checkpoint=path)


@KINDS
def test_training_holds_the_machine_by_epochs(kind) -> None:
    held = []

    @contextmanager
    def hold():
        held.append("begin")
        yield
        held.append("end")

    kind(**TINY[kind]).fit([classes(SPACE, 60)], hold=hold)
    assert held == ["begin", "end"] * TINY[kind]["epochs"]


@KINDS
def test_what_cannot_be_done_is_told(kind, tmp_path: Path) -> None:
    encoding = kind(**TINY[kind])
    archs = classes(SPACE, 80)
    for task in (lambda: encoding.encode(archs), lambda: encoding.save(tmp_path / "a")):
        with pytest.raises(PredictorError, match="was not trained yet"):
            task()
    with pytest.raises(PredictorError, match=r"at least 40 architectures of each space, but got 1 of nb201"):
        encoding.fit([ArchBatch(SPACE, np.repeat(archs.rows[:1], 99, axis=0))])
    with pytest.raises(PredictorError, match="but got none"):
        encoding.fit([])
    plain = type("Plain", (GeneSpace,), {"name": "plain", "genes": (Gene("a", tuple(range(100))),)})()
    with pytest.raises(ConfigError, match="'plain' is none"):
        encoding.fit([ArchBatch(plain, np.arange(100)[:, None])])
    with pytest.raises(PredictorError, match="diverged.* give a smaller lr"):
        kind(**TINY[kind], lr=1e30).fit([archs])
    for name in ("latent", "epochs", "lr"):
        with pytest.raises(ConfigError, match=rf"{name} of {kind.__name__} is a positive number, but is 0"):
            kind(**{name: 0})
