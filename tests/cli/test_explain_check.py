"""`explain --check`: the numbers on the screen, in check.json, and as they come out when they are computed by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nonlocal_video as nlv
from nonlocal_video.models.checkpoint import load_checkpoint, save_checkpoint


def test_the_check_is_said_and_written(
    tiny_model: Path, clip_folder: Path, tmp_path: Path, run: Callable[..., Any]
) -> None:
    clip = clip_folder / "a.mp4"
    options = ("--model", tiny_model, "--output", tmp_path, "--check", "--method", "evidence", "--label", "action 2")
    done = run("explain", clip, *options)
    assert done.status == 0, done.err
    row = json.loads((tmp_path / "check.json").read_text())
    about = {"path": str(clip), "model": "tiny", "method": "evidence", "label": "action 2", "class_index": 2}
    assert about.items() <= row.items()
    assert (row["fraction"], row["baseline"]) == (0.2, "blur")
    with nlv.load(tiny_model, device="cpu") as recognizer:
        assert row["score"] == pytest.approx(recognizer.classify(clip).scores[2], abs=1e-6)
    assert len(row["without_displaced"]) == 4
    (line,) = [line for line in done.out.splitlines() if line.startswith("  Check: ")]
    assert line.startswith('  Check: with the strongest 20% of the cells blurred, "action 2" ')
    assert f"{row['without_strongest']:.2f}; with the same shape elsewhere (4 draws) it " in line
    assert f"{np.mean(row['without_displaced']):.2f} on average. " in line
    assert line.endswith(" (check.json)")
    assert done.err.startswith("Runtime torch for views of 8 x 48 x 48: ")
    assert done.err.count("\n") == 1  # a bar on terminals only


def test_a_map_that_cannot_be_checked_is_drawn_all_the_same(
    tiny_model: Path, clip_folder: Path, tmp_path: Path, run: Callable[..., Any]
) -> None:
    network, card = load_checkpoint(tiny_model)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    blank = tmp_path / "blank.safetensors"
    save_checkpoint(blank, network, card, dtype=torch.float32)
    clip, words = (
        clip_folder / "a.mp4",
        "The map has the same value everywhere: it ranks nothing, so it cannot be checked.",
    )
    (tmp_path / "check.json").write_text("of an earlier map")
    done = run("explain", clip, "--model", blank, "--output", tmp_path, "--check", "--method", "evidence")
    assert done.status == 0, done.err
    assert f"  Check: {words}\n" in done.out
    assert (tmp_path / "overlay.mp4").is_file()
    assert not (tmp_path / "check.json").exists()


def test_a_map_of_four_cells_is_compared_with_the_three_others(
    tiny_model: Path, clip_folder: Path, tmp_path: Path, run: Callable[..., Any]
) -> None:
    done = run("explain", clip_folder / "a.mp4", "--model", tiny_model, "--output", tmp_path, "--check")
    assert done.status == 0, done.err
    assert "with the same shape elsewhere (3 draws)" in done.out
    assert len(json.loads((tmp_path / "check.json").read_text())["without_displaced"]) == 3


def test_nothing_is_checked_unasked(
    tiny_model: Path, clip_folder: Path, tmp_path: Path, run: Callable[..., Any]
) -> None:
    done = run("explain", clip_folder / "a.mp4", "--model", tiny_model, "--output", tmp_path, "--method", "evidence")
    assert done.status == 0, done.err
    assert "Check" not in done.out
    assert not (tmp_path / "check.json").exists()
