"""HTML for notebooks, and data frames: what `_repr_html_` and `to_pandas` of the results are made of."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nonlocal_video.errors import UsageError

if TYPE_CHECKING:
    import pandas

FRAMES_IN_STRIP = 8
_FRAME_HEIGHT = 112


def card(*parts: str) -> str:
    """Put blocks of HTML below each other, in the notebook's own colours."""
    return f'<div style="font: 13px/1.45 sans-serif; max-width: 960px">{"".join(parts)}</div>'


def heading(title: str, note: str) -> str:
    """Return a title with a smaller line below it, both plain text."""
    return f"<div><b>{escape(title)}</b></div><div style='opacity: .7'>{escape(note)}</div>"


def bars(scores: Sequence[tuple[str, float]]) -> str:
    """Return a bar for each (label, probability), as long as the probability."""
    rows = "".join(
        f"<tr><td style='text-align: left; white-space: nowrap'>{escape(label)}</td>"
        f"<td style='width: 260px'><div style='height: 8px; border-radius: 4px; background: #f98e09; "
        f"width: {100 * score:.1f}%'></div></td><td style='text-align: right'>{score:.1%}</td></tr>"
        for label, score in scores
    )
    return f"<table style='margin: 6px 0; border: 0'>{rows}</table>"


def strip(frames: Sequence[NDArray[np.uint8]], seconds: Sequence[float]) -> str:
    """Return frames (height, width, 3) side by side, each with its time in seconds below it."""
    return (
        "<div style='display: flex; gap: 4px; overflow-x: auto'>"
        + "".join(
            f"<div style='text-align: center'><img style='display: block; max-width: none' alt='frame at {time:.2f} s' "
            f"height='{_FRAME_HEIGHT}' src='{_data_address(frame)}'>{time:.2f} s</div>"
            for frame, time in zip(frames, seconds, strict=True)
        )
        + "</div>"
    )


def data_frame(columns: Mapping[str, Sequence[Any]]) -> pandas.DataFrame:
    """Return columns as a pandas data frame.

    Raises:
        UsageError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise UsageError("to_pandas needs pandas, which is not installed: pip install pandas") from error
    return pandas.DataFrame(dict(columns))


def _data_address(frame: NDArray[np.uint8]) -> str:
    picture = Image.fromarray(np.ascontiguousarray(frame))
    size = max(1, round(picture.width * _FRAME_HEIGHT / picture.height)), _FRAME_HEIGHT
    stream = io.BytesIO()
    picture.resize(size).save(stream, "WEBP", quality=80)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"
