"""Training clips travel as pixels, and a step waits for its device once: with the numbers of the plain way."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from engine_parts import LABELS, VIEW, run, tiny_card, tiny_network, training
from lightning.fabric import Fabric
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from nonlocal_video.errors import TrainingError
from nonlocal_video.training.config import TrainConfig
from nonlocal_video.training.loading import BatchLoader, EveryClip, as_input, loaded
from nonlocal_video.training.metrics import read_metrics
from nonlocal_video.training.objective import one_hot
from nonlocal_video.video.transforms import normalise

CPU = torch.device("cpu")


class PixelClips:
    """Random clips as pixels, with a random view in every epoch."""

    def __init__(self, count: int, *, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        self.spec = VIEW
        self._pixels = torch.from_numpy(random.integers(0, 256, (count, 4, 32, 32, 3), dtype=np.uint8))

    def __len__(self) -> int:
        return len(self._pixels)

    def close(self) -> None:
        pass

    def pixels(self, index: int, epoch: int) -> tuple[Tensor, int]:
        return self._pixels[index].roll(epoch, dims=1), index % len(LABELS)

    def view(self, index: int, epoch: int) -> tuple[Tensor, int]:
        raise AssertionError("pixels were to be taken")


class NormalisedClips:
    """The same clips, normalised where they are loaded."""

    def __init__(self, clips: PixelClips) -> None:
        self._clips = clips

    def __len__(self) -> int:
        return len(self._clips)

    def close(self) -> None:
        pass

    def view(self, index: int, epoch: int) -> tuple[Tensor, int]:
        frames, label = self._clips.pixels(index, epoch)
        return normalise(frames, VIEW.mean, VIEW.std), label


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_hand_over_pixels(workers: int) -> None:
    data = PixelClips(3)
    loader = BatchLoader(data, EveryClip(3, 2, epoch=1), workers=workers, pin_memory=False)
    first, second = map(loaded, loader)
    assert first[0].dtype == torch.uint8
    assert first[0].shape == (2, 4, 32, 32, 3)
    found = torch.cat([as_input(clips, loader, CPU) for clips, _, _ in (first, second)])
    for index, clip in enumerate(found):
        assert torch.equal(clip, normalise(data.pixels(index, 1)[0], VIEW.mean, VIEW.std))


def test_normalising_a_batch_is_normalising_each_clip() -> None:
    frames = torch.randint(0, 256, (2, 3, 4, 8, 9, 3), dtype=torch.uint8)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    found = normalise(frames, mean, std)
    assert found.shape == (2, 3, 3, 4, 8, 9)
    for batch, of_batch in zip(found, frames, strict=True):
        for clip, of_clip in zip(batch, of_batch, strict=True):
            assert torch.equal(clip, normalise(of_clip, mean, std))
    exact = (frames.double() / 255 - torch.tensor(mean)) / torch.tensor(std)
    assert (found.double() - exact.movedim(-1, 2)).abs().max() < 1e-5


def test_pixels_travel_while_the_device_works(monkeypatch: pytest.MonkeyPatch) -> None:
    loader = BatchLoader(PixelClips(2), EveryClip(2, 2), workers=0, pin_memory=False)
    ((pixels, _, _),) = map(loaded, loader)
    moved: list[tuple[torch.dtype, int, bool]] = []
    to = Tensor.to

    def watched(self: Tensor, *given: Any, **options: Any) -> Tensor:
        result: Tensor = to(self, *given, **options)
        if result.device != self.device:
            moved.append((self.dtype, self.numel(), options.get("non_blocking", False)))
        return result

    monkeypatch.setattr(Tensor, "to", watched)
    clips = as_input(pixels, loader, torch.device("meta"))
    assert (clips.shape, clips.device.type) == ((2, 3, 4, 32, 32), "meta")
    assert [one for one in moved if one[1] > 3] == [(torch.uint8, 2 * 4 * 32 * 32 * 3, True)]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_weights_and_figures_are_those_of_clips_normalised_by_the_workers(accumulate: int, tmp_path: Path) -> None:
    config = TrainConfig(stage="all", epochs=2, batch_size=2, accumulate=accumulate, clip_norm=1.0, workers=0)
    pixels, measured = PixelClips(8), PixelClips(4, seed=1)
    weights, figures = [], []
    for name, train, validation in (
        ("pixels", pixels, measured),
        ("normalised", NormalisedClips(pixels), NormalisedClips(measured)),
    ):
        card = tiny_card(dropout=0.5)
        made = training(tmp_path / name, tiny_network(card), card, config, train=train, validation=validation)
        run(made)
        weights.append(made.objective.network.state_dict())
        figures.append(read_metrics(made.folder.metrics))
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[1])
    assert figures[0] == figures[1]
    assert len(figures[0]) == 2


def test_one_hot_is_pytorchs_with_zeros_for_unlabelled_clips() -> None:
    classes = torch.tensor([2, -1, 0, 4])
    found = one_hot(classes, 5)
    assert found.dtype == torch.float32
    assert torch.equal(found[[0, 2, 3]], F.one_hot(classes[[0, 2, 3]], 5).float())
    assert not found[1].any()


def test_mean_losses_are_those_of_the_steps(tmp_path: Path) -> None:
    card = tiny_card()
    config = TrainConfig(stage="all", epochs=1, batch_size=2, accumulate=2, learning_rate=1e-9, workers=0)
    made = training(tmp_path, tiny_network(card), card, config, train=PixelClips(8), validation=PixelClips(2))
    run(made)
    (row,) = read_metrics(made.folder.metrics)
    network = tiny_network(card)  # hardly moved
    network.eval()
    clips, classes = zip(*(NormalisedClips(PixelClips(8)).view(index, 0) for index in range(8)), strict=True)
    with torch.no_grad():
        wanted = F.cross_entropy(network(torch.stack(clips)), torch.tensor(classes))
    assert row["train/loss"] == pytest.approx(float(wanted), rel=1e-4)
    assert row["train/loss"] == row["train/cross_entropy"]


class _Waits(TorchDispatchMode):
    """Counts operations that need numbers on the host: on a GPU it waits there."""

    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().partition(".")[0]
        by_mask = name in ("aten::index", "aten::index_put", "aten::index_put_") and any(
            isinstance(index, Tensor) and index.dtype == torch.bool for index in args[1]
        )
        if by_mask or name in ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::is_nonzero"):
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@contextmanager
def counted_waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Operations that read numbers of tensors meanwhile."""
    found: list[str] = []

    def spied(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def read(tensor: Tensor, *args: Any) -> Any:
            found.append(name)
            with torch.utils._python_dispatch._disable_current_modes():
                return original(tensor, *args)

        return read

    with monkeypatch.context() as patched:
        for name in ("tolist", "item", "__bool__", "__float__", "__int__", "cpu", "numpy"):
            patched.setattr(Tensor, name, spied(name, getattr(Tensor, name)))
        with _Waits(found):
            yield found


@pytest.mark.parametrize(("accumulate", "ema_decay"), [(1, None), (3, None), (1, 0.9)])
def test_a_step_reads_from_the_device_once(
    accumulate: int, ema_decay: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = tiny_card(blocks=True)
    config = TrainConfig(
        stage="all",
        epochs=2,
        batch_size=2,
        accumulate=accumulate,
        clip_norm=1.0,
        ema_decay=ema_decay,
        optimizer="sgd",
        workers=0,
    )
    made = training(tmp_path, tiny_network(card), card, config, train=PixelClips(16), validation=PixelClips(2))
    batches = iter(made._loader)
    made._one_step(batches, 0, lambda: False)
    made._one_step(batches, 0, lambda: False)  # the second one begins to average
    with counted_waits(monkeypatch) as found:
        made._one_step(batches, 0, lambda: False)
    assert found == ["tolist"]


@pytest.mark.cuda
@pytest.mark.parametrize("ema_decay", [None, 0.9])
def test_cuda_synchronises_once_a_step(
    ema_decay: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on_cuda(precision: Any = "32-true") -> Fabric:
        made = Fabric(accelerator="cuda", devices=1, precision=precision)
        made.launch()
        return made

    monkeypatch.setattr("engine_parts.fabric", on_cuda)
    card = tiny_card(blocks=True)
    config = TrainConfig(
        stage="all", epochs=2, batch_size=2, clip_norm=1.0, ema_decay=ema_decay, optimizer="sgd", workers=0
    )
    made = training(tmp_path, tiny_network(card), card, config, train=PixelClips(12), validation=PixelClips(2))
    batches = iter(made._loader)
    for _ in range(2):  # the second one begins to average
        made._one_step(batches, 0, lambda: False)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            made._one_step(batches, 0, lambda: False)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert sum("synchronizing" in str(warning.message) for warning in found) == 1


def test_a_loss_that_is_not_finite_elsewhere_ends_every_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = tiny_card()
    config = TrainConfig(stage="all", epochs=1, batch_size=2, workers=0)
    made = training(tmp_path, tiny_network(card), card, config, train=PixelClips(4), validation=PixelClips(2))
    before = {name: tensor.clone() for name, tensor in made.objective.state_dict().items()}
    monkeypatch.setattr(made.fabric, "all_reduce", lambda means, reduce_op: means * float("nan"))
    with pytest.raises(TrainingError, match="The loss of step 1 is not finite in another process"):
        run(made)
    assert all(torch.equal(tensor, before[name]) for name, tensor in made.objective.state_dict().items())
