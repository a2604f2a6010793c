from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hydra.utils import instantiate
from numpy.typing import NDArray
from omegaconf import OmegaConf

from nasflow.tasks import Cifar10, Cifar100, Digits, ImageTask, NpzTask
from nasflow.tasks.base import normalise, statistics, stratified
from nasflow.tasks.cifar import Layout
from searchspaces.errors import ConfigError, TaskError

CONF = Path(__file__).parents[2] / "conf" / "task"
RNG = np.random.default_rng(0)


def pixels(*shape: int) -> NDArray[np.uint8]:
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def cyclic(n: int, classes: int = 3) -> NDArray[np.int64]:
    return np.arange(n) % classes


def save(folder: Path, **arrays: Any) -> Path:
    path = folder / "images.npz"
    np.savez(path, **arrays)
    return path


# -- splits --------------------------------------------------------------------------------------------------------


def test_stratified_parts_are_disjoint_complete_and_alike() -> None:
    labels = np.repeat([0, 1, 2], [100, 50, 10])
    parts = stratified(labels, [0.5, 0.3, 0.2])
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(160))
    assert [np.bincount(labels[part]).tolist() for part in parts] == [[50, 25, 5], [30, 15, 3], [20, 10, 2]]


def test_stratified_gives_single_examples_to_training() -> None:
    assert [len(part) for part in stratified(np.arange(7), [0.6, 0.2, 0.2])] == [7, 0, 0]


def test_statistics_of_a_constant_channel_do_not_divide_by_zero() -> None:
    images = np.stack([np.full((10, 4, 4), 0.1), RNG.normal(5, 2, (10, 4, 4))], axis=1)
    mean, std = statistics(images)
    assert std[0] == 1
    result = normalise(images, mean, std)
    assert np.abs(result[:, 0]).max() < 1e-6
    assert result[:, 1].mean() == pytest.approx(0, abs=1e-5)
    assert result[:, 1].std() == pytest.approx(1, abs=1e-5)


def test_normalise_takes_bytes_beyond_their_range() -> None:
    images = pixels(5, 1, 3, 3)
    result = normalise(images, np.array([200], np.float32), np.array([2], np.float32))
    assert np.allclose(result, (images.astype(float) - 200) / 2)


def test_split_names_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"Unknown split 'vald'.*valid"):
        Digits().splits["vald"]


def test_shift_must_be_less_than_the_side() -> None:
    with pytest.raises(ConfigError, match="shift=8"):
        Digits(shift=8)


# -- digits --------------------------------------------------------------------------------------------------------


def test_digits_are_divided_once_and_for_all() -> None:
    first = Digits().splits
    np.random.seed(1)  # noqa: NPY002
    second = Digits(scale="full").splits
    for name in ("train", "valid", "test"):
        split = first[name]
        assert split.images.dtype == np.float32
        assert split.labels.dtype == np.int64
        assert split.images.shape == (len(split), 1, 8, 8)
        assert np.array_equal(split.images, second[name].images)
        assert np.ptp(np.bincount(split.labels, minlength=10) / len(split)) < 0.02
    everything = np.concatenate([first[name].images for name in ("train", "valid", "test")])
    assert len(everything) == 1797
    assert len(np.unique(everything.reshape(1797, -1), axis=0)) == 1797
    assert first.train.images.mean() == pytest.approx(0, abs=1e-4)
    assert first.train.images.std() == pytest.approx(1, abs=1e-4)


def test_digits_describe_themselves() -> None:
    task = Digits()
    assert (task.name, task.input_shape, task.classes, task.scale) == ("digits", (1, 8, 8), 10, "small")


# -- CIFAR ---------------------------------------------------------------------------------------------------------


class Tiny10(Cifar10):
    layout: ClassVar[Layout] = Layout(("a.bin", "b.bin"), "test.bin", (100, 100, 50), 1, "cifar-10-batches-bin")


class Tiny100(Cifar100):
    layout: ClassVar[Layout] = Layout(("train.bin",), "test.bin", (1000, 100), 2, "cifar-100-binary")


def write_records(path: Path, labels: NDArray[np.int64], label_bytes: int) -> NDArray[np.uint8]:
    images = pixels(len(labels), 3, 32, 32)
    prefix = np.full((len(labels), label_bytes), 77, dtype=np.uint8)
    prefix[:, -1] = labels
    path.write_bytes(np.concatenate([prefix, images.reshape(len(labels), -1)], axis=1).tobytes())
    return images


def raw(task: ImageTask, name: str) -> NDArray[np.float64]:
    splits = task.splits
    return np.asarray(splits[name].images * splits.std[:, None, None] + splits.mean[:, None, None], dtype=np.float64)


@pytest.fixture
def tiny10(tmp_path: Path) -> Tiny10:
    for name in ("a.bin", "b.bin"):
        write_records(tmp_path / name, cyclic(100, 10), 1)
    write_records(tmp_path / "test.bin", cyclic(50, 10), 1)
    return Tiny10(tmp_path)


