"""Events of a run: what the stage is told of it, and how an answer is put into words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from nonlocal_video.inference.explanation import Explanation
from nonlocal_video.inference.prediction import Prediction
from nonlocal_video.inference.recognizer import Recognizer

from .. import sentences, texts
from ..choices import is_long
from ..components.heat import first_maps, write_preview
from ..visits import Run

TOP_K = 5
Event = dict[str, Any]
"""One state of the answer. It has the identity of its run and all that is to be shown, so one may be missed."""


def event_of(run: Run, state: str, **more: Any) -> Event:
    """Return an event of a run."""
    shown = {"run": run.identity, "choice": run.choice, "name": run.name, "region": run.how.region}
    return {**shown, "state": state, **more}


def no_run(choice: int, trouble: str, words: str, *, refused: bool = False) -> Event:
    """Return the event of a choice that begins no run; `refused` if the same clip cannot be tried again."""
    return {
        "choice": choice,
        "state": "error",
        "title": texts.TROUBLES[trouble],
        "words": words,
        "refused": refused,
    }


def answer_of(run: Run, prediction: Prediction, recognizer: Recognizer, result: str) -> Event:
    """Return the event of an answer.

    Args:
        run: The run.
        prediction: What the network answered.
        recognizer: The network.
        result: Name of the result in the store.
    """
    top, video = prediction.top(TOP_K), prediction.video
    span = prediction.views[0]
    has_features = getattr(recognizer.network, "feature_layer", None) is not None  # moments are compared by them
    return event_of(
        run,
        "answer",
        result=result,
        headline=sentences.headline(top),
        confidence=sentences.confidence(top),
        top=[[scored.label, round(scored.score, 4)] for scored in top],
        video={"end": video.end_seconds, "width": video.width, "height": video.height},
        long=is_long(video.duration_seconds, recognizer.card) and has_features,
        span=[round(span.start_seconds, 3), round(span.end_seconds, 3)],
        details=[
            f"{prediction.model}: {prediction.summary}, in {prediction.timings.total:.1f} s.",
            *prediction.notes,
        ],
    )


def with_player(answer: Event, explanation: Explanation) -> Iterator[Event]:
    """Yield an answer with the clip and the maps that the player shows."""
    with TemporaryDirectory() as folder:
        # Gradio copies the file before it resumes this generator, which deletes the folder.
        preview = write_preview(explanation, Path(folder) / "preview.mp4")
        yield {**answer, "player": {**preview, **first_maps(explanation)}}
