"""Runs that are refused while they are put together leave no folder; and deterministic runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_parts import tiny_card, tiny_network

from nonlocal_video.models.checkpoint import save_checkpoint
from nonlocal_video.training import engine

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("without_curves")]

Run = Callable[..., Any]  # the fixture `train`


class TestRefused:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (("--stage", "all", "--progressive"), "the network has none"),
            (("--stage", "all", "--set", "accumulate=5"), "A step takes 5 x 8 clips for 1 processes, and there are 8."),
            (("--set", "cache_gib=1e-5"), "use fewer views with --set frozen_views"),
            (("--new-weights",), "stage = 'head' freezes layers, and those of this network are random"),
            (
                ("--teacher", "TEACHER", "--set", "distillation.features_weight=1", "--set", "teacher_views=1",
                 "--set", "distillation.layers=[[layer3, layer9]]"),
                "has no layer 'layer9'; it has stem",
            ),
        ],
        ids=("progressive", "accumulate", "room", "random", "layers"),
    )  # fmt: skip
    def test_no_folder_is_left(
        self, train: Run, divided_clips: Path, teacher: Path, tmp_path: Path, options: tuple[str, ...], message: str
    ) -> None:
        model = tmp_path / "plain.safetensors"
        save_checkpoint(model, tiny_network(tiny_card()), tiny_card(), dtype=torch.float32)
        given = [str(teacher) if one == "TEACHER" else one for one in options]
        done = train(divided_clips, *given, model=model)
        assert (done.status, message in done.err, "computed once" in done.err) == (2, True, False), done.err
        assert not (tmp_path / "run").exists()

    def test_the_corrected_command_takes_the_same_folder(self, train: Run, divided_clips: Path, tmp_path: Path) -> None:
        options = (divided_clips, "--stage", "all", "--batch-size", 4)
        assert train(*options, "--set", "accumulate=3").status == 2
        assert train(*options, "--set", "accumulate=2").status == 0
        assert len(json.loads((tmp_path / "run" / "config.json").read_text())["starts"]) == 1


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.\nA long explanation."),
            "CUDA out of memory. Tried to allocate 9 GiB.",
        ),
        (
            RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED\nShapes."),
            "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED.",
        ),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
            "CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`.",
        ),
        (MemoryError(), "MemoryError."),
    ],
    ids=("torch", "cudnn", "cublas", "host"),
)
def test_too_little_memory_says_what_helps_and_leaves_no_folder(
    train: Run, divided_clips: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception, told: str
) -> None:
    def full(*_: object) -> None:
        raise error

    monkeypatch.setattr(engine.Training, "_one_step", full)
    done = train(divided_clips, "--stage", "all")
    assert done.status == 1
    assert done.err.endswith("--set gradient_checkpointing=true, or --set precision=bf16-mixed.\n")
    assert "The memory of cpu is too small: " in done.err
    assert f"{told} Start another run" in done.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("step", [1, 2])
def test_a_device_that_fails_ends_the_run_with_a_sentence_and_resume_continues(
    train: Run, divided_clips: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, step: int
) -> None:
    original, steps = engine.Training._one_step, 0

    def failing(self: engine.Training, *args: Any) -> tuple[int, bool]:
        nonlocal steps
        steps += 1
        if steps == step:
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nLong advice.")
        return original(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(engine.Training, "_one_step", failing)
        done = train(divided_clips, "--stage", "all", "--batch-size", 2)
    assert done.status == 3
    assert done.err.splitlines()[-1].startswith("The device cpu failed: CUDA error: an illegal memory access was ")
    assert "--resume" in done.err
    resumed = train("--resume", model=None, epochs=None, workers=None, device=None)
    assert resumed.status == 0, resumed.err


def test_another_error_of_a_step_is_not_taken_for_one_of_memory(
    train: Run, divided_clips: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(engine.Training, "_one_step", broken)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        train(divided_clips, "--stage", "all")
    assert (tmp_path / "run").exists()


class TestDeterministic:
    def test_during_the_run_alone_and_with_the_same_bytes(
        self, train: Run, divided_clips: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        original, during = engine.Training._one_step, []

        def step(self: engine.Training, *args: Any) -> tuple[int, bool]:
            during.append(torch.are_deterministic_algorithms_enabled())
            return original(self, *args)

        monkeypatch.setattr(engine.Training, "_one_step", step)
        weights = []
        for _ in range(2):
            done = train(divided_clips, "--stage", "all", "--batch-size", 4, "--set", "deterministic=true")
            assert done.status == 0, done.err
            assert not torch.are_deterministic_algorithms_enabled()
            weights.append((tmp_path / "run" / "last.safetensors").read_bytes())
            shutil.rmtree(tmp_path / "run")
        assert during == [True] * 4
        assert weights[0] == weights[1]

    def test_an_operation_that_cannot_be_is_named(
        self, train: Run, divided_clips: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        def one_hot(classes: torch.Tensor, num_classes: int) -> torch.Tensor:
            rows = torch.zeros(len(classes), num_classes)
            return rows.put_(classes + num_classes * torch.arange(len(classes)), torch.ones(len(classes)))

        monkeypatch.setattr(engine, "one_hot", one_hot)
        command = (divided_clips, "--stage", "all", "--set")
        refused = train(*command, "deterministic=true")
        assert refused.status == 2
        assert "put_ does not have a deterministic implementation" in refused.err
        assert refused.err.endswith("Train with --set deterministic=false.\n")
        assert "Traceback" not in refused.err
        assert train(*command, "deterministic=false").status == 0  # in the same folder
