"""The training loop on clips in memory: what it computes, when it stops, and what it says when it cannot go on."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from engine_parts import MemoryClips, SameClips, run, stop_after, tiny_card, tiny_network, training, wake_blocks
from torch import Tensor
from torch.nn import functional as F

from nonlocal_video.blocks.schedule import ProgressiveSchedule
from nonlocal_video.errors import TrainingError, UsageError, VideoError
from nonlocal_video.models.checkpoint import load_checkpoint
from nonlocal_video.models.resnet3d import Video3DResNet
from nonlocal_video.training.augment import Augmentation, BatchMixer
from nonlocal_video.training.config import TrainConfig
from nonlocal_video.training.engine import TrainingProgress
from nonlocal_video.training.loading import EpochBatches
from nonlocal_video.training.metrics import read_metrics
from nonlocal_video.training.optim import learning_rate

PLAIN = TrainConfig(
    stage="all", epochs=2, batch_size=4, learning_rate=0.05, optimizer="sgd", warmup_epochs=0.5, workers=0, seed=3
)


def same(found: dict[str, Tensor], expected: dict[str, Tensor], **tolerances: float) -> None:
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, msg=lambda text, name=name: f"{name}: {text}", **tolerances)


def test_it_is_a_plain_loop_with_averaged_weights(tmp_path: Path) -> None:
    card = tiny_card()
    network = tiny_network(card)
    by_hand, data = copy.deepcopy(network), SameClips(8)
    config = replace(PLAIN, ema_decay=0.7, label_smoothing=0.1, clip_norm=0.5)
    result = run(training(tmp_path / "run", network, card, config, train=data))

    weights = {name: parameter for name, parameter in by_hand.named_parameters() if parameter.ndim > 1}
    others = [parameter for parameter in by_hand.parameters() if parameter.ndim <= 1]
    by_hand.eval()  # frozen batch norms, no dropout
    optimizer = torch.optim.SGD(
        [{"params": list(weights.values()), "weight_decay": 1e-4}, {"params": others}],
        0.05,
        momentum=0.9,
        nesterov=True,
    )
    averaged: dict[str, Tensor] = {}
    losses = []
    order = EpochBatches(8, 4, seed=3, epochs=2)
    for step in range(4):
        indices = order.clip_indices(step // 2, step % 2)
        loss = F.cross_entropy(by_hand(data.clips[indices]), data.classes[indices], label_smoothing=0.1)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step, 2)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(by_hand.parameters(), 0.5)
        optimizer.step()
        losses.append(loss.item())
        for name, tensor in by_hand.state_dict().items():
            kept = averaged.get(name)
            moves = kept is not None and tensor.is_floating_point()
            share = 1 - min(0.7, (1 + step) / (10 + step))
            averaged[name] = kept + (tensor - kept) * share if moves else tensor.clone()
    same(network.state_dict(), by_hand.state_dict(), rtol=1e-4, atol=1e-6)
    last, _ = load_checkpoint(tmp_path / "run" / "last.safetensors")
    same(last.state_dict(), averaged, rtol=1e-4, atol=1e-6)

    rows = read_metrics(tmp_path / "run" / "metrics.csv")
    assert [(row["step"], row["epoch"]) for row in rows] == [(2, 1.0), (4, 2.0)]
    assert [row["train/loss"] for row in rows] == pytest.approx([sum(losses[:2]) / 2, sum(losses[2:]) / 2], rel=1e-4)
    held_out = SameClips(4, seed=1)
    logits = last(held_out.clips)
    assert rows[-1]["validation/loss"] == pytest.approx(
        F.cross_entropy(logits, held_out.classes, label_smoothing=0.1).item(), rel=1e-4
    )
    assert rows[-1]["validation/top1"] == (logits.argmax(1) == held_out.classes).float().mean().item()
    assert (result.step, result.finished, result.early, result.train_clips) == (4, True, False, 16)
    best = max(rows, key=lambda row: (row["validation/top1"], -row["validation/loss"]))
    assert result.best["step"] == best["step"]


def test_the_first_process_gives_its_buffers_as_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fabric would pickle each one, and unpickle it on the first process's device."""
    card = tiny_card()
    made = training(tmp_path / "run", tiny_network(card), card, replace(PLAIN, epochs=1))
    given: list[Tensor] = []

    def pickled(_: object, of_first: object) -> object:
        assert not isinstance(of_first, Tensor)
        return of_first

    def broadcast(tensor: Tensor, src: int) -> None:
        assert src == 0
        given.append(tensor)

    monkeypatch.setattr(type(made.fabric), "world_size", property(lambda _: 2))
    monkeypatch.setattr(type(made.fabric), "broadcast", pickled)
    monkeypatch.setattr(torch.distributed, "broadcast", broadcast)
    run(made)
    assert {id(tensor) for tensor in given} == {id(buffer) for buffer in made.objective.buffers()}


