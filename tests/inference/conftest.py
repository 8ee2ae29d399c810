"""Fixtures of the inference tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from nonlocal_video.inference.load import load
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.models.checkpoint import load_checkpoint, save_checkpoint
from nonlocal_video.video.encode import write_video


@pytest.fixture(scope="session")
def unsure_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model with a weak classifier, so that it is never so sure that scores stop to differ."""
    network, card = load_checkpoint(tiny_model)
    with torch.no_grad():
        network.fc.weight.mul_(0.005)
    path = tmp_path_factory.mktemp("unsure") / "tiny.safetensors"
    save_checkpoint(path, network, card, dtype=torch.float32)
    return path


@pytest.fixture(scope="module")
def recognizer(unsure_model: Path) -> Iterator[Recognizer]:
    """The unsure model; modules that need another one have a fixture of this name."""
    with load(unsure_model, device="cpu") as loaded:
        yield loaded


@pytest.fixture(scope="session")
def colour_clip(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Writes a clip of so many frames of changing colours, at 10 a second, into a folder of its own."""

    def write(num_frames: int) -> Path:
        path = tmp_path_factory.mktemp("colours") / "colours.mp4"
        colours = np.random.default_rng(0).integers(0, 256, (num_frames, 3, 4, 3), dtype=np.uint8)
        write_video(path, (colour.repeat(24, 0).repeat(24, 1) for colour in colours), fps=10)
        return path

    return write
