"""Training networks on graphs without figures."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from math import cos, pi
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from predictors.encodings.arrays import load_arrays, load_facts, save_arrays
from predictors.encodings.corpus import Corpus, GraphEncoder, Picks
from searchspaces.errors import PredictorError

_CLIP = 5.0  # largest norm of a gradient
_CHECKPOINT_SCHEMA = 1

Report = Callable[[int, int], None]
Hold = Callable[[], AbstractContextManager[None]]


def train(
    network: GraphEncoder,
    corpora: Sequence[Corpus],
    epochs: int,
    batch: int,
    lr: float,
    seed: int,
    checkpoint: Path | None = None,
    identity: str = "",
    report: Report | None = None,
    hold: Hold = nullcontext,
) -> None:
    """Train a network by AdamW, the learning rate falling to 0 as a cosine.

    What is drawn at random follows from the seed and the epoch alone, so that a training that goes on from its
    checkpoint ends as one that was never stopped.

    Args:
        network: The network; it is left in evaluation mode.
        corpora: Architectures by space; a batch is of one space.
        epochs: How often each architecture is seen.
        batch: Architectures in a batch.
        lr: Learning rate at the start.
        seed: Decides all that is drawn.
        checkpoint: File that is written after each epoch, and from which a stopped training goes on.
        identity: Tells trainings apart: the checkpoint of another one is refused.
        report: Told after each epoch how many are done, and of how many.
        hold: What to hold during an epoch, such as the machine.

    Raises:
        PredictorError: If the loss is not finite, or the checkpoint is damaged or of another training.
    """
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr)
    steps = sum(-(-len(known) // batch) for known in corpora)
    start = _resume(network, optimizer, checkpoint, identity, steps) if checkpoint else 0
    for epoch in range(start, epochs):
        rng = np.random.default_rng([seed, epoch + 1])  # [seed, 0] is the same as seed alone
        with hold(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**62)))
            network.train()
            for step, (known, picks) in enumerate(_batches(corpora, batch, rng), epoch * steps):
                optimizer.param_groups[0]["lr"] = lr * (1 + cos(pi * step / (epochs * steps))) / 2
                _step(network, optimizer, network.loss(known, picks, rng))
        if checkpoint:
            _keep(network, optimizer, checkpoint, identity, epoch + 1)
        if report is not None:
            report(epoch + 1, epochs)
    network.eval()


def _batches(corpora: Sequence[Corpus], size: int, rng: np.random.Generator) -> Iterator[tuple[Corpus, Picks]]:
    """Yield each architecture once, in batches of one space, in random order."""
    found = [
        (known, picks)
        for known in corpora
        for picks in np.array_split(rng.permutation(len(known)), -(-len(known) // size))
    ]
    return (found[i] for i in rng.permutation(len(found)))


def _step(network: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    if not torch.isfinite(loss):
        raise PredictorError(f"The training of the encoding diverged, its loss is {loss.item()}: give a smaller lr.")
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(network.parameters(), _CLIP)
    optimizer.step()


def _keep(network: nn.Module, optimizer: torch.optim.Optimizer, path: Path, identity: str, epoch: int) -> None:
    arrays = {f"weights.{name}": tensor for name, tensor in network.state_dict().items()}
    for i, moments in optimizer.state_dict()["state"].items():
        arrays |= {f"moments.{i}.{name}": moments[name] for name in ("exp_avg", "exp_avg_sq")}
    save_arrays(path, arrays, {"schema": _CHECKPOINT_SCHEMA, "identity": identity, "epoch": epoch})


def _resume(
    network: nn.Module, optimizer: torch.optim.Optimizer, path: Path, identity: str, steps: int
) -> int:
    """Take up a checkpoint where there is one, and return how many epochs are done."""
    if not path.is_file():
        return 0
    remedy = "Delete it, and the training starts anew."
    facts = load_facts(path, "checkpoint", _CHECKPOINT_SCHEMA, ("identity", "epoch"), remedy)
    if facts["identity"] != identity:
        raise PredictorError(
            f"{path} is of a training with other architectures or settings. Give the former ones to continue it, or "
            "another hydra.run.dir to start anew."
        )
    arrays = load_arrays(path)
    network.load_state_dict({name.removeprefix("weights."): a for name, a in arrays.items() if name[0] == "w"})
    state: dict[int, dict[str, Any]] = {}
    for name, array in arrays.items():
        if name.startswith("moments."):
            _, i, moment = name.split(".")
            state.setdefault(int(i), {"step": torch.tensor(float(facts["epoch"] * steps))})[moment] = array
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return int(facts["epoch"])