def test_cifar10_holds_out_a_tenth_per_class(tiny10: Tiny10) -> None:
    splits = tiny10.splits
    assert np.bincount(splits.train.labels).tolist() == [18] * 10
    assert np.bincount(splits.valid.labels).tolist() == [2] * 10
    assert len(splits.test) == 50
    again = Tiny10(tiny10.folder).splits
    assert np.array_equal(splits.valid.images, again.valid.images)


def test_cifar_images_come_back_as_written(tmp_path: Path) -> None:
    write_records(tmp_path / "train.bin", cyclic(1000, 100), 2)
    images = write_records(tmp_path / "test.bin", cyclic(100, 100)[::-1].copy(), 2)
    task = Tiny100(tmp_path)
    assert np.abs(raw(task, "test") - images).max() < 1e-3
    assert task.splits.test.labels.tolist() == list(range(100))[::-1]
    assert len(task.splits.valid) == 100


def test_cifar_layouts_are_those_of_the_archives() -> None:
    assert sum(Cifar10.layout.records) == sum(Cifar100.layout.records) == 60_000
    assert len(Cifar10.layout.records) == len(Cifar10.layout.train) + 1


def test_truncated_cifar_file_is_named(tiny10: Tiny10) -> None:
    path = tiny10.folder / "b.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(TaskError, match=r"b\.bin has 307,299 bytes.*307,300.*truncated"):
        _ = tiny10.splits


def test_missing_cifar_file_says_what_is_expected(tmp_path: Path) -> None:
    task = Cifar10(tmp_path / "nowhere")  # the sizes are known without the files
    with pytest.raises(TaskError, match=r"data_batch_1\.bin cannot be read: No such file.*task\.folder"):
        _ = task.splits


def test_foreign_cifar_labels_are_refused(tiny10: Tiny10) -> None:
    write_records(tiny10.folder / "test.bin", cyclic(50, 11), 1)
    with pytest.raises(TaskError, match=r"test\.bin holds the label 10"):
        _ = tiny10.splits


# -- npz -----------------------------------------------------------------------------------------------------------


def test_npz_with_all_splits(tmp_path: Path) -> None:
    arrays = {f"x_{name}": pixels(n, 3, 9, 7) for name, n in (("train", 30), ("valid", 12), ("test", 6))}
    labels = {f"y_{name}": cyclic(n) for name, n in (("train", 30), ("valid", 12), ("test", 6))}
    task = NpzTask(save(tmp_path, **arrays, **labels))
    assert (task.name, task.input_shape, task.classes, task.scale) == ("images", (3, 9, 7), 3, "small")
    for name in ("train", "valid", "test"):
        assert np.abs(raw(task, name) - arrays[f"x_{name}"]).max() < 1e-3
        assert np.array_equal(task.splits[name].labels, labels[f"y_{name}"])


def test_npz_without_valid_takes_a_fifth_of_train(tmp_path: Path) -> None:
    train, test = pixels(30, 8, 8), pixels(6, 8, 8)
    path = save(tmp_path, x_train=train, y_train=cyclic(30)[:, None], x_test=test, y_test=cyclic(6))
    task = NpzTask(path, name="mine")
    assert (task.name, task.input_shape) == ("mine", (1, 8, 8))
    assert [len(task.splits[name]) for name in ("train", "valid", "test")] == [24, 6, 6]


def test_npz_of_images_and_labels_is_divided_deterministically(tmp_path: Path) -> None:
    path = save(tmp_path, images=RNG.normal(size=(60, 8, 8)), labels=cyclic(60).astype(np.float64))
    first, second = NpzTask(path).splits, NpzTask(path).splits
    assert [len(first[name]) for name in ("train", "valid", "test")] == [36, 12, 12]
    assert np.array_equal(first.test.images, second.test.images)


@pytest.mark.parametrize(
    ("shape", "channels", "expected"),
    [
        ((60, 8, 9, 3), None, (3, 8, 9)),
        ((60, 3, 8, 9), None, (3, 8, 9)),
        ((60, 13, 8, 9), "first", (13, 8, 9)),
        ((60, 8, 9, 13), "last", (13, 8, 9)),
        ((60, 3, 8, 3), "last", (3, 3, 8)),
    ],
)
def test_npz_channel_axis(tmp_path: Path, shape: tuple[int, ...], channels: Any, expected: tuple[int, ...]) -> None:
    task = NpzTask(save(tmp_path, images=pixels(*shape), labels=cyclic(60)), channels=channels)
    assert task.input_shape == expected
    assert task.splits.train.images.shape[1:] == expected
    assert task.splits.train.images.flags.c_contiguous


