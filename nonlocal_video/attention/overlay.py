"""Drawing of map values over the frame that they belong to."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

STRONGEST_TINT = 0.75
"""Opacity of the colour at the strongest pixel, so that the image stays visible below it."""
UNSEEN_BRIGHTNESS = 0.45
"""Brightness of pixels outside the network's crop, which had no influence."""


@cache
def _colours() -> NDArray[np.uint8]:
    """Return a perceptually uniform colour map (256, 3), RGB 0-255, from purple on: darker colours would only dim."""
    from matplotlib import colormaps

    return (colormaps["inferno"](np.linspace(0.35, 1, 256))[:, :3] * 255 + 0.5).astype(np.uint8)


def tint(
    frame: NDArray[np.uint8], values: NDArray[np.float32], *, value_range: tuple[float, float]
) -> NDArray[np.uint8]:
    """Blend a map with a frame.

    Args:
        frame: RGB image (height, width, 3).
        values: Map (height, width); NaN outside the network's crop.
        value_range: Values that are drawn as transparent and as full.

    Returns:
        RGB image (height, width, 3).
    """
    low, high = value_range
    unseen = np.isnan(values)
    strength = np.clip((np.nan_to_num(values) - low) / (high - low), 0, 1)
    colour = _colours()[(strength * 255 + 0.5).astype(np.uint8)]
    opacity = (strength * (255 * STRONGEST_TINT) + 0.5).astype(np.uint8)
    colour[unseen] = 0
    opacity[unseen] = round(255 * (1 - UNSEEN_BRIGHTNESS))
    picture = Image.fromarray(frame)
    picture.paste(Image.fromarray(colour), mask=Image.fromarray(opacity))
    return np.asarray(picture)


def draw(
    frame: NDArray[np.uint8],
    values: NDArray[np.float32],
    *,
    value_range: tuple[float, float],
    text: str = "",
    point: tuple[float, float] | None = None,
    lines: int = 24,
) -> NDArray[np.uint8]:
    """Draw a map over a frame, with a line of text and a marked point.

    Args:
        frame: RGB image (height, width, 3).
        values: Map (height, width); NaN outside the network's crop.
        value_range: Values that are drawn as transparent and as full.
        text: Text in the upper left corner, left out of frames so small that it would cover the image.
        point: Fractions x and y of the frame's width and height.
        lines: Number of lines of text that would fill the frame's height, which sets the size of the text.

    Returns:
        RGB image (height, width, 3).
    """
    picture = Image.fromarray(tint(frame, values, value_range=value_range))
    pen = ImageDraw.Draw(picture, "RGBA")
    width, height = picture.size
    text_size = max(height // lines, 9)
    if width >= 160 and height >= 90:
        _write(pen, (text_size // 2, text_size // 2), text, text_size)
    if point is not None:
        _mark(pen, point[0] * width, point[1] * height, radius=max(height // 40, 3))
    return np.asarray(picture)


def _write(pen: ImageDraw.ImageDraw, corner: tuple[float, float], text: str, size: int) -> None:
    font = ImageFont.load_default(size)
    left, top, right, bottom = pen.textbbox(corner, text, font=font)
    pen.rectangle((left - size / 4, top - size / 4, right + size / 4, bottom + size / 4), fill=(0, 0, 0, 150))
    pen.text(corner, text, font=font, fill=(255, 255, 255, 255))


def _mark(pen: ImageDraw.ImageDraw, x: float, y: float, *, radius: float) -> None:
    box = (x - radius, y - radius, x + radius, y + radius)
    pen.ellipse(box, outline=(0, 0, 0, 255), width=max(round(radius / 2), 3))
    pen.ellipse(box, outline=(0, 255, 255, 255), width=max(round(radius / 4), 1))
