"""An outcome for every file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import nonlocal_video as nlv
from nonlocal_video.inference.folder import classify_files
from nonlocal_video.inference.prediction import Failure, Prediction
from nonlocal_video.inference.preprocessing import LoadedClip
from nonlocal_video.inference.request import ClipRequest


@pytest.fixture(scope="module")
def recognizer(tiny_model: Path) -> Iterator[nlv.Recognizer]:
    with nlv.load(tiny_model, device="cpu", runtime="torch") as loaded:
        yield loaded


@pytest.mark.parametrize(("workers", "batch_size"), [(1, 1), (2, 1), (1, 3), (3, 2)])
@pytest.mark.slow
def test_outcomes_keep_the_order_and_the_scores(recognizer, clip_folder, workers, batch_size) -> None:
    files = [str(clip_folder / name) for name in ("a.mp4", "b/note.mp4", "b/c.mp4", "gone.mp4", "z with space.mp4")]
    outcomes = list(classify_files(recognizer, files, ClipRequest(), workers=workers, batch_size=batch_size))
    assert [outcome.path for outcome in outcomes] == files
    assert [o.error.code if isinstance(o, Failure) else "ok" for o in outcomes] == [
        "ok", "not_a_video", "ok", "not_found", "ok",
    ]  # fmt: skip
    for outcome in outcomes:
        if isinstance(outcome, Prediction):
            np.testing.assert_allclose(outcome.scores, recognizer.classify(outcome.path).scores, atol=1e-6)


def test_an_endless_list_of_files_is_read_only_a_little_ahead(recognizer, clip_folder) -> None:
    taken = 0

    def endless() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield str(clip_folder / "z with space.mp4")

    outcomes = classify_files(recognizer, endless(), ClipRequest(), workers=2)
    assert isinstance(next(outcomes), Prediction)
    outcomes.close()
    assert taken <= 5


def test_one_clip_that_breaks_the_network_does_not_take_its_batch_along(recognizer, clip_folder, monkeypatch) -> None:
    predict = recognizer.predict

    def fragile(clips: list[LoadedClip], **options: int) -> list[Prediction]:
        if any(Path(clip.path).name == "c.mp4" for clip in clips):
            raise nlv.ModelError("not finite")
        return predict(clips, **options)

    monkeypatch.setattr(recognizer, "predict", fragile)
    files = [str(clip_folder / name) for name in ("a.mp4", "b/c.mp4", "z with space.mp4")]
    outcomes = list(classify_files(recognizer, files, ClipRequest(), batch_size=3))
    assert [type(outcome).__name__ for outcome in outcomes] == ["Prediction", "Failure", "Prediction"]
    assert outcomes[1].error.code == "internal"
    assert outcomes[1].error.message == "not finite"


def test_out_of_memory_halves_the_batch(recognizer, clip_folder, monkeypatch) -> None:
    import torch

    files = [str(clip_folder / "a.mp4")] * 4
    list(classify_files(recognizer, files, ClipRequest(), batch_size=4))  # its shapes are known from here on
    sizes = []
    forward = recognizer._engine.folded.forward

    def small(x: torch.Tensor) -> torch.Tensor:
        sizes.append(len(x))
        if len(x) > 2:
            raise torch.OutOfMemoryError("too much")
        return forward(x)

    monkeypatch.setattr(recognizer._engine.folded, "forward", small)
    outcomes = list(classify_files(recognizer, files, ClipRequest(), batch_size=4))
    assert all(isinstance(outcome, Prediction) for outcome in outcomes)
    assert sizes == [4, 2, 2]


@pytest.mark.parametrize("name", ["workers", "batch_size"])
def test_less_than_one_is_refused(recognizer, name: str) -> None:
    with pytest.raises(nlv.UsageError, match="at least 1"):
        next(classify_files(recognizer, [], ClipRequest(), **{name: 0}))
