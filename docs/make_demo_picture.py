"""Make the README's moving picture from the sample clip: `python docs/make_demo_picture.py`.

Three scenes of the same clip: as it is, with the five likeliest actions beside it; with the evidence for the likeliest
one; with what a point on the left hand attends to more than others do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import nonlocal_video as nlv
from nonlocal_video.app.sentences import figure
from nonlocal_video.attention.maps import AttentionMaps, QueryPoint
from nonlocal_video.attention.overlay import tint
from nonlocal_video.inference.prediction import ScoredLabel
from nonlocal_video.samples import fetch_samples

HAND = QueryPoint(seconds=0.4, x=0.24, y=0.42)
HEIGHT, PANEL_WIDTH, MARGIN = 350, 330, 20
STEP = 2
"""Every second of the 64 sampled frames is shown, at 12.5 a second: as fast as the clip."""
FRAME_MS = 80
GROWING = 10
"""Frames in which the bars grow."""
INK, FAINT, PAPER, BAR, BEST = "#f4eefa", "#b9a9cc", "#1b0c33", "#57406e", "#f98e09"


def main() -> None:
    """Draw the scenes and write `docs/images/demo.webp`."""
    clip = fetch_samples()[0].path
    with nlv.load("default") as recognizer:
        explanation = recognizer.explain_all(clip)
    top = explanation.prediction.top(5)
    evidence, query = explanation.class_evidence(), explanation.query(HAND)
    frames = [
        *scene(evidence, top, None, "A clip of 2.6 seconds", bars_grow=True),
        *scene(evidence, top, evidence, f'What speaks for "{top[0].label}"'),
        *scene(query, top, query, "What the marked hand attends to"),
    ]
    path = Path(__file__).parent / "images" / "demo.webp"
    options = {"duration": FRAME_MS, "loop": 0, "quality": 82, "method": 6, "minimize_size": True}
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)
    print(f"{path}: {len(frames)} frames of {frames[0].width} x {frames[0].height}, {path.stat().st_size / 1e6:.2f} MB")


def scene(
    maps: AttentionMaps, top: Sequence[ScoredLabel], shown: AttentionMaps | None, title: str, *, bars_grow: bool = False
) -> Iterator[Image.Image]:
    """Every picture of one scene: the clip from its beginning to its end, beside it the answer."""
    for count, index in enumerate(range(0, len(maps), STEP)):
        frame = maps.frame(index)
        if shown is not None:
            frame = tint(frame, shown.frame_map(index), value_range=shown.value_range())
        picture = Image.fromarray(np.ascontiguousarray(frame))
        width = round(picture.width * HEIGHT / picture.height)
        picture = picture.resize((width, HEIGHT), Image.Resampling.LANCZOS)
        if shown is not None and shown.query is not None:
            mark(picture, shown.query, strong=index == shown.query_index)
        sheet = Image.new("RGB", (width + PANEL_WIDTH, HEIGHT), PAPER)
        sheet.paste(picture, (0, 0))
        grown = min(max(count - 6, 0) / GROWING, 1.0) if bars_grow else 1.0
        draw_panel(sheet, width, top, title, maps.seconds[index], grown)
        yield sheet


def mark(picture: Image.Image, query: QueryPoint, *, strong: bool) -> None:
    """Draw a ring around the query point; a thin one in the frames that the point is not in."""
    x, y, radius = query.x * picture.width, query.y * picture.height, 9
    box = (x - radius, y - radius, x + radius, y + radius)
    ImageDraw.Draw(picture).ellipse(box, outline="#ffffff", width=4 if strong else 1)


def draw_panel(
    sheet: Image.Image, left: int, top: Sequence[ScoredLabel], title: str, seconds: float, grown: float
) -> None:
    """Draw title, time and bars; `grown` is the part of the bars that is shown, 0 to 1."""
    pen = ImageDraw.Draw(sheet)
    title_font, font, small = (ImageFont.load_default(size) for size in (19, 16, 13))
    x = left + MARGIN
    pen.text((x, 20), title, font=title_font, fill=INK)
    pen.text((x, 48), f"{seconds:.2f} s", font=small, fill=FAINT)
    if not grown:
        return
    for rank, scored in enumerate(top):
        y = 84 + rank * 45
        pen.text((x, y), scored.label, font=font, fill=INK if rank == 0 else FAINT)
        share = figure(scored.score * grown)
        right = left + PANEL_WIDTH - MARGIN
        pen.text((right - pen.textlength(share, font=font), y), share, font=font, fill=INK if rank == 0 else FAINT)
        pen.rounded_rectangle((x, y + 24, right, y + 30), radius=3, fill="#2b1a45")
        length = max((right - x) * scored.score * grown, 6)
        pen.rounded_rectangle((x, y + 24, x + length, y + 30), radius=3, fill=BEST if rank == 0 else BAR)


if __name__ == "__main__":
    main()
