"""What the page answers with a video classifier of transformers, without a page."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "zoo"))
from transformers_folders import LABELS, small_folder

from nonlocal_video.app.ask_callbacks import AskCallbacks
from nonlocal_video.app.callbacks import Callbacks
from nonlocal_video.app.choices import overlay_choices
from nonlocal_video.attention.contact_sheet import ContactSheet
from nonlocal_video.inference.load import load
from nonlocal_video.inference.recognizer import Recognizer


@pytest.fixture(scope="module")
def videomae(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recognizer]:
    with load(small_folder(tmp_path_factory.mktemp("models") / "videomae"), device="cpu") as recognizer:
        yield recognizer


def test_it_answers_draws_overlays_and_is_asked_about_a_point(videomae: Recognizer, clip_folder: Path) -> None:
    callbacks, request = Callbacks({"videomae": videomae}), SimpleNamespace(session_hash="ann")
    assert [choice for _, choice in overlay_choices(videomae)] == ["evidence", "attention"]
    clip = str(clip_folder / "a.mp4")
    for overlay in ("evidence", "attention"):
        outcomes = callbacks.recognise(clip, "videomae", "1x1", overlay, request=request)
        assert set(next(outcomes).scores) == set(LABELS)
        assert Path(str(next(outcomes).overlay)).is_file()
        list(outcomes)
    explanation = callbacks.explanations.of("ann")
    assert explanation is not None
    block = list(explanation.block_inputs)[-1]
    left, top = ContactSheet.from_frames(explanation).corner(2)
    height, width = explanation.frame(0).shape[:2]
    event: Any = gr.SelectData(None, {"index": [left + width / 2, top + height / 2], "value": None})
    answer = AskCallbacks(callbacks.explanations).click(block, LABELS[0], event, request)
    assert answer.method == "query"
    assert "Entropy" in answer.numbers
