"""The camera's script, which several components share, and the words that it may need."""

from __future__ import annotations

from pathlib import Path

from .. import texts

_HERE = Path(__file__).parent


def script_with_camera(name: str) -> str:
    """Return a component's script after the one that opens the browser's camera."""
    return "\n".join((_HERE / file).read_text(encoding="utf-8") for file in ("camera.js", name))


def style_of(name: str) -> str:
    """Return a component's style."""
    return (_HERE / name).read_text(encoding="utf-8")


WORDS: dict[str, str] = {
    "no_camera": texts.NO_CAMERA,
    "insecure": texts.CAMERA_NEEDS_HTTPS,
    "refused": texts.CAMERA_REFUSED,
    "camera_busy": texts.CAMERA_BUSY,
}
"""Sentences about a camera that cannot be used."""