def test_two_accumulated_batches_are_one(tmp_path: Path) -> None:
    card, states = tiny_card(), []
    for batch_size, accumulate in ((8, 1), (4, 2)):
        network = tiny_network(card)
        config = replace(PLAIN, batch_size=batch_size, accumulate=accumulate)
        run(training(tmp_path / str(batch_size), network, card, config, train=SameClips(16)))
        states.append(network.state_dict())
    same(states[1], states[0], rtol=1e-4, atol=1e-6)
    one, two = (read_metrics(tmp_path / name / "metrics.csv")[-1] for name in ("8", "4"))
    assert two["step"] == one["step"] == 4
    assert two["train/loss"] == pytest.approx(one["train/loss"], rel=1e-4)


class TestProgressive:
    def test_the_warm_up_is_training_without_blocks(self, tmp_path: Path) -> None:
        with_blocks = wake_blocks(tiny_network(tiny_card(blocks=True)))
        without = tiny_network(tiny_card())
        without.load_state_dict({k: v for k, v in with_blocks.state_dict().items() if k in without.state_dict()})
        states = []
        for network, blocks in ((with_blocks, True), (without, False)):
            schedule = ProgressiveSchedule(2, 1, (4, 3)) if blocks else None
            config = replace(PLAIN, progressive=schedule, batch_norm="batch", optimizer="adamw", learning_rate=1e-3)
            run(training(tmp_path / str(blocks), network, tiny_card(blocks=blocks), config))
            states.append(network.state_dict())
        for name, tensor in states[1].items():
            assert torch.equal(states[0][name], tensor), name
        rows = [read_metrics(tmp_path / name / "metrics.csv") for name in ("True", "False")]
        for blocked, plain in zip(*rows, strict=True):
            assert {name: value for name, value in blocked.items() if not name.startswith("gate/")} == plain
            assert blocked["gate/layer4.nonlocal0"] == 0

    def test_what_is_saved_holds_the_gates_that_were_measured(self, tmp_path: Path) -> None:
        card = tiny_card(blocks=True)
        config = replace(PLAIN, progressive=ProgressiveSchedule(0, 4, (4, 3)), ema_decay=0.5)
        network = wake_blocks(tiny_network(card))
        run(training(tmp_path / "run", network, card, config))
        row = read_metrics(tmp_path / "run" / "metrics.csv")[-1]
        assert row["gate/layer4.nonlocal0"] == 1.5 / 4  # of the last step, which began after an epoch and a half
        assert row["gate/layer3.nonlocal0"] == 0
        last, _ = load_checkpoint(tmp_path / "run" / "last.safetensors")
        assert isinstance(last, Video3DResNet)
        assert [block.is_identity for block in last.nonlocal_layers().values()] == [True, False]
        held_out = SameClips(4, seed=1)
        loss = F.cross_entropy(last(held_out.clips), held_out.classes)
        assert row["validation/loss"] == pytest.approx(loss.item(), rel=1e-4)


