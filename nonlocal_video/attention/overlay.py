"""Draw a map over the frame it belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from nonlocal_video.attention.maps import AttentionMaps

STRONGEST_TINT = 0.75
"""Share of the colour in the strongest pixel, so that the picture stays visible below it."""
UNSEEN_BRIGHTNESS = 0.45
"""Places outside the network's crop are darkened to this, since they had no say."""


@cache
def _colours() -> NDArray[np.float32]:
    """(256, 3) RGB 0-255, evenly perceived; from purple on, as the darkest part would only dim the picture."""
    from matplotlib import colormaps

    return (colormaps["inferno"](np.linspace(0.35, 1, 256))[:, :3] * 255).astype(np.float32)


def tint(
    frame: NDArray[np.uint8], values: NDArray[np.float32], *, value_range: tuple[float, float]
) -> NDArray[np.uint8]:
    """Lay a map over a frame.

    Args:
        frame: (height, width, 3) RGB.
        values: (height, width); NaN where the network did not look.
        value_range: What is drawn as nothing and as full.

    Returns:
        (height, width, 3) RGB.
    """
    low, high = value_range
    unseen = np.isnan(values)
    strength = np.clip((np.nan_to_num(values) - low) / (high - low), 0, 1)
    colour = _colours()[(strength * 255).astype(np.uint8)]
    alpha = (STRONGEST_TINT * strength)[..., None]
    drawn = frame * (1 - alpha) + colour * alpha
    drawn[unseen] = frame[unseen] * UNSEEN_BRIGHTNESS
    return (drawn + 0.5).astype(np.uint8)


def draw(maps: AttentionMaps, index: int, *, lines: int = 24) -> NDArray[np.uint8]:
    """Sampled frame `index` with its map, its time, the caption, and the query point where it lies in this frame.

    Text is so large that `lines` of it would fill the frame's height.
    """
    picture = Image.fromarray(tint(maps.frame(index), maps.frame_map(index), value_range=maps.value_range()))
    pen = ImageDraw.Draw(picture, "RGBA")
    width, height = picture.size
    text_size = max(height // lines, 9)
    if width >= 160 and height >= 90:  # on smaller frames the words would cover what they speak of
        _write(
            pen, (text_size // 2, text_size // 2), f"{maps.seconds[index]:.2f} s  {maps.caption}".rstrip(), text_size
        )
    if maps.query is not None and index == maps.query_index:
        _mark(pen, maps.query.x * width, maps.query.y * height, radius=max(height // 40, 3))
    return np.asarray(picture)


def draw_all(maps: AttentionMaps) -> Iterator[NDArray[np.uint8]]:
    """Every sampled frame, drawn."""
    return (draw(maps, index) for index in range(len(maps)))


def _write(pen: ImageDraw.ImageDraw, corner: tuple[float, float], text: str, size: int) -> None:
    font = ImageFont.load_default(size)
    left, top, right, bottom = pen.textbbox(corner, text, font=font)
    pen.rectangle((left - size / 4, top - size / 4, right + size / 4, bottom + size / 4), fill=(0, 0, 0, 150))
    pen.text(corner, text, font=font, fill=(255, 255, 255, 255))


def _mark(pen: ImageDraw.ImageDraw, x: float, y: float, *, radius: float) -> None:
    box = (x - radius, y - radius, x + radius, y + radius)
    pen.ellipse(box, outline=(0, 0, 0, 255), width=max(round(radius / 2), 3))
    pen.ellipse(box, outline=(0, 255, 255, 255), width=max(round(radius / 4), 1))
