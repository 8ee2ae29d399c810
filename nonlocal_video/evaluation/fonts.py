"""Fonts that can draw the labels' letters: matplotlib's own, this machine's, and those of the extra `fonts`."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("manimgx_fonts", "noto_cjk_sans_jp_regular")
"""Packages of the extra `fonts`: Noto's letters of the world's scripts but Chinese, Japanese and Korean; and those."""
_SUFFIXES = (".ttf", ".otf", ".ttc")
_SHAPED = (
    "ARABIC", "SYRIAC", "THAANA", "NKO", "HEBREW", "DEVANAGARI", "BENGALI", "GURMUKHI", "GUJARATI", "ORIYA", "TAMIL",
    "TELUGU", "KANNADA", "MALAYALAM", "SINHALA", "TIBETAN", "MYANMAR", "KHMER", "MONGOLIAN",
)  # fmt: skip
"""Scripts with joining, reordered or right-to-left letters, which need a layout engine."""
_JOINERS = "\u200c\u200d"
"""Zero-width (non-)joiners, which the spelling of Persian, Sinhala and others asks for: they have no picture."""


def can_be_drawn(name: str) -> bool:
    """Return whether matplotlib can draw a name with the fonts that there are."""
    if lays_out():
        name = name.translate(dict.fromkeys(map(ord, _JOINERS)))
    elif any(unicodedata.name(character, "").startswith(_SHAPED) for character in name):
        return False
    return all(
        character.isprintable() and any(ord(character) in letters for letters in _letters().values())
        for character in name
    )


def lays_out() -> bool:
    """Return whether matplotlib lays text out by libraqm, with which its releases are built from 3.11 on."""
    from matplotlib import ft2font

    return hasattr(ft2font, "__libraqm_version__")


def families_for(text: str) -> list[str]:
    """Return font families that cover the letters of a text, matplotlib's own first."""
    wanted = {ord(character) for character in text}
    families: list[str] = []
    for family, letters in _letters().items():
        if not families or wanted & letters:
            families.append(family)
            wanted -= letters
    return families


def is_extra_missing() -> bool:
    """Return whether a package of the extra `fonts` is not installed."""
    return not all(map(find_spec, PACKAGES))


@lru_cache
def _letters() -> dict[str, frozenset[int]]:
    """Return the code points of each font family: matplotlib's own first, then the machine's, then the extra's."""
    from matplotlib import font_manager
    from matplotlib.ft2font import FT2Font

    known = font_manager.fontManager.ttflist
    own = font_manager.findfont("DejaVu Sans")
    names = [font.name for font in known if font.fname == own]
    names += sorted(font.name for font in known if font.style == "normal" and font.weight in (400, "normal"))
    num_before = len(known)
    for path in _packaged():
        font_manager.fontManager.addfont(path)  # makes its name known, and changes no default
    names += [font.name for font in known[num_before:] if font.style == "normal"]
    found: dict[str, frozenset[int]] = {}
    for name in names:
        if name in found or "last resort" in name.casefold():  # draws a box for every letter
            continue
        try:
            # The file that matplotlib chooses for this family. Text alone would be a pattern, where - and : are signs.
            chosen = font_manager.findfont(font_manager.FontProperties(family=[name]))
            found[name] = frozenset(FT2Font(chosen).get_charmap())
        except (OSError, RuntimeError, ValueError):  # the font is damaged, or was uninstalled meanwhile
            continue
    return found


def _packaged() -> Iterator[Path]:
    """Yield the font files of the packages, which are not imported for it."""
    for package in PACKAGES:
        spec = find_spec(package)
        for folder in () if spec is None else spec.submodule_search_locations or ():
            yield from sorted(path for path in Path(folder).iterdir() if path.suffix in _SUFFIXES)
