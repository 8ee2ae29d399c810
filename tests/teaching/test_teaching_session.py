"""Teaching step by step teaches what `teach` does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nonlocal_video.errors import UsageError
from nonlocal_video.inference.load import load
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.teaching import lessons
from nonlocal_video.teaching.api import TaughtRun
from nonlocal_video.teaching.session import TeachingSession


@pytest.fixture(scope="module")
def recognizer(tiny_model: Path) -> Iterator[Recognizer]:
    with load(tiny_model, device="cpu") as recognizer:
        yield recognizer


@pytest.mark.slow
def test_examples_one_by_one_teach_what_the_folder_teaches(
    recognizer: Recognizer, examples: Path, run: TaughtRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    extract = lessons.extract_features

    def counted(*arguments: object, **options: object) -> object:
        result = extract(*arguments, **options)
        seen.append(f"{result.counts.total()} new of {result.counts.total() + result.done_before.total()}")
        return result

    monkeypatch.setattr(lessons, "extract_features", counted)
    with TeachingSession(recognizer, tmp_path / "mine") as session:
        assert session.learn() is None
        session.add(examples / "red" / "0.mp4", "red")
        assert session.learn() is None, "one class"
        with pytest.raises(UsageError, match="Nothing was learnt yet"):
            session.classify(examples / "red" / "1.mp4")
        session.add(examples / "red" / "1.mp4", "wrong")
        report = session.learn()
        assert report is not None
        assert (report.accuracy, report.num_examples) == (None, 2)
        session.remove(examples / "red" / "1.mp4")
        for clip in sorted(examples.rglob("*.mp4")):
            session.add(clip, clip.parent.name)
        report = session.learn()
        assert seen == ["1 new of 1", "1 new of 2", "10 new of 12"], "what was seen is not seen again"
        assert report is not None
        assert report.accuracy == run.report.accuracy
        assert report.counts == run.report.counts
        answers = [session.classify(clip) for clip in sorted(examples.rglob("0.mp4"))]
        saved = session.save()
    assert [answer.top1.label for answer in answers] == ["blue", "green", "red"]
    # What it answers is what its own run and the folder's run answer.
    for path in (saved, run):
        with load(path, device="cpu") as taught:
            assert taught.labels == session.labels == ("blue", "green", "red")
            for clip, answer in zip(sorted(examples.rglob("0.mp4")), answers, strict=True):
                expected = taught.classify(clip)
                np.testing.assert_allclose(answer.scores, expected.scores, atol=1e-4)
                assert answer.unknown == expected.unknown
    assert (saved.path / "examples.csv").read_text().count("\n") == 13


def test_what_cannot_be_read_is_said_and_the_rest_is_learnt(
    recognizer: Recognizer, examples: Path, tmp_path: Path
) -> None:
    (tmp_path / "note.mp4").write_text("no video")
    with TeachingSession(recognizer, tmp_path / "mine", fast=True) as session:
        for label in ("red", "blue"):
            session.add(examples / label / "0.mp4", f"  {label} ")
        session.add(tmp_path / "note.mp4", "red")
        session.add(examples / "green" / "0.mp4", "none of these")
        report = session.learn()
        assert report is not None
        assert [path for path, _ in report.unreadable] == [str(tmp_path / "note.mp4")]
        assert (report.num_none, session.labels) == (1, ("blue", "red"))
        with pytest.raises(UsageError, match="label is empty"):
            session.add(tmp_path / "note.mp4", "  ")
    with pytest.raises(UsageError, match="holds a run already"):
        TeachingSession(recognizer, tmp_path / "mine")
