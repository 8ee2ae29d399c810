"""What the plot of a timeline draws: a few classes, and no more points than a screen has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from nonlocal_video.inference.timeline import Segment, Timeline

MAX_ROWS = 6
"""Classes with a line."""
MAX_POINTS = 600
"""Points of each line at most; the moments of a longer video are averaged."""
_SCRIPT = Path(__file__).with_name("timeline_plot.js").read_text(encoding="utf-8")
_TEMPLATE = """<div class="legend"></div>
<div class="area" tabindex="0" role="slider" aria-label="Time in the video" aria-valuemin="0" aria-valuemax="0">
<div class="grid"><span>100%</span><span>50%</span></div>
<svg viewBox="0 0 1000 100" preserveAspectRatio="none" aria-hidden="true"><g class="lines"></g></svg>
<div class="strip" aria-hidden="true"></div><div class="mark"></div><div class="tip" hidden></div>
</div>
<div class="axis" aria-hidden="true"></div>"""


def timeline_plot(*, player: str, elem_id: str) -> gr.HTML:
    """Lay out a plot that seeks the player with this elem_id.

    `gr.LinePlot` tells of dragged ranges, not of clicks, and knows nothing of a video's time.
    """
    return gr.HTML(
        None,
        html_template=_TEMPLATE,
        js_on_load=_SCRIPT,
        apply_default_css=False,
        player=player,
        elem_id=elem_id,
    )


def plotted(timeline: Timeline, segments: Sequence[Segment]) -> dict[str, Any]:
    """The plot's value: scores of the classes that win the most time, in the order in which they first do."""
    won: dict[int, float] = {}  # class -> its score times its seconds
    for segment in segments:
        if segment.index is not None:
            won[segment.index] = won.get(segment.index, 0.0) + segment.score * segment.seconds
    strongest = sorted(won, key=lambda index: -won[index])[:MAX_ROWS]
    rows = [index for index in won if index in strongest]
    if not rows:  # no class reaches the threshold: the likeliest ones
        rows = np.argsort(-timeline.scores.mean(axis=0), kind="stable")[:3].tolist()
    moments = list(timeline.moments())
    lengths = np.array([moment.seconds for moment in moments])
    scores = np.array([moment.scores[rows] for moment in moments]) * lengths[:, None]
    # The first moment of each point; with few moments every one is a point.
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
            for segment in segments
        ],
    }
