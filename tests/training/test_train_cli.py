"""`nonlocal-video train` as a user meets it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_parts import VIEW

from nonlocal_video.cli import train_text
from nonlocal_video.cli.train_text import TrainProgress
from nonlocal_video.datasets.manifest import read_manifest, write_manifest
from nonlocal_video.errors import UsageError
from nonlocal_video.models.checkpoint import read_card
from nonlocal_video.training import engine
from nonlocal_video.training.metrics import read_metrics

pytestmark = pytest.mark.slow

Run = Callable[..., Any]  # the fixture `run`


def test_from_a_folder_of_clips_to_answers(train: Run, run: Run, divided_clips: Path, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    shutil.copytree(divided_clips.parent, clips, ignore=shutil.ignore_patterns("*.csv"))
    (clips / "wave").rename(clips / "drink")
    folder = tmp_path / "run"
    done = train(clips, "--validation-share", 0.34, "--set", "frozen_views=2", epochs=2)
    assert (done.status, done.err.count("\n")) == (0, 5)
    assert "Checking" in done.err
    assert "tensors of the trunk of 'tiny parent' were loaded; the head for 2 classes is new." in done.err
    assert "their features are computed once, for 2 random views of the training set (8) and one of the " in done.err
    assert "epoch 2: loss" in done.err
    assert "12 clips, 12 usable" in done.out
    assert "Best after epoch" in done.out
    assert f"nonlocal-video classify CLIP --model {folder}" in done.out

    written = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert written == {
        "README.md", "best.safetensors", "config.json", "curves.png", "last.safetensors", "manifest.csv", "metrics.csv",
        "state.pt", "tensorboard",
    }  # fmt: skip
    card = read_card(folder / "best.safetensors")
    assert (card.name, card.labels, card.source) == ("run", ("drink", "jump"), "trained from tiny parent")
    assert card.input == VIEW
    rows = read_metrics(folder / "metrics.csv")
    assert [row["epoch"] for row in rows] == [1.0, 2.0]
    settings = json.loads((folder / "config.json").read_text())["settings"]
    assert (settings["train"]["stage"], settings["train"]["epochs"], settings["train"]["batch_size"]) == ("head", 2, 8)
    assert {row.split for row in read_manifest(folder / "manifest.csv").rows} == {"train", "validation"}

    answer = run("classify", clips / "jump" / "0.mp4", "--model", folder, "--json")
    assert answer.status == 0
    assert {one["label"] for one in json.loads(answer.out)["top"]} == {"drink", "jump"}
    best = max(rows, key=lambda row: (row["validation/top1"], -row["validation/loss"]))
    measured = run("evaluate", folder / "manifest.csv", "--split", "validation", "--model", folder, "--json")
    summary = json.loads(measured.out)
    assert summary["clips"] == 4
    assert summary["accuracy_percent"]["top1"]["value"] == 100 * best["validation/top1"]

    before = {name: (folder / name).read_bytes() for name in ("metrics.csv", "best.safetensors", "README.md")}
    again = train(clips)
    assert again.status == 2
    assert "holds a run already. Resume it with --resume" in again.err
    assert "Checking" not in again.err
    finished = run("train", "--output", folder, "--resume")
    assert (finished.status, "computed once" in finished.err) == (0, False)
    assert finished.out == done.out[done.out.index("Best after") :]
    assert {name: (folder / name).read_bytes() for name in before} == before


def test_a_manifest_is_taken_as_it_is(train: Run, divided_clips: Path, tmp_path: Path) -> None:
    options = ("--stage", "all", "--progressive", "--set", "cache_gib=0.01", "--set", "gradient_checkpointing=true")
    done = train(divided_clips, *options)
    assert done.status == 0, done.err
    assert "All blocks are open after 15 epochs, and the run has 1: some stay partly or fully closed." in done.err
    assert "Checking" not in done.err
    assert "including the head, as the classes are the same" in done.err
    assert read_manifest(tmp_path / "run" / "manifest.csv") == read_manifest(divided_clips)
    assert not (tmp_path / "run" / "cache").exists()


def test_folds_are_measured_in_turn(train: Run, divided_clips: Path, tmp_path: Path) -> None:
    manifest = read_manifest(divided_clips)
    rows = tuple(replace(row, split=f"fold{1 + index % 3}") for index, row in enumerate(manifest.rows))
    write_manifest(tmp_path / "folds.csv", replace(manifest, rows=rows))
    done = train(tmp_path / "folds.csv", "--validation", "fold2", "--set", "frozen_views=1", "--batch-size", 5)
    assert done.status == 0, done.err
    assert "random views of the training set (8) and one of the validation set (4)" in done.err


@pytest.mark.usefixtures("without_curves")
class TestBatchSize:
    def test_it_is_found_by_memory(self, train: Run, divided_clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("nonlocal_video.training.run.find_batch_size", self.three)
        monkeypatch.setattr("nonlocal_video.training.batch_size.MIN_STEPS_PER_EPOCH", 1)
        done = train(divided_clips, "--stage", "all", "--batch-size", "auto")
        assert done.status == 0, done.err
        assert "3 fit." in done.err

    def three(self, step: Callable[[int], object], *, maximum: int, device: torch.device, reserve_bytes: int) -> Any:
        from nonlocal_video.training.batch_size import FoundBatchSize

        assert maximum == 8
        assert reserve_bytes > 0
        step(3)
        return FoundBatchSize(3, "3 fit.")

    def test_an_epoch_keeps_twenty_steps_if_it_can(
        self, train: Run, divided_clips: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Memory for thousands of clips must not turn an epoch of 8 clips into one step."""

        def asked(step: object, *, maximum: int, **_: object) -> Any:
            raise UsageError(f"up to {maximum} were allowed")

        monkeypatch.setattr("nonlocal_video.training.run.find_batch_size", asked)
        assert "up to 1 were allowed" in train(divided_clips, "--stage", "all", "--batch-size", "auto").err

    def test_a_resumed_run_keeps_what_was_found(
        self, train: Run, run: Run, divided_clips: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr("nonlocal_video.training.run.find_batch_size", self.three)
        monkeypatch.setattr("nonlocal_video.training.batch_size.MIN_STEPS_PER_EPOCH", 1)
        _stop_in_step(monkeypatch, 3)
        stopped = train(divided_clips, "--stage", "all", "--batch-size", "auto", epochs=2)
        assert (stopped.status, "Stopped after step 3" in stopped.err) == (130, True)
        readme = tmp_path / "run" / "README.md"  # of the first epoch's weights
        assert "Training was stopped after step 3, before its end." in readme.read_text()
        monkeypatch.undo()
        monkeypatch.setattr("nonlocal_video.training.run.find_batch_size", None)  # not asked again
        monkeypatch.setattr(sys, "argv", [])
        assert run("train", "--output", tmp_path / "run", "--resume").status == 0
        assert [row["step"] for row in read_metrics(tmp_path / "run" / "metrics.csv")] == [2, 4]
        assert "stopped" not in readme.read_text()

    def test_it_is_never_more_than_there_are_clips(self, train: Run, divided_clips: Path) -> None:
        done = train(divided_clips, "--batch-size", 64, "--set", "frozen_views=1")
        assert done.status == 0
        assert "batch_size is 8 instead of 64: there are 8 clips for 1 processes." in done.err

    def test_finding_the_batch_size_leaves_no_answers_behind(
        self, train: Run, divided_clips: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr("nonlocal_video.training.run.find_batch_size", self.three)
        monkeypatch.setattr("nonlocal_video.training.batch_size.MIN_STEPS_PER_EPOCH", 1)
        rows = []
        for size in ("auto", 3):
            done = train(
                divided_clips, "--teacher", teacher, "--set", "teacher_views=1", "--set", "distillation.label_weight=0",
                "--batch-size", size,
            )  # fmt: skip
            assert done.status == 0, done.err
            rows.append(read_metrics(tmp_path / "run" / "metrics.csv"))
            shutil.rmtree(tmp_path / "run")
        assert rows[0] == rows[1]


def _stop_in_step(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Ctrl-C while a step is computed."""
    original = engine.Training._one_step

    def interrupted(self: engine.Training, *args: Any) -> tuple[int, bool]:
        clips_and_stop = original(self, *args)
        if self.step == step:
            os.kill(os.getpid(), signal.SIGINT)
        return clips_and_stop

    monkeypatch.setattr(engine.Training, "_one_step", interrupted)


@pytest.mark.usefixtures("without_curves")
class TestResume:
    @pytest.fixture
    def stopped(self, train: Run, divided_clips: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
        _stop_in_step(monkeypatch, 1)
        done = train(divided_clips, "--stage", "all", "--batch-size", 4)
        assert done.status == 130
        assert "Stopped after step 1. `train --resume` with this --output continues." in done.err
        return tmp_path / "run"

    @pytest.mark.parametrize(
        "options",
        [
            ("--epochs", 5), ("--model", "default"), ("clips",), ("--progressive",), ("--validation", "fold1"),
            ("--set", "optimizer=sgd"), ("--fast",), ("--new-weights",), ("--device", "cuda"), ("--seed", 1),
            ("--validation-share", 0.5), ("--teacher", "default"), ("--batch-size", 8),
        ],
        ids=lambda options: str(options[0]),
    )  # fmt: skip
    def test_other_settings_are_refused(self, run: Run, tmp_path: Path, options: tuple[object, ...]) -> None:
        done = run("train", "--output", tmp_path, "--resume", *options)
        assert done.status == 2
        assert "--resume continues with the run's own clips and settings; omit" in done.err
        assert not list(tmp_path.iterdir())

    def test_what_changes_nothing_may_differ(self, run: Run, stopped: Path) -> None:
        done = run("train", "--output", stopped, "--resume", "--workers", 1, "--set", "save_every_steps=1")
        assert done.status == 0
        settings = json.loads((stopped / "config.json").read_text())["settings"]["train"]
        assert (settings["workers"], settings["save_every_steps"], settings["batch_size"]) == (1, 1, 4)
        assert read_metrics(stopped / "metrics.csv")[-1]["step"] == 2

    def test_it_goes_on_from_any_folder(
        self, run: Run, train: Run, divided_clips: Path, model: Path, teacher: Path, stills: Path, tmp_path, monkeypatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        for path in (model, teacher, stills, divided_clips.parent):
            os.symlink(path, path.name)
        _stop_in_step(monkeypatch, 1)
        options = ("--teacher", teacher.name, "--stills", stills.name, "--batch-size", 5)
        stopped = train(f"{divided_clips.parent.name}/manifest.csv", *options, model=model.name)
        assert stopped.status == 130, stopped.err
        monkeypatch.undo()
        monkeypatch.setattr(sys, "argv", [])
        assert run("train", "--output", tmp_path / "run", "--resume").status == 0

    def test_another_number_of_processes_is_refused(
        self, run: Run, stopped: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("WORLD_SIZE", "2")
        done = run("train", "--output", stopped, "--resume")
        assert done.status == 2
        assert "processes was 1 and is 2" in done.err

    def test_there_has_to_be_a_run(self, run: Run, tmp_path: Path) -> None:
        done = run("train", "--output", tmp_path / "run", "--resume")
        assert done.status == 2
        assert "holds no run" in done.err
        assert not (tmp_path / "run").exists()

    def test_features_are_gone_on_with(
        self, train: Run, run: Run, divided_clips: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        seen: list[tuple[int, int]] = []

        def interrupted(self: TrainProgress, done: int, of: int) -> None:
            seen.append((done, of))
            if len(seen) == 3:
                os.kill(os.getpid(), signal.SIGINT)

        monkeypatch.setattr(TrainProgress, "on_features", interrupted)
        done = train(divided_clips, "--set", "frozen_views=2")
        assert (done.status, "Stopped after step 0" in done.err) == (130, True)
        assert run("train", "--output", tmp_path / "run", "--resume").status == 0
        assert seen == [(4, 16), (8, 16), (12, 16), (16, 16), (4, 4)]


class TestRefusedBeforeThereIsAFolder:
    def refused(self, done: Any, tmp_path: Path, message: str) -> None:
        assert done.status == 2
        assert message in done.err
        assert not (tmp_path / "run").exists()

    def test_one_class(self, train: Run, divided_clips: Path, tmp_path: Path) -> None:
        manifest = read_manifest(divided_clips)
        rows = tuple(row for row in manifest.rows if row.label == "jump")
        write_manifest(tmp_path / "one.csv", replace(manifest, rows=rows))
        self.refused(train(tmp_path / "one.csv"), tmp_path, "at least two classes; these have jump")

    def test_no_clips(self, train: Run, tmp_path: Path) -> None:
        self.refused(train(), tmp_path, "at least two classes; these have none. Give a folder")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (("--validation", "fold1"), "split = 'fold1' is in no row of the manifest"),
            (("--set", "augmentation.left_right_classes=[jmup]"), "left_right_classes contains 'jmup'"),
            (("--set", "augmentation.flpi=0"), "this version does not know ['augmentation.flpi']"),
            (("--set", "epoch=3"), "epoch is not a training setting"),
            (("--set", "epochs"), "should be NAME=VALUE"),
            (("--set", "stage=all", "--set", "stage.x=1"), "stage is 'all' and has no settings of its own"),
            (("--set", "momentum=1"), "invalid: TrainConfig: momentum = 1.0 should be from 0 to below 1.\n"),
            (("--set", "clip_norm=0"), "clip_norm = 0.0 should be a finite number above 0"),
            (("--set", "teacher_views=2"), "teacher_views = 2 needs a teacher"),
            (("--progressive",), "progressive opens blocks that stage = 'head' freezes"),
            (("--batch-size", "many"), "should be a number from 1, or auto"),
            (("--model", "nonexistent"), "There is no model or weights file"),
            (("--recipe", "nonexistent.yaml"), "cannot be read"),
            (
                ("--stage", "all", "--progressive", "--set", "progressive.ramp_epochs=.nan"),
                "finite numbers of epochs.\n",
            ),
            (("--validation-share", "0.3"), "are divided already; omit --validation-share"),
            (("--model", "new.yaml", "--fast"), "describes one. Omit it."),
            (("--teacher", "nonexistent"), "There is no model or weights file"),
        ],
        ids=lambda one: " ".join(one) if isinstance(one, tuple) else "",
    )
    def test_what_cannot_work(
        self, train: Run, divided_clips: Path, tmp_path: Path, options: tuple[str, ...], message: str
    ) -> None:
        (tmp_path / "new.yaml").write_text("name: new")
        given = [str(tmp_path / one) if one == "new.yaml" else one for one in options]
        changes = {"model": None} if "--model" in options else {}
        self.refused(train(divided_clips, *given, **changes), tmp_path, message)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (("--teacher", "nonexistent"), "There is no model or weights file"),
            (("--validation-share", 0.9), "validation-share = 0.9 should be from 0.05 to 0.5"),
            (("--unlabelled", "nonexistent"), "want a teacher that says what they show: --teacher."),
        ],
        ids=("teacher", "share", "unlabelled"),
    )
    def test_nothing_is_read_before(
        self, train: Run, good_clips: Path, tmp_path: Path, options: tuple[str, ...], message: str
    ) -> None:
        done = train(good_clips, *options)
        self.refused(done, tmp_path, message)
        assert "clips, " not in done.out  # no findings

    def test_bfloat16_convolutions_on_the_cpu(self, train: Run, divided_clips: Path, tmp_path: Path) -> None:
        done = train(divided_clips, "--stage", "top", "--set", "precision=bf16-mixed")
        self.refused(done, tmp_path, "is for GPUs")

    def test_a_device_that_is_not_there(self, train: Run, divided_clips: Path, tmp_path: Path) -> None:
        self.refused(train(divided_clips, device="tpu"), tmp_path, "should be auto, cpu, cuda or cuda:N")


def test_a_head_can_be_trained_in_bfloat16(train: Run, divided_clips: Path) -> None:
    done = train(divided_clips, "--set", "precision=bf16-mixed", "--set", "frozen_views=1")
    assert done.status == 0, done.err


def test_a_loss_that_is_not_finite_ends_with_status_1_and_a_usable_folder(
    train: Run, run: Run, divided_clips: Path, tmp_path: Path
) -> None:
    done = train(
        divided_clips, "--stage", "all", "--learning-rate", 1e30, "--batch-size", 4, "--set", "warmup_epochs=0"
    )
    assert done.status == 1
    assert "The loss of step 2 is nan, for the clips" in done.err
    assert ".mp4" in done.err
    assert "Traceback" not in done.err
    again = run("train", "--output", tmp_path / "run", "--resume")
    assert again.status == 1  # it begins anew, and is the same
    assert "The loss of step 2 is nan" in again.err


def test_a_clip_that_vanishes_is_its_error(train: Run, divided_clips: Path, tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    shutil.copytree(divided_clips.parent, folder)
    (folder / "jump" / "0.mp4").unlink()
    done = train(folder / "manifest.csv", workers=1)
    assert done.status == 1
    assert done.err.splitlines()[-1].startswith(f"not_found: {folder}/jump/0.mp4: ")
    assert "check the clips again" in done.err


def test_without_a_terminal_long_preparations_say_how_far_they_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_text, "TELL_EVERY_SECONDS", 0.0)
    with TrainProgress(shown=True) as progress:
        progress.on_features(40, 1200)
    monkeypatch.setattr(train_text, "TELL_EVERY_SECONDS", 3600.0)
    with TrainProgress(shown=True) as progress:
        progress.on_features(41, 1200)
    assert capsys.readouterr().err == "features: 40 of 1,200\n"
