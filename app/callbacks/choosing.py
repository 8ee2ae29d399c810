"""A visitor's choice: a clip that was sent, a sample, or another way to look at the clip that is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr

from nonlocal_video.errors import UsageError

from .. import texts
from ..messages import refusal
from ..visit_folders import uploaded
from ..visits import How
from .events import Event
from .recognise import Recognition

MAX_REGION = 100
"""Maximum number of characters of a part of the picture."""
FAR_AWAY = Path("/nonexistent")
"""Stands for a file that a visitor may not name."""


@dataclass(frozen=True)
class Choosing:
    """Callbacks of the events that begin a run; each says which choice of the visitor's it is."""

    recognition: Recognition
    """Runs of all visitors."""
    samples: Sequence[Path]
    """Sample clips, by their number on the page."""

    def begin(
        self,
        model: str,
        views: str,
        region: str,
        start: float | None,
        end: float | None,
        event: gr.EventData,
        request: gr.Request,
    ) -> list[Any]:
        """Begin with a clip that was sent, or a sample; a part of the picture or of the clip before does not stay."""
        chosen = event._data
        how = How(model, views)
        first = self.recognition.begin(request.session_hash or "", self._clip(chosen), how, int(chosen["choice"]))
        return _shown(first, how)

    def again(
        self,
        model: str,
        views: str,
        region: str,
        start: float | None,
        end: float | None,
        event: gr.EventData,
        request: gr.Request,
    ) -> list[Any]:
        """Look at the same clip again: with these settings, at another part of the picture, or around another time."""
        changes, session = event._data, request.session_hash or ""
        part = str(changes.get("region", region) or "")
        if len(part) > MAX_REGION:
            raise refusal(texts.REGION_TOO_LONG.format(most=MAX_REGION))
        how = How(model, views, part, start, end)
        if (seconds := changes.get("seconds")) is not None:
            begin, stop = self.recognition.span_around(session, how, float(seconds))
            how = replace(how, start_seconds=begin, end_seconds=stop)
        return _shown(self.recognition.again(session, how, int(changes["choice"])), how)

    def _clip(self, chosen: dict[str, Any]) -> Path:
        """Return the chosen clip's path; that of a file that does not exist for one that was never sent."""
        if "sample" in chosen:
            number = int(chosen["sample"])
            return self.samples[number] if 0 <= number < len(self.samples) else FAR_AWAY
        # As Gradio does for its own components: only what was uploaded may be named.
        try:
            return uploaded(chosen.get("path", ""))
        except UsageError:
            return FAR_AWAY


def _shown(first: Event | None, how: How) -> list[Any]:
    """Return the updates: the first event, and the settings that the choice has changed."""
    if first is None:  # a later choice has come
        return [gr.skip()] * 4
    return [first, how.region, how.start_seconds, how.end_seconds]
