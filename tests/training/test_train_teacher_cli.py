"""`nonlocal-video train --teacher` as a user meets it: clips with and without labels, and pictures."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engine_parts import LABELS
from safetensors.torch import load_file
from training_clips import write_clip

from nonlocal_video.datasets.manifest import read_manifest, write_manifest
from nonlocal_video.models.checkpoint import load_checkpoint, read_card
from nonlocal_video.training.metrics import read_metrics
from nonlocal_video.training.run_folder import RunFolder

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("without_curves")]

Run = Callable[..., Any]  # the fixture `run`


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unlabelled")
    for number in range(3):
        write_clip(folder / f"{number}.mp4", 300 + number)
    (folder / "note.mp4").write_text("not a video\n" * 20)
    return folder


class TestTeacher:
    def test_answers_about_kept_views_of_clips_and_pictures(
        self, train: Run, run: Run, divided_clips: Path, teacher: Path, unlabelled: Path, stills: Path, tmp_path: Path
    ) -> None:
        done = train(
            divided_clips, "--teacher", teacher, "--unlabelled", unlabelled, "--stills", stills,
            "--set", "teacher_views=2", "--set", "distillation.label_weight=0", "--batch-size", 4, epochs=8,
        )  # fmt: skip
        assert done.status == 0, done.err
        assert "not used: " in done.err
        assert "3 of 4 files without labels can be used." in done.err
        assert "2 of 2 files without labels can be used." in done.err
        assert "The teacher runs once on 2 random views of 13 training clips" in done.err
        folder = tmp_path / "run"
        assert read_card(folder / "best.safetensors").labels == ("clap", *LABELS)
        rows = read_metrics(folder / "metrics.csv")
        assert rows[-1]["train/kl"] < rows[0]["train/kl"] / 2
        assert "3 clips and 2 images without labels" in (folder / "README.md").read_text()
        answer = run("classify", divided_clips.parent / "jump" / "0.mp4", "--model", folder, "--json")
        assert json.loads(answer.out)["model"] == "run"

    def test_without_labels_some_clips_are_held_out(
        self, train: Run, teacher: Path, unlabelled: Path, tmp_path: Path
    ) -> None:
        done = train("--teacher", teacher, "--unlabelled", unlabelled, "--set", "augmentation.mixup=0.2")
        assert done.status == 0, done.err
        columns = next(csv.reader((tmp_path / "run" / "metrics.csv").open()))
        assert "validation/kl" in columns
        assert "validation/top1" not in columns
        readme = (tmp_path / "run" / "README.md").read_text()
        assert "2 clips and 0 images without labels; 1 more were in the validation set." in readme

    def test_a_run_that_has_not_all_its_clips_yet_is_none(
        self, train: Run, run: Run, divided_clips, teacher: Path, unlabelled, stills, monkeypatch, tmp_path: Path
    ) -> None:
        def cut_off(*_: object) -> None:
            raise KeyboardInterrupt

        command = ("--teacher", teacher, "--unlabelled", unlabelled, "--stills", stills)
        monkeypatch.setattr(RunFolder, "_write_config", cut_off)
        train(*command)
        assert {path.name for path in (tmp_path / "run").iterdir()} >= {"unlabelled.csv", "stills.json"}
        monkeypatch.undo()
        assert "holds no run" in run("train", "--output", tmp_path / "run", "--resume").err
        assert "was left by a run that was interrupted at its start" in train("--teacher", teacher, divided_clips).err
        monkeypatch.setattr(sys, "argv", [])
        assert train(*command).status == 0

    def test_without_room_for_all_answers_it_is_asked_again(
        self, train: Run, divided_clips: Path, teacher: Path, tmp_path: Path
    ) -> None:
        """An answer takes 1024 cells x 64 channels x 2 bytes, a view 4 x 32 x 32 x 3 x 4; there are 12 of both."""
        rows = []
        for gib, kept in ((0.001, False), (0.002, True)):
            done = train(
                divided_clips, "--teacher", teacher, "--set", "teacher_views=1", "--set", f"cache_gib={gib}",
                "--set", "distillation.features_weight=1", "--set", "distillation.layers=[[stem, layer4]]",
            )  # fmt: skip
            assert done.status == 0, done.err
            assert ("its outputs and the student's views are cached" in done.err) == kept
            rows.append(read_metrics(tmp_path / "run" / "metrics.csv")[0])
            shutil.rmtree(tmp_path / "run")
        assert rows[0] == pytest.approx(rows[1], rel=1e-3)

    def test_mixed_with_clips_that_have_labels(
        self, train: Run, divided_clips: Path, teacher: Path, unlabelled: Path
    ) -> None:
        done = train(divided_clips, "--teacher", teacher, "--unlabelled", unlabelled, "--set", "augmentation.cutmix=1")
        assert done.status == 0, done.err

    def test_a_second_head_serves_training_only(
        self, train: Run, divided_clips: Path, teacher: Path, tmp_path: Path
    ) -> None:
        manifest = read_manifest(divided_clips)
        rows = tuple(replace(row, label={"jump": "hop", "wave": "greet"}[row.label]) for row in manifest.rows)
        write_manifest(tmp_path / "own.csv", replace(manifest, rows=rows))
        refused = train(tmp_path / "own.csv", "--teacher", teacher)
        assert refused.status == 2
        assert "Clips have the class 'greet', 'hop', which the teacher does not have" in refused.err
        assert "distillation.second_head=true" in refused.err
        assert not (tmp_path / "run").exists()
        done = train(tmp_path / "own.csv", "--teacher", teacher, "--set", "distillation.second_head=true")
        assert done.status == 0, done.err
        network, card = load_checkpoint(tmp_path / "run" / "best.safetensors")
        assert card.labels == ("greet", "hop")
        assert set(network.state_dict()) == set(load_file(tmp_path / "run" / "last.safetensors"))
