from dataclasses import replace
from math import log
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from nasflow.tasks import Digits, ImageTask
from nasflow.training import EpochReport, Trainer, evaluate, loop, onnx_accuracy
from nasflow.training.batches import Augment, Batches, resize
from nasflow.training.runtime import torch_device, torch_threads
from searchspaces.errors import ConfigError, NetworkError, TrainingError
from searchspaces.network import INPUT, Network, NetworkBuilder, init_weights, to_onnx

CONF = Path(__file__).parents[2] / "conf"
CPU = torch.device("cpu")
QUICK = Trainer(epochs=2, device="cpu")


@pytest.fixture(scope="module")
def task() -> ImageTask:
    return Digits()


def convnet(size: int = 8, channels: int = 1, classes: int = 10) -> Network:
    builder = NetworkBuilder("convnet", (channels, size, size))
    x = builder.conv_bn(builder.conv_bn(INPUT, 16, 3, stride=2), 32, 3)
    return builder.build(builder.linear(builder.add("Flatten", x), classes))


def linear() -> Network:
    builder = NetworkBuilder("linear", (1, 8, 8))
    return builder.build(builder.linear(builder.add("Flatten", INPUT), 10))


def constant() -> Network:
    builder = NetworkBuilder("constant", (1, 8, 8))
    x = builder.zero(builder.conv_bn(INPUT, 4, 3))
    return builder.build(builder.classifier(x, 10))


# -- fitting -------------------------------------------------------------------------------------------------------


def test_training_learns_and_states_all_metrics(task: ImageTask) -> None:
    network = convnet()
    result = replace(QUICK, epochs=8).fit(network, task)
    assert set(result.metrics) == {"accuracy", "loss", "test_accuracy", "test_loss"}
    assert 0.9 < result.metrics["accuracy"] <= 1
    assert 0.9 < result.metrics["test_accuracy"] <= 1
    assert result.epochs == len(result.history) == 8
    assert result.history[-1].loss < result.history[0].loss
    assert result.seconds > 0
    expected = {f"{node.name}.{key}": shape for node in network.nodes for key, shape in node.weights.items()}
    assert {key: array.shape for key, array in result.weights.items()} == expected


def test_equal_seeds_give_equal_results_whatever_torch_did_before(task: ImageTask) -> None:
    torch.manual_seed(1)
    first = QUICK.fit(convnet(), task, seed=3)
    torch.manual_seed(2)
    state = torch.random.get_rng_state()
    second = QUICK.fit(convnet(), task, seed=3)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert first.metrics == second.metrics
    assert all(np.array_equal(array, second.weights[key]) for key, array in first.weights.items())
    other = QUICK.fit(convnet(), task, seed=4)
    assert not np.array_equal(other.weights["gemm.weight"], first.weights["gemm.weight"])


def test_copies_train_as_each_would_alone(task: ImageTask) -> None:
    builder = NetworkBuilder("small", (1, 8, 8))
    network = builder.build(builder.classifier(builder.conv_bn(builder.conv_bn(INPUT, 6, 3), 8, 3, stride=2), 10))
    trainer = replace(QUICK, epochs=1, clip=0.5, batch_size=128)  # few steps: rounding errors grow from step to step
    together = trainer.fit_copies(network, task, [5, 6, 7])
    for seed, copy in zip([5, 6, 7], together, strict=True):
        alone = trainer.fit(network, task, seed)
        assert copy.history[0].loss == pytest.approx(alone.history[0].loss, rel=1e-4)
        assert copy.metrics == pytest.approx(alone.metrics, abs=0.01)
        assert copy.weights.keys() == alone.weights.keys()
        for key, array in alone.weights.items():
            assert np.allclose(array, copy.weights[key], atol=2e-3), key


