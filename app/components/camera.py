"""Scripts of components, and the words that those with a camera may need."""

from __future__ import annotations

from pathlib import Path

from .. import tool_texts as texts

_HERE = Path(__file__).parent


def script_of(*names: str) -> str:
    """Return scripts of this folder one after the other."""
    return "\n".join((_HERE / name).read_text(encoding="utf-8") for name in names)


WORDS: dict[str, str] = {
    "no_camera": texts.NO_CAMERA,
    "insecure": texts.CAMERA_NEEDS_HTTPS,
    "refused": texts.CAMERA_REFUSED,
    "camera_busy": texts.CAMERA_BUSY,
}
"""Sentences about a camera that cannot be used."""
