"""Data that the player draws: the span that was seen as a small film, and maps as a few bytes a frame."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nonlocal_video.attention.maps import AttentionMaps
from nonlocal_video.inference.explanation import Explanation
from nonlocal_video.video.encode import write_video

from .. import texts

PREVIEW_SIDE = 640
"""Longer side of the preview, in pixels."""
PREVIEW_CRF = 24


def write_preview(explanation: Explanation, path: Path) -> dict[str, Any]:
    """Write the frames that the network saw as H.264, at the speed of the clip, and describe them for the player.

    Args:
        explanation: The look at the clip.
        path: The .mp4 file to write.

    Returns:
        The file for Gradio, the time of each frame in the clip, and the part of the picture that was seen.
    """
    seconds = explanation.clip.views[0].playback_seconds
    small = {index: _small(frame) for index, frame in enumerate(explanation.originals)}

    def frames() -> Iterator[NDArray[np.uint8]]:
        for index in explanation.frame_of_time:
            yield small[int(index)]

    write_video(path, frames(), fps=len(explanation.seconds) / seconds, crf=PREVIEW_CRF)
    return {
        "file": {"path": str(path), "meta": {"_type": "gradio.FileData"}},
        "seconds": [round(float(second), 3) for second in explanation.seconds],
        "playback": seconds,
        "seen": [round(edge, 4) for edge in explanation.clip.crops[0].seen],
    }


def first_maps(explanation: Explanation) -> dict[str, Any]:
    """Return the maps that the player shows first: evidence for the first label and, with a block, attention.

    A network that names no layer for evidence has no such map; `words` then says why.
    """
    label = explanation.prediction.top(1)[0].label
    maps = {}
    if explanation.evidence_layer is not None:
        legend = texts.EVIDENCE_LEGEND.format(label=label)
        maps["evidence"] = packed(explanation.class_evidence(), legend=legend, label=label)
    if explanation.block_inputs:
        maps["attention"] = packed(explanation.attention_received(), legend=texts.ATTENTION_LEGEND)
    return {"maps": maps} if maps else {"maps": {}, "words": texts.NO_MAPS}


def packed(maps: AttentionMaps, *, legend: str, label: str | None = None) -> dict[str, Any]:
    """Pack maps for the browser: one byte a cell of every sampled frame, and where the cells lie in the picture.

    Args:
        maps: Values on the cells of a layer.
        legend: One sentence that says what bright means.
        label: Class of class evidence.

    Returns:
        `data` is base64 of uint8 (frames, rows, columns): 0 is nothing, 255 full. `x` and `y` are the centre of the
        first cell and the step to the next, in fractions of the picture. `curve` is the strength of each frame, 0 to 1.
    """
    low, high = maps.value_range()
    in_time = maps.grid.interpolation(0, np.arange(len(maps), dtype=np.float64))  # (T, T')
    values = np.tensordot(in_time, maps.cells, axes=1)  # (T, rows, columns)
    strength = np.clip((values - low) / (high - low), 0, 1)
    over_time = np.maximum(values - (low if maps.method != "evidence" else 0), 0).mean(axis=(1, 2))
    _, rows, columns = maps.cells.shape
    return {
        "kind": maps.method,
        "label": label,
        "legend": legend,
        "shape": [len(maps), rows, columns],
        "data": base64.b64encode((255 * strength + 0.5).astype(np.uint8).tobytes()).decode(),
        "y": _centres(maps, 1),
        "x": _centres(maps, 2),
        "curve": (over_time / max(float(over_time.max()), 1e-12)).round(3).tolist(),
    }


def _centres(maps: AttentionMaps, axis: int) -> list[float]:
    """Return the first centre of the cells along an axis and the step, as fractions of the picture's side."""
    crop, places = maps.crop, [maps.grid.centre(axis, index) + 0.5 for index in (0, 1)]
    side = crop.frame_height if axis == 1 else crop.frame_width
    first, second = (float(crop.input_to_frame(place, place)[axis - 1]) / side for place in places)
    return [round(first, 5), round(second - first, 5)]


def _small(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = frame.shape[:2]
    scale = PREVIEW_SIDE / max(height, width)
    if scale >= 1:
        return frame
    size = max(2, round(width * scale)), max(2, round(height * scale))
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR))
