"""The code of docs/block_in_another_network.md runs, and a detector that is built like a YOLO takes a block."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import nonlocal_video as nlv

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "block_in_another_network.md").read_text("utf-8")


def test_the_code_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    names: dict[str, Any] = {}
    for code in blocks[:-1]:
        exec(compile(code, "block_in_another_network.md", "exec"), names)
    assert [block.in_channels for block in names["blocks"].values()] == [128, 256]
    assert len(names["before"]) > 0, "without a detection the comparison says nothing"
    assert "ultralytics" in blocks[-1]


class Detector(nn.Module):
    """A list of layers that take the last output or earlier ones, and three heads, as Ultralytics builds a YOLO."""

    def __init__(self) -> None:
        super().__init__()
        widths = [3, 8, 16, 16, 32, 32, 32]
        self.model = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, width, 3, stride=2 - number % 2, padding=1), nn.SiLU())
            for number, (before, width) in enumerate(pairwise(widths))
        )
        self.heads = nn.ModuleList(nn.Conv2d(width, 5, 1) for width in (16, 32, 64))

    def forward(self, pictures: Tensor) -> list[Tensor]:
        outputs = [pictures]
        for layer in self.model:
            outputs.append(layer(outputs[-1]))
        joined = torch.cat([outputs[-1], outputs[-2]], dim=1)
        return [head(x) for head, x in zip(self.heads, (outputs[3], outputs[4], joined), strict=True)]


@pytest.mark.parametrize("at", ["model.3", "model.5"])
def test_a_yolo_like_detector_is_unchanged_until_its_block_is_trained(at: str) -> None:
    detector, pictures = Detector().eval(), torch.rand(2, 3, 64, 96)
    with torch.inference_mode():
        before = detector(pictures)
        (block,) = nlv.insert_nonlocal(detector, at=[at]).values()
        assert all(torch.equal(new, old) for new, old in zip(detector(pictures), before, strict=True))
        for parameter in block.parameters():
            parameter.add_(torch.randn_like(parameter))
        changed = [not torch.equal(new, old) for new, old in zip(detector(pictures), before, strict=True)]
        assert changed == [False, at == "model.3", True], "what lies behind the block sees it"
        nlv.remove_nonlocal(detector)
        assert all(torch.equal(new, old) for new, old in zip(detector(pictures), before, strict=True))