class TestResume:
    CONFIG = TrainConfig(
        stage="all", epochs=3, batch_size=2, accumulate=2, learning_rate=1e-3, batch_norm="batch", ema_decay=0.8,
        workers=0, progressive=ProgressiveSchedule(1, 2, (4, 3)), augmentation=Augmentation(mixup=0.3, cutmix=0.5),
    )  # fmt: skip
    STEPS = 6

    def start(self, path: Path, **changes: object):
        card = tiny_card(blocks=True, dropout=0.3)
        network = wake_blocks(tiny_network(card))
        return training(path, network, card, replace(self.CONFIG, **changes), train=MemoryClips(9))

    @pytest.fixture
    def whole(self, tmp_path: Path) -> dict[str, bytes]:
        run(self.start(tmp_path / "whole"))
        return self.files(tmp_path / "whole")

    def files(self, path: Path) -> dict[str, bytes]:
        return {name: (path / name).read_bytes() for name in ("metrics.csv", "best.safetensors", "last.safetensors")}

    @pytest.mark.parametrize("stop", [1, 2, 5])
    @pytest.mark.slow
    def test_stopped_and_resumed_it_ends_with_the_same_bytes(
        self, tmp_path: Path, whole: dict[str, bytes], stop: int
    ) -> None:
        stopped = run(self.start(tmp_path / "run"), should_stop=stop_after(stop))
        assert (stopped.step, stopped.finished) == (stop, False)
        torch.manual_seed(stop)  # another process draws other numbers
        resumed = self.start(tmp_path / "run")
        state = resumed.folder.load_state()
        assert state is not None
        assert state["step"] == stop
        resumed.restore(state)
        result = run(resumed, resume_step=stop)
        assert (result.step, result.finished) == (self.STEPS, True)
        assert self.files(tmp_path / "run") == whole

    def test_no_state_lies_between_an_epochs_last_step_and_its_measurement(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stopped = self.start(tmp_path / "run", save_every_steps=1)
        monkeypatch.setattr(stopped, "_end_epoch", self.cut_off)
        with pytest.raises(KeyboardInterrupt):
            run(stopped, should_stop=stop_after(2))  # asked to stop, and then once more
        state = stopped.folder.load_state()
        assert state is not None
        assert state["step"] == 1

    def cut_off(self, log: object) -> dict[str, float]:
        raise KeyboardInterrupt

    def test_a_finished_run_has_nothing_left_to_do(self, tmp_path: Path) -> None:
        first = run(self.start(tmp_path / "run", epochs=1))
        again = self.start(tmp_path / "run", epochs=1)
        state = again.folder.load_state()
        assert state is not None
        again.restore(state)
        result = run(again, resume_step=first.step)
        assert (result.finished, result.best, result.train_clips) == (True, first.best, 0)


class TestEarlyStop:
    CONFIG = replace(PLAIN, epochs=9, patience=2, learning_rate=0.0)

    def test_it_stops_after_so_many_epochs_without_a_gain(self, tmp_path: Path) -> None:
        seen: list[TrainingProgress] = []
        of = training(tmp_path / "run", tiny_network(tiny_card()), tiny_card(), self.CONFIG)
        result = run(of, on_progress=seen.append)
        assert (result.early, result.finished, result.best["epoch"]) == (True, True, 1.0)
        assert [row["epoch"] for row in read_metrics(tmp_path / "run" / "metrics.csv")] == [1.0, 2.0, 3.0]
        assert [one.epoch for one in seen if one.metrics] == [1.0, 2.0, 3.0]
        assert [one.step for one in seen if not one.metrics] == [1, 2, 3, 4, 5, 6]
        assert {one.steps for one in seen} == {18}

    def test_resumed_it_stays_stopped(self, tmp_path: Path) -> None:
        first = run(training(tmp_path / "run", tiny_network(tiny_card()), tiny_card(), self.CONFIG))
        again = training(tmp_path / "run", tiny_network(tiny_card()), tiny_card(), self.CONFIG)
        state = again.folder.load_state()
        assert state is not None
        again.restore(state)
        result = run(again, resume_step=first.step)
        assert (result.step, result.early, result.train_clips) == (first.step, True, 0)


def test_clips_without_a_label_are_mixed_and_have_no_target() -> None:
    clips, classes = torch.randn(4, 3, 2, 8, 8), torch.tensor([0, -1, 1, -1])
    mixed, targets = BatchMixer(Augmentation(mixup=1.0), 2)(clips, classes, seed=0, epoch=0, batch=0)
    share = (mixed[0] - clips[3])[0, 0, 0, 0] / (clips[0] - clips[3])[0, 0, 0, 0]
    expected = torch.tensor([[share, 0], [1 - share, 0], [0, share], [0, 1 - share]])
    torch.testing.assert_close(targets, expected)
    assert 0 < share < 1
    assert torch.equal(BatchMixer(Augmentation(), 2)(clips, classes, seed=0, epoch=0, batch=0)[1][1], torch.zeros(2))


class TestCannotGoOn:
    def test_a_loss_that_is_not_finite_names_step_and_clips(self, tmp_path: Path) -> None:
        data = SameClips(8)
        data.clips[5] = float("nan")
        of = training(tmp_path / "run", tiny_network(tiny_card()), tiny_card(), PLAIN, train=data)
        order = EpochBatches(8, 4, seed=3, epochs=2)
        step = next(step for step in range(2) if 5 in order.clip_indices(0, step))
        names = ", ".join(f"clip {index}" for index in order.clip_indices(0, step))
        with pytest.raises(TrainingError, match=rf"loss of step {step + 1} is nan, for the clips {names}\."):
            run(of)

    def test_weights_that_are_not_finite_are_not_saved_as_the_best(self, tmp_path: Path) -> None:
        config = replace(PLAIN, epochs=1, batch_size=8, learning_rate=1e30, warmup_epochs=0)
        of = training(tmp_path / "run", tiny_network(tiny_card()), tiny_card(), config)
        with pytest.raises(TrainingError, match="After step 1 the validation loss is nan"):
            run(of)
        assert not of.folder.best.exists()

    def test_a_clip_that_cannot_be_read_is_its_error(self, tmp_path: Path) -> None:
        of = training(tmp_path / "run", tiny_network(tiny_card()), tiny_card(), PLAIN, train=SameClips(8, broken=3))
        with pytest.raises(VideoError, match="clip 3 is broken"):
            run(of)

    def test_a_schedule_without_blocks_is_refused(self, tmp_path: Path) -> None:
        config = replace(PLAIN, progressive=ProgressiveSchedule())
        with pytest.raises(UsageError, match="the network has none"):
            training(tmp_path / "run", tiny_network(tiny_card()), tiny_card(), config)


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "bf16-mixed", "stage": "head", "learning_rate": 0.1},
        {"channels_last": True},
        {"workers": 1},
        {"augmentation": Augmentation(mixup=0.2)},
    ],
    ids=lambda changes: next(iter(changes)),
)
@pytest.mark.slow
def test_options_learn_what_can_be_learnt(tmp_path: Path, changes: dict[str, object]) -> None:
    config = replace(PLAIN, epochs=6, **{"optimizer": "adamw", "learning_rate": 3e-3, **changes})
    result = run(training(tmp_path / "run", tiny_network(tiny_card()), tiny_card(), config, train=SameClips(12)))
    assert result.finished
    losses = [row["train/loss"] for row in read_metrics(tmp_path / "run" / "metrics.csv")]
    assert losses[-1] < losses[0] < 10
    assert set(result.best) >= {"validation/top1", "validation/mean_class"}
