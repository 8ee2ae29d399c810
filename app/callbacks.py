"""What the page does when something is pressed: calls the Recognizer and hands its answer to the components."""

from __future__ import annotations

import html
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import gradio as gr
import numpy as np
from numpy.typing import NDArray

from nonlocal_video.attention.maps import AttentionMaps
from nonlocal_video.attention.overlay import draw
from nonlocal_video.errors import NonlocalVideoError, VideoError
from nonlocal_video.inference.look import Look
from nonlocal_video.inference.prediction import Prediction
from nonlocal_video.inference.recognizer import Recognizer, Stage

from .choices import FAST, Overlay, is_averaged, overlay_choices, standard_view, view_choices

LOGGER = logging.getLogger(__name__)

TOP_K = 5
STAGES: Mapping[Stage, tuple[int, str]] = {"reading": (0, "Reading the clip"), "network": (1, "Running the network")}
"""How many stages lie behind when one begins, and what it is called on the page."""
MAX_STRIP_FRAMES = 16
INVITATION = """**Choose a clip, then press Recognise.** You will see

- the five likeliest actions with their scores,
- the clip, with an overlay of where the network looked,
- the frames that it saw, with their times.
"""
INTERNAL_ERROR = "Something went wrong inside; the server's log has the details."
GONE = "This clip is no longer on the server; please upload it again."


class Outcome(NamedTuple):
    """Updates of the components, in the order in which the page lists its outputs."""

    status: Any
    results: Any
    scores: Any
    overlay: Any
    strip: Any


def choose(clip: str | None) -> tuple[Any, ...]:
    """Allow "Recognise" for a clip, and take the last answer off the page: it never stands beside another clip."""
    return gr.update(interactive=clip is not None), *Outcome(INVITATION, gr.update(visible=False), None, None, None)


@dataclass(frozen=True)
class Callbacks:
    """The callbacks of a page; they keep nothing between calls, so any number of visitors may use them."""

    recognizers: Mapping[str, Recognizer]

    def offer(self, model: str) -> tuple[Any, Any, str]:
        """The choices and the notes that belong to a model."""
        recognizer = self.recognizers[model]
        views, overlays = view_choices(recognizer.card), overlay_choices(recognizer)
        return (
            gr.update(choices=views, value=views[0][1], info=standard_view(recognizer.card)),
            gr.update(choices=overlays, value=overlays[0][1]),
            notes_of(recognizer),
        )

    def recognise(
        self,
        clip: str | None,
        model: str,
        views: str,
        overlay: Overlay,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - this default is how Gradio hands the bar over
    ) -> Iterator[Outcome]:
        """Show the scores as soon as they are known, and the overlays after them."""
        if clip is None:
            raise gr.Error("Choose a clip first.", print_exception=False)
        path = Path(clip)
        with plain_errors(path):
            if not path.is_file():
                raise VideoError("not_found", GONE)
            recognizer = self.recognizers[model]
            stages = 4 if is_averaged(views) else 3

            def on_stage(stage: Stage) -> None:
                done, words = STAGES[stage]
                progress((done, stages), desc=words, unit="stages")

            if is_averaged(views):
                prediction = recognizer.classify(path, views=views, on_stage=on_stage)
                yield _scores(prediction)
                progress((2, stages), desc="One more look, for the overlay", unit="stages")
                look = recognizer.look(path)
            else:
                look = recognizer.look(path, fast=views == FAST, on_stage=on_stage)
                prediction = look.prediction
                yield _scores(prediction)
            progress((stages - 1, stages), desc="Drawing where it looked", unit="stages")
            maps = _maps(look, prediction, overlay)
            with TemporaryDirectory() as folder:
                # Gradio copies the file before it asks for the next outcome, and so before the folder goes.
                video = maps.overlay(Path(folder) / f"{path.stem} overlay.mp4")
                yield Outcome(gr.skip(), gr.skip(), gr.skip(), str(video), _strip(maps))


@contextmanager
def plain_errors(clip: Path) -> Iterator[None]:
    """Turn every exception into one sentence without a traceback or a path of the server."""
    try:
        yield
    except NonlocalVideoError as error:
        # Gradio shows messages as HTML, and a file's name is whatever its sender chose.
        message = html.escape(_without_folder(str(error), clip))
        raise gr.Error(message, duration=None, print_exception=False) from None
    except Exception:
        LOGGER.exception("Recognising %s failed", clip)
        raise gr.Error(INTERNAL_ERROR, duration=None, print_exception=False) from None


def notes_of(recognizer: Recognizer) -> str:
    """What a user of this model should know, as Markdown."""
    return " ".join(recognizer.card.notes)


def _without_folder(message: str, clip: Path) -> str:
    """The message with the clip's bare name: where uploads lie on the server is nobody's business."""
    for folder in {clip.parent, clip.parent.resolve()}:
        message = message.replace(f"{folder}{os.sep}", "")
    return message


def _scores(prediction: Prediction) -> Outcome:
    notes = "".join(f"\n\n{note}" for note in prediction.notes)
    return Outcome(
        status=f"{prediction.model} looked at {prediction.used}, in {prediction.seconds.total:.1f} s.{notes}",
        results=gr.update(visible=True),
        scores={scored.label: scored.score for scored in prediction.top(TOP_K)},
        overlay=None,
        strip=None,
    )


def _maps(look: Look, prediction: Prediction, overlay: Overlay) -> AttentionMaps:
    """The maps to draw, with the caption of the answer that stands on the page (the look may be one view of many)."""
    best = prediction.top(1)[0]
    answer = f"{best.label} {best.score:.2f}"
    if overlay == "evidence":
        return replace(look.class_evidence(best.label), caption=f"evidence for {answer}")
    return replace(look.attention_received(), caption=answer)


def _strip(maps: AttentionMaps) -> list[tuple[NDArray[np.uint8], str]]:
    """Up to `MAX_STRIP_FRAMES` overlays, evenly chosen, with their times."""
    return [(draw(maps, index), f"{maps.seconds[index]:.2f} s") for index in _evenly_chosen(maps)]


def _evenly_chosen(maps: AttentionMaps) -> list[int]:
    """Evenly spaced frames; one that was sampled more than once (a looped clip, a low frame rate) counts once."""
    first_of_frame: dict[int, int] = {}
    for index, frame in enumerate(maps.frame_of_time):
        first_of_frame.setdefault(int(frame), index)
    distinct = list(first_of_frame.values())
    count = min(len(distinct), MAX_STRIP_FRAMES)
    return [distinct[(position * (len(distinct) - 1)) // max(count - 1, 1)] for position in range(count)]
