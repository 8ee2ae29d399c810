"""Letters of class names: what is said to be drawable is drawn as another program lays it out."""

from __future__ import annotations

import importlib.util
import io
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from absent import needs
from matplotlib import font_manager
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont, features

from nonlocal_video.evaluation import fonts
from nonlocal_video.evaluation.confusion import draw_confusion
from nonlocal_video.evaluation.fonts import can_be_drawn, families_for, lays_out

needs_packages = needs(all(map(importlib.util.find_spec, fonts.PACKAGES)), "pip install 'nonlocal-video[fonts]'")
needs_layout = needs(lays_out(), "matplotlib before 3.11 lays no text out")
SHAPED = {
    "Arabic": "السباحة في النهر",
    "Persian": "می\u200cروم",
    "Hebrew": "שחייה בנהר",
    "Hindi": "क्रिकेट",
    "Bengali": "ক্রিকেট",
    "Tamil": "கொடு",
    "Sinhala": "ශ\u0dca\u200dරී",
    "Khmer": "ក្រោម",
    "Myanmar": "ရေကူးခြင်း",
}
OTHERS = {
    "Thai": "ว่ายน้ำ",
    "Ethiopic": "መዋኘት",
    "simplified": "游泳 打篮球",
    "traditional": "游泳 籃球",
    "Japanese": "水泳 バスケ",
    "Korean": "수영 뷁",
}
OF_DEJAVU = ("Arabic", "Persian", "Hebrew")


def drawn(text: str) -> np.ndarray:
    """Ink of a text, from 0 to 1, as the picture of a confusion matrix has it."""
    figure = Figure(figsize=(10, 2), dpi=100)
    figure.text(0.05, 0.4, text, fontsize=36, family=families_for(text), parse_math=False)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return cropped(1 - np.asarray(Image.open(file).convert("L"), dtype=float) / 255)


def laid_out(text: str, font: str, *, layout: ImageFont.Layout) -> np.ndarray:
    """The same by Pillow."""
    picture = Image.new("L", (1000, 200))
    ImageDraw.Draw(picture).text((50, 50), text, font=ImageFont.truetype(font, 50, layout_engine=layout), fill=255)
    return cropped(np.asarray(picture, dtype=float) / 255)


def cropped(ink: np.ndarray) -> np.ndarray:
    rows, columns = (np.flatnonzero(ink.max(axis=axis) > 0.3) for axis in (1, 0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    """Correlation of two pictures, of which the second is brought to the size of the first, if that is its own."""
    if abs(one.shape[1] / other.shape[1] * other.shape[0] / one.shape[0] - 1) > 0.08:
        return 0.0
    height, width = one.shape
    resized = np.asarray(Image.fromarray((other * 255).astype(np.uint8)).resize((width, height)), dtype=float)
    return float(np.corrcoef(one.ravel(), resized.ravel())[0, 1])


@needs_layout
@needs(features.check("raqm"), "Pillow has no layout engine here")
@pytest.mark.parametrize(
    "language", [pytest.param(name, marks=() if name in OF_DEJAVU else needs_packages) for name in SHAPED]
)
def test_letters_join_and_change_places(language: str) -> None:
    text = SHAPED[language]
    assert can_be_drawn(text)
    font = font_manager.findfont(font_manager.FontProperties(family=families_for(text)[-1:]))
    by_layout, by_letter = (
        likeness(drawn(text), laid_out(text, font, layout=layout))
        for layout in (ImageFont.Layout.RAQM, ImageFont.Layout.BASIC)
    )
    assert by_layout > 0.85
    assert by_letter < by_layout - 0.2


def test_without_a_layout_engine_their_names_are_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "lays_out", lambda: False)
    assert not any(can_be_drawn(SHAPED[name]) for name in OF_DEJAVU)
    assert can_be_drawn("рука")


@pytest.fixture
def only_dejavu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Neither fonts of this machine nor of the extra."""
    known = [font for font in font_manager.fontManager.ttflist if font.name == "DejaVu Sans"]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", known)
    monkeypatch.setattr(fonts, "PACKAGES", ("no_such_package",))
    fonts._letters.cache_clear()
    yield
    monkeypatch.undo()
    fonts._letters.cache_clear()


def test_a_family_whose_name_is_a_pattern_is_found(only_dejavu: None) -> None:
    """matplotlib takes text with a hyphen or a colon for a pattern, not for a name."""
    known = font_manager.fontManager.ttflist
    regular = next(font for font in known if (font.style, font.weight) == ("normal", 400))
    known.append(replace(regular, name="Of-a:Machine"))
    assert set(fonts._letters()) == {"DejaVu Sans", "Of-a:Machine"}


@needs_packages
def test_no_name_is_a_number_and_nothing_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [*OTHERS.values(), *(SHAPED.values() if lays_out() else ())]
    assert all(map(can_be_drawn, names))
    titles: list[str] = []
    monkeypatch.setattr("matplotlib.axes.Axes.set_title", lambda self, text, **options: titles.append(text))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # as matplotlib warns of letters that its fonts do not have
        draw_confusion(np.eye(len(names), dtype=int), names, names, "游泳", tmp_path / "confusion.png")
    assert titles == ["游泳"]


@needs_packages
@pytest.mark.parametrize("encoding", ["gb2312", "big5", "euc_jp", "euc_kr"])
def test_all_characters_of_east_asian_standards_are_there(encoding: str) -> None:
    pairs = (bytes([first, second]) for first in range(0xA1, 0xFE) for second in range(0xA1, 0xFF))
    characters = {pair.decode(encoding, "ignore") for pair in pairs} - {""}
    assert len(characters) > 6000
    # Line drawings, and signs of their own of some standards, aside.
    letters = {character for character in characters if len(character) == 1 and character.isalpha()}
    assert [character for character in sorted(letters) if not can_be_drawn(character)] == []


def test_the_title_names_the_extra_where_it_is_missing(
    only_dejavu: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles: list[str] = []
    monkeypatch.setattr("matplotlib.axes.Axes.set_title", lambda self, text, **options: titles.append(text))
    draw_confusion(np.eye(2, dtype=int), ["跳ぶ", "jump"], ["跳ぶ", "jump"], "tiny", tmp_path / "confusion.png")
    assert titles[0].splitlines() == [
        "tiny",
        "#n is the n-th class in the first line of confusion.csv: 1 of 2 names cannot be drawn with the fonts here",
        "Fonts for most scripts: pip install 'nonlocal-video[fonts]'",
    ]


@needs_packages
def test_nobody_elses_defaults_change() -> None:
    import matplotlib

    def defaults() -> object:
        kinds = ("sans-serif", "serif", "monospace")
        properties = [font_manager.FontProperties(family=[kind]) for kind in kinds]
        return dict(matplotlib.rcParams), [font_manager.findfont(kind) for kind in properties]

    before = defaults()
    fonts._letters.cache_clear()
    assert can_be_drawn("游泳")
    assert defaults() == before
    assert not set(fonts.PACKAGES) & set(sys.modules)
