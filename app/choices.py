"""What a user may choose, in plain words and with its cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from nonlocal_video.inference.recognizer import Recognizer
    from nonlocal_video.models.card import InputSpec, ModelCard

Choice = tuple[str, str]
"""Words on the page, and the value that the callback gets."""

Overlay = Literal["attention", "evidence"]

FAST = "fast"
ONE_VIEW = "1x1"
THOROUGH = "3x1"
PAPER = "10x3"


def is_averaged(views: str) -> bool:
    """Whether the scores are a mean over views, so that the overlay needs a look of its own."""
    return views not in (FAST, ONE_VIEW)


def view_choices(card: ModelCard) -> list[Choice]:
    """How closely to look, each with its cost as a multiple of the standard view's; the standard one comes first."""
    choices = [("Standard", ONE_VIEW)]
    if card.fast_input is not None:
        choices.append((f"Quick look, {_times(_work(card.fast_input) / _work(card.input))}", FAST))
    # One view more than the name says: the overlay shows a look at the middle of the clip.
    choices.append((f"Thorough: 3 moments, {_times(3 + 1)}", THOROUGH))
    choices.append((f"The paper's 10 × 3 views, {_times(10 * 3 + 1)}", PAPER))
    return choices


def standard_view(card: ModelCard) -> str:
    """What the standard view is, in words."""
    spec = card.input
    return f"Standard looks at {spec.num_frames} frames, {spec.span_seconds:.1f} s from the middle of the clip."


def overlay_choices(recognizer: Recognizer) -> list[Choice]:
    """What the overlay may show; attention needs a non-local block."""
    choices: list[Choice] = [("Evidence for the first action", "evidence")]
    if recognizer.nonlocal_layers():
        choices.insert(0, ("Attention received", "attention"))
    return choices


def _work(spec: InputSpec) -> int:
    """Pixels that the network takes in."""
    return spec.num_frames * spec.crop**2


def _times(times: float) -> str:
    return f"{times:.0f}× the time" if times >= 1 else f"about {times:.0%} of the time"
