"""Choices that the page offers for a model."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nonlocal_video.app.choices import (
    STRIDES,
    about_model,
    is_averaged,
    standard_view,
    timeline_cost,
    view_choices,
    window_choices,
)
from nonlocal_video.models.card import InputSpec, ModelCard

SPEC = InputSpec(
    num_frames=64, frames_per_second=25.0, short_side=256, crop=224, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
)
CARD = ModelCard(
    name="any", architecture="any", config={}, input=SPEC, fast_input=replace(SPEC, num_frames=32), labels=("a", "b")
)


def test_views_come_with_their_cost_and_the_standard_one_comes_first() -> None:
    assert view_choices(CARD) == [
        ("Standard", "1x1"),
        ("Quick look, about 50% of the time", "fast"),
        ("Thorough: 3 moments, 4× the time", "3x1"),
        ("The paper's 10 × 3 views, 31× the time", "10x3"),
    ]


def test_a_model_without_a_fast_view_offers_none() -> None:
    assert "fast" not in [value for _, value in view_choices(replace(CARD, fast_input=None))]


def test_cost_counts_pixels() -> None:
    small = replace(SPEC, num_frames=32, crop=112)  # half the frames of a quarter of the size
    assert view_choices(replace(CARD, fast_input=small))[1] == ("Quick look, about 12% of the time", "fast")


def test_standard_view_in_words() -> None:
    assert standard_view(CARD) == "Standard looks at 64 frames, 2.6 s from the middle of the clip."


def test_windows_say_what_they_take_in() -> None:
    assert window_choices(CARD) == [
        ("Standard: 2.6 s, 64 frames", "1x1"),
        ("Short: 1.3 s, 32 frames", "fast"),
        ("Wide: 10.2 s, 64 frames spread out; less exact", "wide"),
    ]
    assert [value for _, value in window_choices(replace(CARD, fast_input=None))] == ["1x1", "wide"]


@pytest.mark.parametrize(
    ("window", "stride", "words"),
    [
        ("1x1", 0.5, "47 looks at 64 frames, as much as 47 standard"),  # 60 / 1.28
        ("1x1", 1.0, "23 looks at 64 frames, as much as 23 standard"),
        ("fast", 0.5, "94 looks at 32 frames, as much as 47 standard"),
        ("wide", 0.25, "23 looks at 64 frames, as much as 23 standard"),
    ],
)
def test_a_timeline_comes_with_its_cost(window: str, stride: float, words: str) -> None:
    assert words in timeline_cost(CARD, window, stride)
    assert stride in [value for _, value in STRIDES]


@pytest.mark.parametrize(("views", "averaged"), [("1x1", False), ("fast", False), ("3x1", True), ("10x3", True)])
def test_is_averaged(views: str, averaged: bool) -> None:
    assert is_averaged(views) == averaged


def test_the_notes_of_a_model_are_folded() -> None:
    words = about_model(replace(CARD, notes=("Of Mixed_5c.", "Whitened.")), "cpu", "Up to 500 MB.")
    seen, fold = words.split("<details>")
    assert seen == "Model any, computing on cpu.\n\nUp to 500 MB.\n\n"
    assert "Of Mixed_5c.\n\nWhitened." in fold
    assert "details" not in about_model(CARD, "cpu", "Up to 500 MB.")
