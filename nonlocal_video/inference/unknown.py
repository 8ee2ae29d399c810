"""Whether a taught model knows a clip at all, as a flag and as a note for the user."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nonlocal_video.models.card import ModelCard

NOTE_BEGINS = "Unknown: "
"""Beginning of the note on an unknown clip, by which it is found and replaced."""


class Judgement(NamedTuple):
    """Whether a clip is unknown, None for a model that was not taught, and the note that says so."""

    unknown: bool | None
    notes: tuple[str, ...] = ()


def judged(card: ModelCard, features: NDArray[np.float32] | None) -> Judgement:
    """Judge a clip by itself.

    Args:
        card: Of the model.
        features: (C,) pooled features of the layer before the classifier; None if they are not known.
    """
    if card.taught is None or features is None:
        return Judgement(None)
    found = card.taught.likeness(features[None])
    unknown, value = bool(found.unknown[0]), float(found.value[0])
    return Judgement(unknown, (unknown_note(card.labels[found.nearest[0]], value, found.least),) if unknown else ())


def unknown_note(nearest: str, value: float, least: float) -> str:
    """Return the sentence on an unknown clip."""
    if value <= -1.0:
        return f"{NOTE_BEGINS}more like the examples of none of these classes than like {nearest!r}, the nearest one."
    return f"{NOTE_BEGINS}its likeness to the nearest class, {nearest!r}, is {value:.2f}; known clips have {least:.2f}."
