"""Data of the timeline plot: a few classes, with no more points than a screen can show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr
import numpy as np

from nonlocal_video.inference.timeline import Segment, Timeline

from .. import tool_texts
from .player import script

MAX_ROWS = 6
"""Maximum number of classes with a line."""
MAX_POINTS = 600
"""Maximum number of points per line; longer videos are averaged."""
SHOWN_SEGMENTS = 500
"""Number of segments on the page, the first ones; the downloads contain all."""
WORDS = tool_texts.TIMELINE
_TEMPLATE = f"""<ol class="segments" aria-label="{WORDS["list"]}"></ol>
<div class="drawing"><div class="legend"></div>
<div class="area" tabindex="0" role="slider" aria-label="{WORDS["area"]}" aria-valuemin="0" aria-valuemax="0">
<div class="grid"><span>100%</span><span>50%</span></div>
<svg viewBox="0 0 1000 100" preserveAspectRatio="none" aria-hidden="true"><g class="lines"></g></svg>
<div class="strip" aria-hidden="true"></div><div class="mark"></div><div class="tip" hidden></div>
</div>
<div class="axis" aria-hidden="true"></div></div>"""


def timeline_plot(*, player: str, elem_id: str) -> gr.HTML:
    """Lay out a plot that seeks in the player with this element ID.

    `gr.LinePlot` reports dragged ranges rather than clicks, and cannot follow a video.
    """
    return gr.HTML(
        None,
        html_template=_TEMPLATE,
        js_on_load=script("percent", "time_axis", "timeline_plot"),
        apply_default_css=False,
        player=player,
        words=WORDS,
        elem_id=elem_id,
        elem_classes=["bare", "strip-colours"],
    )


def plotted(timeline: Timeline, segments: Sequence[Segment]) -> dict[str, Any]:
    """Return the value of the plot: scores of the classes that dominate longest, in order of first appearance."""
    won: dict[int, float] = {}  # score times seconds, by class
    for segment in segments:
        if segment.index is not None:
            won[segment.index] = won.get(segment.index, 0.0) + segment.score * segment.seconds
    strongest = sorted(won, key=lambda index: -won[index])[:MAX_ROWS]
    rows = [index for index in won if index in strongest]
    if not rows:  # no class reaches the threshold: show the top ones
        rows = np.argsort(-timeline.scores.mean(axis=0), kind="stable")[:3].tolist()
    moments = list(timeline.moments())
    lengths = np.array([moment.seconds for moment in moments])
    scores = np.array([moment.scores[rows] for moment in moments]) * lengths[:, None]
    # The first moment of each point; few moments are points themselves.
    first = np.unique(np.linspace(0, len(moments), MAX_POINTS, endpoint=False).astype(int))
    means = np.add.reduceat(scores, first) / np.add.reduceat(lengths, first)[:, None]
    bounds = [moments[index].start_seconds for index in first] + [moments[-1].end_seconds]
    return {
        "end": max(float(timeline.ends[-1]), timeline.info.end_seconds),
        "bounds": [round(bound, 3) for bound in bounds],
        "rows": [
            {"label": timeline.labels[index], "scores": column.round(3).tolist()}
            for index, column in zip(rows, means.T, strict=True)
        ],
        "segments": [
            {
                "start": round(segment.start_seconds, 3),
                "end": round(segment.end_seconds, 3),
                "label": segment.label,
                "score": round(segment.score, 3),
            }
            for segment in segments[:SHOWN_SEGMENTS]
        ],
    }
