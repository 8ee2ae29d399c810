"""`nlv.search` on real videos: tables, folders that change, examples in the archive and outside, filters, refusals."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from feature_tables import write_table

import nonlocal_video as nlv
from nonlocal_video.errors import UsageError, VideoError
from nonlocal_video.features.extract import FeatureRun, extract_features
from nonlocal_video.features.table import read_features
from nonlocal_video.retrieval.archive import open_archive
from nonlocal_video.retrieval.folder_index import IndexCallback
from nonlocal_video.video.encode import write_video


def write_clip(path: Path, brightness: list[int], colour: tuple[float, float, float] = (1, 1, 1)) -> Path:
    """A second at 10 frames for each number; moving stripes, so that the network sees something."""
    rows = np.arange(48)[:, None, None]
    frames = []
    for second, value in enumerate(brightness):
        for frame in range(10):
            stripes = ((rows + 3 * frame + second) // 6 % 2) * 0.5 + 0.5
            frames.append(np.broadcast_to(stripes * value * np.array(colour), (48, 64, 3)).astype(np.uint8))
    write_video(path, frames, fps=10)
    return path


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    (folder / "sub").mkdir()
    write_clip(folder / "dark.mp4", [20, 20, 20])
    write_clip(folder / "sub" / "bright.mp4", [240, 240, 240])
    write_clip(folder / "both.mp4", [20, 20, 20, 240, 240, 240])
    write_clip(folder / "red.mp4", [200, 200], (1, 0.1, 0.1))
    (folder / "broken.mp4").write_text("not a video\n" * 50, "utf-8")
    return folder


@pytest.fixture(scope="module")
def table(archive: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "t.parquet"
    with nlv.load(tiny_model, device="cpu") as recognizer:
        extract_features(recognizer, archive, output=path)
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("NONLOCAL_VIDEO_CACHE", str(folder))
    return folder


def no_network(*_: object, **__: object) -> None:
    raise AssertionError("the network was loaded")


def test_a_moment_finds_the_others_like_it_and_not_itself(
    table: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nonlocal_video.retrieval.api.load", no_network)  # the example is in the table
    found = nlv.search(table, like=archive / "both.mp4", at=5.2, top_k=3)
    assert found[0].path == str(archive / "sub" / "bright.mp4")
    own = [hit for hit in found if hit.path == str(archive / "both.mp4")]
    example = found.query["like"][0]
    assert example["start_seconds"] <= 5.2 <= example["end_seconds"]
    assert all(
        hit.end_seconds <= example["start_seconds"] or hit.start_seconds >= example["end_seconds"] for hit in own
    )
    assert [hit.rank for hit in found] == [1, 2, 3]
    assert list(found.query)[:2] == ["like", "unlike"]
    scores = [hit.score for hit in found]
    assert scores == sorted(scores, reverse=True)
    assert found.query["num_errors"] == 1
    assert "1 files could not be read" in found.notes[0]


@pytest.mark.slow
def test_a_clip_outside_of_the_archive_is_seen_as_the_archive_was(
    table: Path, archive: Path, tiny_model: Path, tmp_path: Path
) -> None:
    copy = shutil.copy(archive / "dark.mp4", tmp_path / "elsewhere.mp4")
    known = nlv.search(table, like=archive / "dark.mp4", top_k=9)
    new = nlv.search(table, like=copy, model=tiny_model, device="cpu", top_k=9)
    assert (new[0].path, new[0].score) == (str(archive / "dark.mp4"), pytest.approx(1, abs=1e-3))
    others = [hit for hit in new if hit.path != str(archive / "dark.mp4")]
    assert [(hit.path, hit.start_seconds, hit.end_seconds) for hit in others][: len(known)] == [
        (hit.path, hit.start_seconds, hit.end_seconds) for hit in known
    ]
    np.testing.assert_allclose([hit.score for hit in others][: len(known)], [hit.score for hit in known], atol=2e-3)
    at = nlv.search(table, like=copy, at=1.0, model=tiny_model, device="cpu")
    assert at.query["like"][0]["start_seconds"] == pytest.approx(0.6)
    assert at.query["like"][0]["end_seconds"] == pytest.approx(1.4)
    late = nlv.search(table, like=copy, at=3.0, model=tiny_model, device="cpu")  # the window that ends with the clip
    assert late.query["like"][0]["end_seconds"] == pytest.approx(3.0)
    # The same pictures 0.7 s later on the player's clock.
    delayed = tmp_path / "delayed.mkv"
    subprocess.run(["ffmpeg", "-v", "error", "-itsoffset", "0.7", "-i", copy, "-c", "copy", delayed], check=True)
    for second, expected in ((1.0, at), (3.0, late)):
        found = nlv.search(table, like=delayed, at=second + 0.7, model=tiny_model, device="cpu")
        for name in ("start_seconds", "end_seconds"):
            assert found.query["like"][0][name] == pytest.approx(expected.query["like"][0][name] + 0.7, abs=2e-3)
        np.testing.assert_allclose([hit.score for hit in found], [hit.score for hit in expected], atol=2e-3)


def test_parts_and_negative_examples(table: Path, archive: Path) -> None:
    both = f"{archive / 'both.mp4'}#t=3.2,6"
    assert nlv.search(table, like=both)[0].path == str(archive / "sub" / "bright.mp4")
    span = nlv.search(table, like=archive / "both.mp4", start_seconds=3.2, end_seconds=6)
    assert span.to_json()["hits"] == nlv.search(table, like=both).to_json()["hits"]
    example = nlv.SearchExample(archive / "both.mp4", at=4.5)
    plain = {hit.path: hit.score for hit in reversed(nlv.search(table, like=example))}
    against = nlv.search(table, like=[example], unlike=archive / "red.mp4")
    assert str(archive / "red.mp4") not in [hit.path for hit in against]
    assert str(archive / "red.mp4") in plain


def test_filters(table: Path, archive: Path, tiny_model: Path) -> None:
    like = archive / "both.mp4"
    everything = nlv.search(table, like=like, at=0.5)
    assert {hit.path for hit in nlv.search(table, like=like, at=0.5, include=["*bright*"])} == {
        str(archive / "sub" / "bright.mp4")
    }
    without = nlv.search(table, like=like, at=0.5, exclude=["*/sub/*"])
    assert {os.path.basename(hit.path) for hit in without} == {"dark.mp4", "both.mp4", "red.mp4"}
    least = everything[1].score
    assert [hit.score for hit in nlv.search(table, like=like, at=0.5, min_score=least)] == [
        hit.score for hit in everything if hit.score >= least
    ]
    with nlv.load(tiny_model, device="cpu") as recognizer:
        labels = {}
        for name in ("dark.mp4", "sub/bright.mp4", "red.mp4"):
            path = str(archive / name)
            logits = recognizer.features(path).logits
            labels[path] = {recognizer.labels[index] for index in logits.argmax(axis=1)}
    wanted = sorted(labels[str(archive / "red.mp4")])
    of_label = nlv.search(table, like=like, at=0.5, labels=wanted, model=tiny_model, device="cpu")
    known = {hit.path for hit in of_label} & labels.keys()
    assert known == {path for path, own in labels.items() if own & set(wanted)}
    with pytest.raises(UsageError, match="not a class"):
        nlv.search(table, like=like, labels=["juggling"], model=tiny_model, device="cpu")


def test_the_refined_ranking_is_that_of_the_operation_written_out(table: Path, archive: Path) -> None:
    read = read_features(table)
    roots = np.sqrt(np.abs(read.features.astype(float))) * np.sign(read.features)
    rows = roots - len(roots) / (len(roots) + 8) * roots.mean(axis=0)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    query = next(
        number for number, path in enumerate(read.paths) if path.endswith("both.mp4") and read.ends[number] == 6
    )
    left_out = [path.endswith("both.mp4") and read.ends[n] > read.starts[query] for n, path in enumerate(read.paths)]
    keys = rows[~np.array(left_out)]
    scale = max(5.0, np.log(len(keys)))

    def mean(row: np.ndarray, among: np.ndarray) -> np.ndarray:
        weights = np.exp(scale * among @ row)
        total = (weights[:, None] * among).sum(axis=0)
        return np.asarray(total / np.linalg.norm(total))

    wanted = mean(rows[query], np.concatenate([rows[query][None], keys]))
    expected = sorted((float(mean(row, keys) @ wanted) for row in keys), reverse=True)
    hits = nlv.search(table, like=archive / "both.mp4", at=5.9, refine=True)
    assert hits[0].score == pytest.approx(expected[0], abs=2e-3)
    assert hits.query["refined"] is True
    assert all(any(abs(hit.score - value) < 2e-3 for value in expected) for hit in hits)


class Told(IndexCallback):
    """Keeps what is told."""

    def __init__(self) -> None:
        self.read: list[str] = []
        self.runs: list[FeatureRun] = []

    def on_progress(self, progress: object) -> None:
        self.read.append(os.path.basename(progress.path))  # type: ignore[attr-defined]

    def on_done(self, table: Path, run: FeatureRun) -> None:
        self.runs.append(run)


@pytest.mark.slow
def test_a_folder_is_brought_up_to_date(
    archive: Path, tiny_model: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(archive, tmp_path / "my clips"))
    how = {"model": tiny_model, "device": "cpu", "at": 0.5}
    told = Told()
    first = nlv.search(folder, like=folder / "both.mp4", callback=told, **how)
    assert sorted(told.read) == ["both.mp4", "bright.mp4", "broken.mp4", "dark.mp4", "red.mp4"]
    assert first[0].path == str(folder / "dark.mp4")
    (kept,) = (cache / "search").glob("my clips-*.parquet")

    told = Told()
    monkeypatch.chdir(tmp_path)
    again = nlv.search("my clips", like="my clips/both.mp4", callback=told, **how)
    assert told.read == []  # another name of the folder, and nothing to do
    assert [hit.path for hit in again] == [os.path.relpath(hit.path, tmp_path) for hit in first]
    assert [hit.score for hit in again] == [hit.score for hit in first]
    assert list((cache / "search").glob("*.parquet")) == [kept]

    (folder / "dark.mp4").unlink()
    write_clip(folder / "new.mp4", [22, 22, 22])
    write_clip(folder / "red.mp4", [20, 20], (1, 0.9, 1))
    told = Told()
    changed = nlv.search("my clips", like="my clips/both.mp4", callback=told, **how)
    assert sorted(told.read) == ["new.mp4", "red.mp4"]
    assert told.runs[0].num_dropped == 1
    assert {hit.path for hit in changed} >= {"my clips/new.mp4", "my clips/red.mp4"}
    assert "my clips/dark.mp4" not in {hit.path for hit in changed}


@pytest.mark.slow
def test_an_index_of_ones_own(archive: Path, table: Path, tiny_model: Path, tmp_path: Path) -> None:
    how = {"like": archive / "dark.mp4", "model": tiny_model, "device": "cpu"}
    index = tmp_path / "mine.parquet"
    found = nlv.search(archive, index=index, **how)
    assert found.to_json()["hits"] == nlv.search(index, like=archive / "dark.mp4").to_json()["hits"]
    other = tmp_path / "other"
    other.mkdir()
    write_clip(other / "a.mp4", [100])
    before = index.read_bytes()
    with pytest.raises(UsageError, match="not of this folder"):
        nlv.search(other, index=index, **how)
    assert index.read_bytes() == before


def test_an_opened_table_is_searched_without_opening_it_again(
    table: Path, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copy(table, tmp_path))
    opened = open_archive(copy)
    expected = nlv.search(copy, like=archive / "dark.mp4").to_json()
    monkeypatch.setattr("nonlocal_video.retrieval.api.open_archive", no_network)
    found = nlv.search(opened, like=archive / "dark.mp4")
    assert found.to_json() == expected
    assert found.query["source"] == str(copy)
    with pytest.raises(UsageError, match=r"fast: only for a folder"):
        nlv.search(opened, like=archive / "dark.mp4", fast=True)


def test_what_cannot_be_searched_is_refused(table: Path, archive: Path, tiny_model: Path, tmp_path: Path) -> None:
    like = archive / "dark.mp4"
    for wrong, message in (
        ({"top_k": 0}, "top_k"),
        ({"like": []}, "at least one"),
        ({"at": 1.0, "start_seconds": 0.5}, "not both"),
        ({"at": 99.0}, "not in the archive"),
        ({"at": -1.0}, "from 0 on"),
        ({"like": [like, like], "at": 1.0}, "belongs to one clip"),
        ({"like": f"{like}#t=0,1", "at": 1.0}, "its own start and end"),
        ({"start_seconds": 2.0, "end_seconds": 1.0}, "greater"),
        ({"index": tmp_path / "i.parquet"}, "only for a folder"),
        ({"min_score": float("nan")}, "min_score"),
    ):
        with pytest.raises(UsageError, match=message):
            nlv.search(table, **({"like": like} | wrong))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no video"):
        nlv.search(tmp_path / "empty", like=like, index=tmp_path / "e.parquet", model=tiny_model, device="cpu")
    with pytest.raises(VideoError, match="nowhere"):
        nlv.search(table, like=tmp_path / "nowhere.mp4", model=tiny_model, device="cpu")
    with pytest.raises(UsageError, match="beyond the end"):
        nlv.search(table, like=shutil.copy(like, tmp_path / "c.mp4"), at=9.0, model=tiny_model, device="cpu")


def test_another_network_is_refused(table: Path, archive: Path, tmp_path: Path, tiny_model: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    with safe_open(tiny_model, "pt") as file:
        notes = file.metadata()
    weights = load_file(tiny_model)
    weights[next(name for name in weights if weights[name].is_floating_point())] += 0.01
    save_file(weights, tmp_path / "tiny.safetensors", metadata=notes)
    copy = shutil.copy(archive / "dark.mp4", tmp_path / "c.mp4")
    with pytest.raises(UsageError, match="made with other weights of 'tiny'"):
        nlv.search(table, like=copy, model=tmp_path / "tiny.safetensors", device="cpu")
    mute = write_table(tmp_path / "mute.parquet", [("a.mp4", [0.0], np.ones((1, 4)))])
    with pytest.raises(UsageError, match="does not say how"):
        nlv.search(mute, like=copy, model=tiny_model, device="cpu")
