"""Callback that checks whether the map on the page is faithful to the answer of the network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import gradio as gr

from nonlocal_video.attention.maps import Method
from nonlocal_video.inference.map_check import quick_check, quick_draws
from nonlocal_video.inference.recognizer import Recognizer

from .ask_callbacks import AskCallbacks


@dataclass(frozen=True)
class MapCheck:
    """Callback of the check."""

    recognizers: Mapping[str, Recognizer]
    """Recognizers by model name."""
    asking: AskCallbacks
    """Callbacks that hold the explanations."""

    def check(
        self,
        method: Method,
        block: str | None,
        label: str | None,
        frame: int,
        x_percent: float,
        y_percent: float,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - this default is how Gradio hands the bar over
    ) -> Iterator[str]:
        """Yield how the score changes without the strongest cells of the current map, in words."""
        current = self.asking.shown_maps(request, method, block, label, frame, x_percent, y_percent)
        with current as (explanation, maps):
            recognizer = self.recognizers[explanation.prediction.model]
            done, total = 0, 2 + quick_draws(maps)

            def on_pass(clips: int) -> None:
                nonlocal done
                done += clips
                progress((done, total), desc="Looking again", unit="looks")

            on_pass(0)
            checked = quick_check(
                recognizer, explanation, maps, label=label if method == "evidence" else None, on_pass=on_pass
            )
            yield checked.in_words[0].upper() + checked.in_words[1:]
