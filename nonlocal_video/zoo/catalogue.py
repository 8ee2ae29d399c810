"""The models that can be named, and where their weights are."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from nonlocal_video.errors import ModelError

if TYPE_CHECKING:
    from torch import nn

    from nonlocal_video.models.card import ModelCard

DEFAULT = "i3d-nl-k400"
EMBEDDED = (DEFAULT,)
"""Models whose weights travel inside the package."""


def find(name_or_path: str | Path) -> Path:
    """The safetensors file of a catalogue name, `default`, or a path to a file of ours.

    Raises:
        ModelError: Neither a known name nor an existing file.
    """
    name = DEFAULT if str(name_or_path) == "default" else str(name_or_path)
    if name in EMBEDDED:
        return Path(str(files("nonlocal_video.weights"))) / f"{name}.safetensors"
    path = Path(name_or_path)
    if path.is_file():
        return path
    raise ModelError(
        f"There is no model or weights file {name!r}. Known models: default, {', '.join(EMBEDDED)}; "
        "or give the path of a .safetensors file saved by this project."
    )


def load_network(name_or_path: str | Path) -> tuple[nn.Module, ModelCard]:
    """The network with its weights, float32, in eval mode, and its card."""
    from nonlocal_video.models.checkpoint import load_checkpoint

    return load_checkpoint(find(name_or_path))


def build(name_or_path: str | Path) -> nn.Module:
    """The network of a catalogue name, newly initialised, without reading its weights."""
    from nonlocal_video.models.checkpoint import build_network, read_card

    return build_network(read_card(find(name_or_path)))