def test_each_copy_is_clipped_by_its_own_norm() -> None:
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(6, 3, generator=generator), torch.randn(4, generator=generator)]
    gradients[0][3:] *= 10
    before = [gradient.clone() for gradient in gradients]
    loop.clip_each(gradients, 4.0, 2)
    for j in (0, 1):
        was = torch.cat([gradient.chunk(2)[j].flatten() for gradient in before])
        now = torch.cat([gradient.chunk(2)[j].flatten() for gradient in gradients])
        assert torch.allclose(now, was * min(1.0, 4.0 / float(was.norm())), rtol=1e-4)
    assert not torch.equal(before[0][3:], gradients[0][3:])


def test_noise_is_drawn_anew_in_training_and_once_elsewhere() -> None:
    clear, noisy = Digits(), Digits(noise=0.8)
    assert len(noisy.splits.valid) == 4 * len(clear.splits.valid)
    assert np.array_equal(noisy.splits.train.images, clear.splits.train.images)
    blur = noisy.splits.test.images.reshape(4, *clear.splits.test.images.shape) - clear.splits.test.images
    assert blur.std() == pytest.approx(0.8, rel=0.02)
    assert np.corrcoef(blur[0].ravel(), blur[1].ravel())[0, 1] == pytest.approx(0, abs=0.03)
    assert np.array_equal(Digits(noise=0.8).splits.test.images, noisy.splits.test.images)
    augment = Augment(clear.splits, 0, False, 0.8, CPU)
    images = torch.zeros(50, 1, 8, 8)
    first, second = (augment(images, rng) for rng in [np.random.default_rng(0)] * 2)
    assert float(first.std()) == pytest.approx(0.8, rel=0.05)
    assert not torch.equal(first, second)


def test_digits_can_take_the_shape_of_other_images() -> None:
    task = Digits(size=32, channels=3, scale="full")
    assert task.splits.train.images.shape[1:] == task.input_shape == (3, 32, 32)
    assert np.array_equal(task.splits.valid.labels, Digits().splits.valid.labels)
    with pytest.raises(ConfigError, match="at least 8 pixels and 1 channel, not 4 and 1"):
        Digits(size=4)


def test_training_starts_from_the_drawn_weights(task: ImageTask) -> None:
    network = convnet()
    still = replace(QUICK, lr=1e-12).fit(network, task, seed=5)
    assert np.allclose(still.weights["conv.weight"], init_weights(network, 5)["conv.weight"], atol=1e-6)


def test_epochs_can_be_fewer_and_are_reported(task: ImageTask) -> None:
    reports: list[EpochReport] = []
    result = Trainer(epochs=50, device="cpu").fit(convnet(), task, epochs=3, between_epochs=reports.append)
    assert [(report.epoch, report.epochs) for report in reports] == [(1, 3), (2, 3), (3, 3)]
    assert result.history == tuple(reports)
    assert reports[-1].lr < reports[0].lr  # the schedule ends with the epochs asked for
    with pytest.raises(ConfigError, match="at least one epoch"):
        QUICK.fit(convnet(), task, epochs=0)


