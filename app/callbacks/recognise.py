"""Callbacks of the tab for recognition."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import gradio as gr
import numpy as np
from numpy.typing import NDArray

from nonlocal_video.attention.maps import AttentionMaps, evenly_spaced_frames
from nonlocal_video.errors import VideoError
from nonlocal_video.inference.explanation import Explanation
from nonlocal_video.inference.prediction import Prediction
from nonlocal_video.inference.recognizer import Recognizer, Stage

from ..choices import FAST, Overlay, is_averaged, overlay_choices, standard_view, view_choices
from ..explanation_store import ExplanationStore
from ..messages import GONE, plain_errors

TOP_K = 5
STAGES: Mapping[Stage, tuple[int, str]] = {"reading": (0, "Reading the clip"), "network": (1, "Running the network")}
"""Number of finished stages at the start of each stage, and its name on the page."""
MAX_STRIP_FRAMES = 16
INVITATION = """**Choose a clip, then press Recognise.** You will see

- the five likeliest actions with their scores,
- the clip, with an overlay of where the network looked,
- the frames that it saw, with their times.

Then ask about any point of them.
"""
CANCELLED = "Cancelled. Press Recognise to begin again."


class Outcome(NamedTuple):
    """Updates of the components, in the order in which the page lists its outputs."""

    status: Any
    results: Any
    scores: Any
    overlay: Any
    strip: Any


@dataclass(frozen=True)
class Callbacks:
    """Callbacks of the tab for recognition; each visitor's last explanation is stored for questions."""

    recognizers: Mapping[str, Recognizer]
    """Recognizers by model name."""
    explanations: ExplanationStore = field(default_factory=ExplanationStore)
    """Explanations of all visitors."""

    def offer(self, model: str) -> tuple[Any, Any, str]:
        """Return the choices and the notes of a model."""
        recognizer = self.recognizers[model]
        views, overlays = view_choices(recognizer.card), overlay_choices(recognizer)
        return (
            gr.update(choices=views, value=views[0][1], info=standard_view(recognizer.card)),
            gr.update(choices=overlays, value=overlays[0][1]),
            notes_of(recognizer),
        )

    def choose(self, request: gr.Request) -> Outcome:
        """Clear the last answer when another clip is chosen."""
        self.forget(request)
        return _nothing(INVITATION)

    def cancel(self, request: gr.Request) -> Outcome:
        """Clear the partial answer of a cancelled run."""
        self.forget(request)
        return _nothing(CANCELLED)

    def forget(self, request: gr.Request) -> None:
        """Drop the stored explanation of this visitor."""
        self.explanations.drop(request.session_hash)

    def recognise(
        self,
        clip: str | None,
        model: str,
        views: str,
        overlay: Overlay,
        region: str = "",
        request: gr.Request | None = None,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - this default is how Gradio hands the bar over
    ) -> Iterator[Outcome]:
        """Yield the scores as soon as they are known, and then the overlay."""
        if clip is None:
            raise gr.Error("Choose a clip first.", print_exception=False)
        path = Path(clip)
        with plain_errors(path.parent):
            if not path.is_file():
                raise VideoError("not_found", GONE)
            recognizer = self.recognizers[model]
            stages = 4 if is_averaged(views) else 3

            def on_stage(stage: Stage) -> None:
                done, words = STAGES[stage]
                progress((done, stages), desc=words, unit="stages")

            if is_averaged(views):
                prediction = recognizer.classify(path, views=views, region=region, on_stage=on_stage)
                yield (answer := _scores(prediction))
                progress((2, stages), desc="One more look, for the overlay", unit="stages")
                explanation = recognizer.explain_all(path, region=region)
            else:
                explanation = recognizer.explain_all(path, fast=views == FAST, region=region, on_stage=on_stage)
                prediction = explanation.prediction
                yield (answer := _scores(prediction))
            progress((stages - 1, stages), desc="Drawing where it looked", unit="stages")
            explanation = replace(explanation, prediction=prediction)
            if request is not None and request.session_hash:
                self.explanations.keep(request.session_hash, explanation)
            maps = _maps(explanation, overlay)
            with TemporaryDirectory() as folder:
                # Gradio copies the file before it resumes this generator, which deletes the folder.
                video = maps.save_overlay(Path(folder) / f"{path.stem} overlay.mp4")
                # The scores again: Gradio may lose an update of a component that is just becoming visible.
                yield answer._replace(overlay=str(video), strip=_strip(maps))


def notes_of(recognizer: Recognizer) -> str:
    """Return the notes of a model as Markdown."""
    return " ".join(recognizer.card.notes)


def _nothing(words: str) -> Outcome:
    return Outcome(words, gr.update(visible=False), None, None, None)


def _scores(prediction: Prediction) -> Outcome:
    notes = "".join(f"\n\n{note}" for note in prediction.notes)
    return Outcome(
        status=f"{prediction.model} looked at {prediction.summary}, in {prediction.timings.total:.1f} s.{notes}",
        results=gr.update(visible=True),
        scores={scored.label: scored.score for scored in prediction.top(TOP_K)},
        overlay=None,
        strip=None,
    )


def _maps(explanation: Explanation, overlay: Overlay) -> AttentionMaps:
    """Make the maps to draw; the explanation has the prediction that the page shows."""
    return explanation.class_evidence() if overlay == "evidence" else explanation.attention_received()


def _strip(maps: AttentionMaps) -> list[tuple[NDArray[np.uint8], str]]:
    """Return up to `MAX_STRIP_FRAMES` evenly spaced overlays with their times."""
    return [
        (maps.draw_frame(index), f"{maps.seconds[index]:.2f} s")
        for index in evenly_spaced_frames(maps.frame_of_time, MAX_STRIP_FRAMES)
    ]
