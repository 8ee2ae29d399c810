"""Fixtures of the inference tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nonlocal_video.models.checkpoint import load_checkpoint, save_checkpoint


@pytest.fixture(scope="session")
def unsure_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model with a weak classifier, so that it is never so sure that scores stop to differ."""
    network, card = load_checkpoint(tiny_model)
    with torch.no_grad():
        network.fc.weight.mul_(0.005)
    path = tmp_path_factory.mktemp("unsure") / "tiny.safetensors"
    save_checkpoint(path, network, card, dtype=torch.float32)
    return path