def test_callback_time_does_not_count(task: ImageTask, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("nasflow.training.trainer.perf_counter", lambda: clock[0])

    def wait(report: EpochReport) -> None:
        clock[0] += 100

    assert QUICK.fit(linear(), task, between_epochs=wait).seconds == 0


def test_constant_output_trains_to_chance(task: ImageTask) -> None:
    metrics = QUICK.fit(constant(), task).metrics
    assert metrics["accuracy"] == pytest.approx(0.1, abs=0.03)
    assert metrics["loss"] == pytest.approx(log(10), abs=0.1)


def test_network_with_a_classifier_only(task: ImageTask) -> None:
    assert replace(QUICK, epochs=10, augment=False).fit(linear(), task).metrics["accuracy"] > 0.8


def test_images_are_resized_to_the_network(task: ImageTask) -> None:
    network = convnet(size=12)
    result = replace(QUICK, epochs=6).fit(network, task)
    assert result.metrics["accuracy"] > 0.8
    model = to_onnx(network, result.weights, batch=8).SerializeToString()
    assert onnx_accuracy(model, task) == pytest.approx(result.metrics["test_accuracy"], abs=0.005)


def test_weights_fit_without_augmentation_too(task: ImageTask) -> None:
    plain = replace(QUICK, augment=False).fit(convnet(), task)
    moved = QUICK.fit(convnet(), task)
    assert plain.metrics != moved.metrics


# -- faults --------------------------------------------------------------------------------------------------------


def test_divergence_is_told_at_once(task: ImageTask) -> None:
    finished: list[EpochReport] = []
    wild = Trainer(lr=1e30, clip=1e30, warmup=0.0, device="cpu", threads=1)
    with pytest.raises(TrainingError, match=r"'linear' diverged in epoch 1 of 16 at learning rate .*e\+.*trainer\.lr"):
        wild.fit(linear(), task, between_epochs=finished.append)
    assert not finished


def test_exploded_loss_counts_as_diverged_after_the_warmup(task: ImageTask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "EXPLODED", 0.01)
    with pytest.raises(TrainingError, match=r"epoch 2 of 4 .* while guessing gives 2\.3"):
        Trainer(epochs=4, warmup=0.3, device="cpu").fit(convnet(), task)


@pytest.mark.parametrize("network", [convnet(channels=3), convnet(classes=7)])
def test_network_of_another_task_is_refused(task: ImageTask, network: Network) -> None:
    with pytest.raises(TrainingError, match=r"images of 1 channels and 10 classes, but network 'convnet'"):
        QUICK.fit(network, task)


def test_nothing_to_train_is_refused(task: ImageTask) -> None:
    builder = NetworkBuilder("empty", (1, 8, 8))
    x = builder.add("Slice", builder.add("Flatten", INPUT), axis=0, start=0, end=10)
    with pytest.raises(TrainingError, match="no weights"):
        QUICK.fit(builder.build(x), task)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0}, {"batch_size": 1}, {"lr": 0.0}, {"lr": float("nan")}, {"momentum": 1.0}, {"weight_decay": -1.0},
        {"label_smoothing": 1.0}, {"warmup": 1.0}, {"clip": 0.0}, {"threads": 0},
    ],
)  # fmt: skip
def test_numbers_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=rf"trainer\.{next(iter(wrong))} must be"):
        Trainer(**wrong)  # type: ignore[arg-type]


# -- schedule, batches, augmentation ---------------------------------------------------------------------------------


def test_rate_rises_then_falls_to_nothing() -> None:
    recipe = Trainer(lr=0.4, warmup=0.25)
    rates = [recipe.rate(progress) for progress in np.linspace(0, 1, 101)]
    assert rates[0] == 0
    assert rates[25] == pytest.approx(0.4)
    assert max(rates) == pytest.approx(0.4)
    assert rates[-1] == pytest.approx(0)
    assert np.all(np.diff(rates[:26]) > 0)
    assert np.all(np.diff(rates[25:]) < 0)
    assert Trainer(lr=0.4, warmup=0.0).rate(0.0) == 0.4