def test_npz_channels_last_keep_their_pixels(tmp_path: Path) -> None:
    images = pixels(30, 8, 9, 3)
    arrays = {"x_train": images, "y_train": cyclic(30), "x_test": images, "y_test": cyclic(30)}
    assert np.abs(raw(NpzTask(save(tmp_path, **arrays)), "test") - images.transpose(0, 3, 1, 2)).max() < 1e-3


IMAGES = pixels(30, 1, 8, 8)
BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "keys": ({"x_train": IMAGES, "y_train": cyclic(30)}, "of these .* has x_train, y_train"),
    "no keys": ({"a": IMAGES}, "has none"),
    "ambiguous": ({"images": pixels(30, 3, 8, 3), "labels": cyclic(30)}, "both axes.*task.channels=first"),
    "no channel axis": ({"images": pixels(30, 13, 8, 8), "labels": cyclic(30)}, "neither axis"),
    "labels from 1": ({"images": IMAGES, "labels": cyclic(30) + 1}, r"integers 0 to k - 1.* 1, 2, 3\."),
    "one class": ({"images": IMAGES, "labels": cyclic(30, 1)}, "at least two"),
    "one-hot": ({"images": IMAGES, "labels": np.eye(3)[cyclic(30)]}, "argmax"),
    "fractions": ({"images": IMAGES, "labels": cyclic(30) + 0.5}, "one integer per image"),
    "nan labels": ({"images": IMAGES, "labels": np.full(30, np.nan)}, "one integer per image"),
    "counts": ({"images": IMAGES, "labels": cyclic(29)}, "29 labels"),
    "nan": ({"images": np.where(IMAGES > 254, np.nan, IMAGES), "labels": cyclic(30)}, "not finite"),
    "too large": ({"images": IMAGES * 1e300, "labels": cyclic(30)}, "not finite"),
    "complex": ({"images": IMAGES * 1j, "labels": cyclic(30)}, "real numbers"),
    "rank": ({"images": pixels(30, 64), "labels": cyclic(30)}, "real numbers of shape"),
    "empty": ({"images": pixels(0, 8, 8), "labels": cyclic(0)}, "0 labels"),
    "too few": ({"images": IMAGES[:4], "labels": cyclic(4)}, "too few to divide"),
    "objects": ({"images": np.array([{}] * 30), "labels": cyclic(30)}, "Python objects are never read"),
    "shapes": (
        {"x_train": IMAGES, "y_train": cyclic(30), "x_test": pixels(30, 1, 8, 9), "y_test": cyclic(30)},
        r"one shape.*\(1, 8, 9\)",
    ),
    "strange test label": (
        {"x_train": IMAGES, "y_train": cyclic(30), "x_test": IMAGES, "y_test": cyclic(30, 4)},
        "test labels .* include 3",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_malformed_npz(tmp_path: Path, case: str) -> None:
    arrays, message = BROKEN[case]
    path = save(tmp_path, **arrays)
    with pytest.raises(TaskError, match=message) as error:
        NpzTask(path)
    assert str(path) in str(error.value)


def test_unreadable_npz(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"cannot be read: No such file"):
        NpzTask(tmp_path / "nowhere.npz")
    path = save(tmp_path, images=pixels(60, 8, 8), labels=cyclic(60))
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], b"PK\x03\x04 nothing", b"text", b""):
        path.write_bytes(damaged)
        with pytest.raises(TaskError, match=str(path)):
            NpzTask(path)
    np.save(tmp_path / "one.npy", IMAGES)
    with pytest.raises(TaskError, match=r"one array, not an archive"):
        NpzTask(tmp_path / "one.npy")
    with pytest.raises(ConfigError, match="first or last"):
        NpzTask(save(tmp_path, images=IMAGES, labels=cyclic(30)), channels="middle")  # type: ignore[arg-type]


def test_flipped_bytes_in_npz(tmp_path: Path) -> None:
    path = tmp_path / "images.npz"
    np.savez_compressed(path, images=np.zeros((60, 8, 8)), labels=cyclic(60))
    content = bytearray(path.read_bytes())
    content[100:140] = bytes(40)
    path.write_bytes(content)
    with pytest.raises(TaskError, match=r"no intact \.npz archive"):
        NpzTask(path)


# -- configuration -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["digits", "cifar10", "cifar100"])
def test_configured_tasks(name: str) -> None:
    config = OmegaConf.load(CONF / f"{name}.yaml")
    task = instantiate(config)
    assert isinstance(task, ImageTask)
    assert (task.name, task.scale) == (name, config.scale)


def test_configured_npz(tmp_path: Path) -> None:
    config = OmegaConf.load(CONF / "npz.yaml")
    path = save(tmp_path, images=pixels(60, 8, 8), labels=cyclic(60))
    task = instantiate(OmegaConf.merge(config, {"path": str(path)}))
    assert (task.input_shape, task.scale) == ((1, 8, 8), config.scale)
