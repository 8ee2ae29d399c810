"""Choices on the page, in plain words and with their cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .texts import DEVICE, STAGE

if TYPE_CHECKING:
    from nonlocal_video.models.card import InputSpec, ModelCard

Choice = tuple[str, str]
"""Label on the page, and value for the callback."""

FAST = "fast"
ONE_VIEW = "1x1"
THOROUGH = "3x1"
PAPER = "10x3"
LONGER_THAN_VIEWS = 1.5
"""A clip is long if it lasts longer than this many of the model's standard views."""
WIDE = "wide"
WIDE_TIMES = 4
"""Length of a wide window, as a multiple of the model's own."""


def is_averaged(views: str) -> bool:
    """Return whether scores are averaged over views, so that the overlay needs another forward pass."""
    return views not in (FAST, ONE_VIEW)


def view_choices(card: ModelCard) -> list[Choice]:
    """Return the choices of views, the standard one first, with costs relative to it."""
    choices = [("Standard", ONE_VIEW)]
    if card.fast_input is not None:
        choices.append((f"Quick look, {_times(_work(card.fast_input) / _work(card.input))}", FAST))
    # One more view than the name says: the overlay needs a view of the middle of the clip.
    choices.append((f"Thorough: 3 moments, {_times(3 + 1)}", THOROUGH))
    choices.append((f"The paper's 10 × 3 views, {_times(10 * 3 + 1)}", PAPER))
    return choices


def is_long(seconds: float, card: ModelCard) -> bool:
    """Return whether a clip of this length is worth a look at each of its moments."""
    return seconds > LONGER_THAN_VIEWS * card.input.span_seconds


def standard_view(card: ModelCard) -> str:
    """Describe the standard view."""
    spec = card.input
    return f"Standard looks at {spec.num_frames} frames, {spec.span_seconds:.1f} s from the middle of the clip."


def about_model(card: ModelCard, device: str, limits: str) -> str:
    """Describe a model and the limits in Markdown; the notes of its card are folded, as they are for its makers."""
    notes = "\n\n".join(card.notes)
    fold = f"<details><summary>{STAGE['details']}</summary>\n\n{notes}\n\n</details>" if notes else ""
    return "\n\n".join(filter(None, [DEVICE.format(model=card.name, device=device), limits, fold]))


def window_choices(card: ModelCard) -> list[Choice]:
    """Return the choices of the window of a timeline, the model's own span first."""
    span, frames = card.input.span_seconds, card.input.num_frames
    choices = [(f"Standard: {span:.1f} s, {frames} frames", ONE_VIEW)]
    if (fast := card.fast_input) is not None:
        choices.append((f"Short: {fast.span_seconds:.1f} s, {fast.num_frames} frames", FAST))
    choices.append((f"Wide: {WIDE_TIMES * span:.1f} s, {frames} frames spread out; less exact", WIDE))
    return choices


STRIDES: list[tuple[str, float]] = [
    ("Half a window: most moments are seen twice", 0.5),
    ("A whole window: half the work", 1.0),
    ("A quarter: finer bounds, twice the work", 0.25),
]


def timeline_cost(card: ModelCard, window: str, stride: float) -> str:
    """Describe the cost of a minute of video."""
    spec = card.view(fast=window == FAST)
    looks = 60 / (stride * spec.span_seconds * (WIDE_TIMES if window == WIDE else 1))
    return (
        f"A minute of video takes {looks:.0f} looks at {spec.num_frames} frames, as much as "
        f"{looks * _work(spec) / _work(card.input):.0f} standard looks of Recognise."
    )


def _work(spec: InputSpec) -> int:
    """Return the number of input pixels of the network."""
    return spec.num_frames * spec.crop**2


def _times(times: float) -> str:
    return f"{times:.0f}× the time" if times >= 1 else f"about {times:.0%} of the time"