def test_shuffled_batches_are_full_and_never_repeat(task: ImageTask) -> None:
    batches = Batches(task.splits.valid, (8, 8), CPU)
    seen = list(batches.shuffled(100, [np.random.default_rng(0)], None))
    assert [len(labels) for _, labels in seen] == [100] * (len(task.splits.valid) // 100)
    images = torch.cat([images for images, _ in seen]).flatten(1)
    assert len(torch.unique(images, dim=0)) == len(images)
    (only,) = batches.shuffled(10_000, [np.random.default_rng(0)], None)
    assert len(only[1]) == len(task.splits.valid)


def test_shuffling_keeps_images_with_their_labels(task: ImageTask) -> None:
    split = task.splits.valid
    (batch,) = Batches(split, (8, 8), CPU).shuffled(10_000, [np.random.default_rng(0)], None)
    label = {image.tobytes(): int(number) for image, number in zip(split.images, split.labels, strict=True)}
    assert [label[image.numpy().tobytes()] for image in batch[0]] == batch[1][:, 0].tolist()


def test_shift_moves_images_and_fills_with_black(task: ImageTask) -> None:
    splits = task.splits
    images = torch.from_numpy(splits.train.images[:50])
    moved = Augment(splits, 2, False, 0.0, CPU)(images, np.random.default_rng(0))
    black = float(-splits.mean[0] / splits.std[0])
    framed = torch.nn.functional.pad(images, (2, 2, 2, 2), value=black)
    offsets = set()
    for image, frame in zip(moved, framed, strict=True):
        found = [(y, x) for y in range(5) for x in range(5) if torch.equal(image, frame[:, y : y + 8, x : x + 8])]
        assert found
        offsets.add(found[0])
    assert len(offsets) > 10


def test_flip_mirrors_about_half(task: ImageTask) -> None:
    images = torch.from_numpy(task.splits.train.images[:200])
    flipped = Augment(task.splits, 0, True, 0.0, CPU)(images, np.random.default_rng(0))
    same = [torch.equal(a, b) for a, b in zip(flipped, images, strict=True)]
    mirrored = [torch.equal(a, b.flip(-1)) for a, b in zip(flipped, images, strict=True)]
    assert all(a or b for a, b in zip(same, mirrored, strict=True))
    assert 60 < sum(mirrored) < 140


def test_resize_leaves_equal_sizes_alone_and_averages_when_shrinking() -> None:
    images = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert resize(images, (4, 4)) is images
    assert float(resize(images, (1, 1))) == pytest.approx(7.5)


# -- evaluation ----------------------------------------------------------------------------------------------------


def test_torch_and_onnx_runtime_agree_with_training(task: ImageTask) -> None:
    network = convnet()
    result = QUICK.fit(network, task)
    score = evaluate(network, result.weights, task, "valid", device="cpu")
    assert score.accuracy == pytest.approx(result.metrics["accuracy"], abs=0.003)
    assert score.loss == pytest.approx(result.metrics["loss"], abs=1e-3)
    for batch in (1, 7, 1000):
        model = to_onnx(network, result.weights, batch).SerializeToString()
        assert onnx_accuracy(model, task, "valid") == pytest.approx(score.accuracy, abs=0.003)


def test_refused_models(task: ImageTask) -> None:
    with pytest.raises(TrainingError, match=r"refuses the model of 4 bytes"):
        onnx_accuracy(b"ONNX", task)
    with pytest.raises(TrainingError, match="made for this task"):
        onnx_accuracy(to_onnx(convnet(classes=7)).SerializeToString(), task)
    with pytest.raises(NetworkError, match="do not belong"):
        evaluate(convnet(), init_weights(linear()), task)


# -- runtime -------------------------------------------------------------------------------------------------------


def test_threads_are_restored_even_after_an_error() -> None:
    before = torch.get_num_threads()
    with pytest.raises(KeyError), torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise KeyError
    assert torch.get_num_threads() == before
    with torch_threads(None):
        assert torch.get_num_threads() == before


def test_devices() -> None:
    assert torch_device("cpu") == CPU
    assert torch_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name, message in (("gpu", "knows no device"), ("meta", "cpu or cuda"), ("cuda:99", "sees")):
        with pytest.raises(ConfigError, match=message):
            torch_device(name)


@pytest.mark.parametrize("path", sorted((CONF / "trainer").glob("*.yaml")), ids=lambda path: path.stem)
def test_configured_trainers(path: Path) -> None:
    trainer = instantiate(OmegaConf.load(path))
    assert isinstance(trainer, Trainer)
    assert (CONF / "task" / path.name).exists()  # the search takes the trainer named like the task


def test_digits_are_trained_by_the_defaults() -> None:
    assert instantiate(OmegaConf.load(CONF / "trainer" / "digits.yaml")) == Trainer()
