"""`nonlocal-video check` as a user meets it, on a folder in which everything is wrong that can be."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from nonlocal_video.cli.main import app
from nonlocal_video.datasets.check import check_clips
from nonlocal_video.datasets.labelled import read_labelled
from nonlocal_video.datasets.manifest import Manifest, read_manifest, write_manifest
from nonlocal_video.video.decode import VideoReader

Run = Callable[..., Any]  # the fixture `run`
GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "training_data.md").read_text("utf-8")


@pytest.fixture
def run(run: Run, tiny_model: Path) -> Run:
    """`check` with a model whose view takes 0.8 s."""
    return lambda *arguments: run("check", *arguments, "--model", tiny_model)


def of_folder(folder: Path, *names: str) -> list[str]:
    return [str(folder / name) for name in names]


def test_everything_that_is_wrong_is_named(run: Run, bad_clips: Path, tmp_path: Path) -> None:
    output = tmp_path / "manifest.csv"
    done = run(bad_clips, "--output", output, "--workers", 2, "--validation-share", 0.5, "--json")
    assert done.status == 1
    found: dict[str, Any] = json.loads(done.out)
    assert (found["clips"], found["usable"]) == (11, 8)
    problems = {row["path"]: row["problem"] for row in found["unusable"]}
    assert list(problems) == of_folder(bad_clips, "jump/note.mp4", "swipe left/odd.mkv", "wave/1.mp4")
    assert problems[str(bad_clips / "jump/note.mp4")].startswith("not_a_video: note.mp4")
    assert "labelled 'swipe left', with the same content as" in problems[str(bad_clips / "swipe left/odd.mkv")]
    assert "odd.mkv' ('swipe left')" in problems[str(bad_clips / "wave/1.mp4")]
    same = {tuple(one["paths"]): (one["by"], one["labels"]) for one in found["same_content"]}
    assert same == {
        tuple(of_folder(bad_clips, "jump/0.mp4", "jump/remuxed.mkv")): ("pictures", ["jump"]),
        tuple(of_folder(bad_clips, "swipe left/odd.mkv", "wave/1.mp4")): ("pictures", ["swipe left", "wave"]),
        tuple(of_folder(bad_clips, "wave/0.mp4", "wave/copy.mp4")): ("bytes", ["wave"]),
    }
    assert found["shorter_than_a_view"] == of_folder(bad_clips, "swipe left/short.mp4")
    assert [(row["label"], row["clips"], row["unusable"]) for row in found["classes"]] == [
        ("jump", 3, 1), ("swipe left", 3, 1), ("wave", 2, 1),
    ]  # fmt: skip
    assert found["frames_decoded"] == 9 * 4 + 3

    manifest = read_manifest(output)
    assert len(manifest.rows) == 11
    assert {row.path: row.problem for row in manifest.rows if not row.usable} == problems
    splits = {row.path: row.split for row in manifest.rows}
    assert splits[str(bad_clips / "jump/0.mp4")] == splits[str(bad_clips / "jump/remuxed.mkv")]
    # The other two clips of `wave` have one content: nothing is left of the class for validation.
    assert splits[str(bad_clips / "wave/0.mp4")] == splits[str(bad_clips / "wave/copy.mp4")] == "train"
    assert found["notes"] == ["Class 'wave' has 2 clips of 1 independent group: none in validation."]


def test_the_text_says_the_same(run: Run, bad_clips: Path) -> None:
    done = run(bad_clips)
    assert done.status == 1
    for said in (
        "11 clips, 8 usable",
        "up to 4 frames of each",
        "The classes are fairly equal: 2 ('wave') to 3 ('jump') clips a class.",
        f"unusable: {bad_clips}/jump/note.mp4: not_a_video",
        "contradiction: labelled 'wave'",
        f"same bytes: {bad_clips}/wave/0.mp4, {bad_clips}/wave/copy.mp4; each is used",
        f"same pictures: {bad_clips}/jump/0.mp4",
        "1 clip is shorter than the model's view (8 frames, 0.80 s)",
        "Split with seed 0: 20% for validation",
    ):
        assert said in done.out


def test_good_clips_are_status_0_and_given_splits_stay(run: Run, good_clips: Path, tmp_path: Path) -> None:
    rows = [(clip.path, clip.label) for clip in read_labelled(good_clips)]
    table = tmp_path / "clips.csv"
    splits = ("train", "test") * 3
    lines = [f"{path},{label},{split}\n" for (path, label), split in zip(rows, splits, strict=True)]
    table.write_text("path,label,split\n" + "".join(lines))
    done = run(table, "--output", tmp_path / "manifest.jsonl")
    assert done.status == 0
    assert "6 clips have a split in the list of clips; it is kept." in done.out
    assert [row.split for row in read_manifest(tmp_path / "manifest.jsonl").rows] == list(splits)
    refused = run(table, "--folds", 2)
    assert refused.status == 2
    assert "has a split already" in refused.err


def test_content_and_groups_on_both_sides_of_given_splits_are_named(run: Run, good_clips: Path, tmp_path: Path) -> None:
    shutil.copy(good_clips / "wave/0.mp4", tmp_path / "again.mp4")
    clips = [(good_clips / "wave/0.mp4", "ann", "train"), (tmp_path / "again.mp4", "ben", "test")]
    clips += [(good_clips / "wave/1.mp4", "ann", "test")]
    table = tmp_path / "clips.csv"
    table.write_text("path,label,group,split\n" + "".join(f"{p},wave,{group},{split}\n" for p, group, split in clips))
    done = run(table)
    assert done.status == 1
    assert "again.mp4; in test and train: keep them in one split" in done.out
    assert "group 'ann' is in test and train" in done.out


def test_clips_that_cannot_be_divided_are_still_reported(run: Run, good_clips: Path, tmp_path: Path) -> None:
    for name in ("jump", "wave"):
        (tmp_path / "clips" / name).mkdir(parents=True)
        shutil.copy(good_clips / name / "0.mp4", tmp_path / "clips" / name)
    done = run(tmp_path / "clips", "--output", tmp_path / "manifest.csv")
    assert done.status == 0
    assert "All 2 classes have equally many clips: 1." in done.out
    assert "not split: Every independent group is the only one of some class" in done.out
    assert [row.split for row in read_manifest(tmp_path / "manifest.csv").rows] == [None, None]
    assert run(tmp_path / "clips", "--folds", 3).status == 1


def test_every_frame_is_decoded_where_that_is_asked(good_clips: Path) -> None:
    (whole,) = check_clips(read_labelled(good_clips)[:1], [VideoReader()], every_frame=True)
    (some,) = check_clips(read_labelled(good_clips)[:1], [VideoReader()])
    assert (whole.num_decoded, some.num_decoded) == (20, 4)
    assert whole.thumbnails is not None
    assert some.thumbnails is not None
    assert (whole.thumbnails == some.thumbnails).all()


def test_a_file_that_is_cut_off_is_used_and_that_is_said(run: Run, good_clips: Path, tmp_path: Path) -> None:
    shutil.copytree(good_clips / "wave", tmp_path / "clips" / "wave")
    path = tmp_path / "clips" / "wave" / "0.mp4"
    path.write_bytes(path.read_bytes()[:-8000])
    done = run(tmp_path / "clips")
    assert done.status == 0
    assert re.search(rf"note: {path}: The file is cut off: \d+ of 20 frames are present", done.out)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--output", "manifest.txt"), "a .csv or a .jsonl file"),
        (("--output", "nowhere/manifest.csv"), "in a folder that does not exist; create it first"),
        (("--folds", "1"), "folds = 1 should be at least 2"),
        (("--validation-share", "0.9"), "from 0.05 to 0.5"),
        (("--folds", "3", "--validation-share", "0.2"), "Give either a validation share or a number of folds"),
        (("--limit", "frames=3"), "NAME=VALUE"),
    ],
)
def test_wrong_usage_is_status_2_before_anything_is_read(run: Run, options, message, good_clips: Path) -> None:
    done = run(good_clips, *options)
    assert (done.status, done.out) == (2, "")
    assert message in done.err


def test_the_list_of_clips_is_not_overwritten(run: Run, tmp_path: Path) -> None:
    clips = tmp_path / "clips.csv"
    clips.write_text("path,label\nbad.mp4,wave\n")
    done = run(clips, "--output", f"{tmp_path}/../{tmp_path.name}/clips.csv")
    assert done.status == 2
    assert "is the list of clips itself; give another file" in done.err
    assert clips.read_text() == "path,label\nbad.mp4,wave\n"


@pytest.mark.slow
def test_stray_files_are_counted_and_spoil_nothing(run: Run, good_clips: Path, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    shutil.copytree(good_clips, clips)
    for name in ("README.md", "labels.json", ".DS_Store", "jump/._0.mp4", "jump/0.srt", "wave/Thumbs.db"):
        (clips / name).write_text("x")
    (clips / "list.csv").write_text("path,label\n")
    (clips / "empty").mkdir()
    done = run(clips, "--json")
    assert done.status == 0
    found = json.loads(done.out)
    assert (found["clips"], found["usable"]) == (6, 6)
    assert found["passed_over"] == {"hidden": 2, "tables and data": 2, "subtitles": 1, "system files": 1, "text": 1}
    assert "Passed over in folders: 2 hidden, 2 tables and data, 1 subtitles" in done.err
    assert "list.csv' was not read" in done.err
    assert any("Class 'empty' has no clip" in note for note in found["notes"])
    refused = run(clips, "--all-files")
    assert refused.status == 2
    assert ".DS_Store' is in no class folder" in refused.err
    for name in ("README.md", "labels.json", ".DS_Store", "list.csv"):
        (clips / name).unlink()
    assert json.loads(run(clips, "--all-files", "--json").out)["clips"] == 9


def test_split_folders_become_the_manifests_splits(run: Run, good_clips: Path, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    for number, split in enumerate(("train", "Val")):
        for name in ("jump", "wave"):
            (clips / split / name).mkdir(parents=True)
            shutil.copy(good_clips / name / f"{number}.mp4", clips / split / name)
    (clips / "test" / "jump").mkdir(parents=True)
    shutil.copy(good_clips / "swipe left" / "0.mp4", clips / "test" / "jump")
    manifest = tmp_path / "manifest.csv"
    done = run(clips, "--output", manifest)
    assert done.status == 0
    assert "train (2 clips, for training), validation (2 clips, for validation), test (1 clips, held out)" in done.err
    train, validation = read_manifest(manifest).train_val_split()
    assert {Path(row.path).relative_to(clips).parts[0] for row in train} == {"train"}
    assert {Path(row.path).relative_to(clips).parts[0] for row in validation} == {"Val"}
    assert read_manifest(manifest).labels == ("jump", "wave")
    assert len(read_manifest(manifest).of_split("test")) == 1
    shutil.rmtree(clips / "Val")
    shutil.copy(good_clips / "jump" / "1.mp4", clips / "train" / "jump")
    shutil.copy(good_clips / "wave" / "1.mp4", clips / "train" / "wave")
    manifest.unlink()
    done = run(clips, "--output", manifest, "--validation-share", 0.5)
    assert done.status == 0
    assert "a part of the training clips is held out for validation" in done.err
    _, held_out = read_manifest(manifest).train_val_split()
    assert {Path(row.path).relative_to(clips).parts[0] for row in held_out} == {"train"}
    assert len(held_out) == 2


def test_frames_and_strange_columns_are_wrong_usage(run: Run, good_clips: Path, tmp_path: Path) -> None:
    frames = tmp_path / "frames" / "jump" / "clip_0001"
    frames.mkdir(parents=True)
    for number in range(3):
        (frames / f"img_{number:05}.jpg").write_bytes(b"x")
    done = run(tmp_path / "frames")
    assert (done.status, done.out) == (2, "")
    assert "Class 'jump' has images and no clip" in done.err
    assert f"-i '{frames}/*.jpg'" in done.err
    table = tmp_path / "clips.csv"
    table.write_text(f"path,label,comment\n{good_clips}/jump/0.mp4,jump,x\n{good_clips}/wave/0.mp4,wave,\n")
    refused = run(table)
    assert refused.status == 2
    assert "not known: comment. Known are path, label, group, split." in refused.err
    assert run(table, "--ignore-column", "comment").status == 0


def test_rows_without_a_split_are_named(run: Run, good_clips: Path, tmp_path: Path) -> None:
    clips = read_labelled(good_clips)
    table = tmp_path / "clips.csv"
    lines = [f"{clip.path},{clip.label},{'train' if number else ''}\n" for number, clip in enumerate(clips)]
    table.write_text("path,label,split\n" + "".join(lines))
    done = run(table, "--json")
    (note,) = [note for note in json.loads(done.out)["notes"] if "no split" in note]
    assert "1 of 6 rows" in note
    assert "(line 2)" in note
    assert note in done.err


def test_the_guides_commands_are_understood() -> None:
    commands = [shlex.split(line)[2:] for line in re.findall(r"^nonlocal-video check .*$", GUIDE, re.MULTILINE)]
    assert len(commands) == 3
    verb = typer.main.get_group(app).commands["check"]
    for arguments in commands:
        assert verb.make_context("check", list(arguments)).params["source"] == arguments[0]


def test_the_guides_python_runs(manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_manifest("manifest.csv", manifest)
    names: dict[str, Any] = {}
    exec(re.search(r"```python\n(.*?)```", GUIDE, re.DOTALL)[1], names)
    assert names["clip"].shape == (3, 16, 112, 112)
    assert names["label"] == manifest.labels.index(names["train"][0].label)
    names["dataset"].close()
