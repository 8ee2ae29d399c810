"""From clips to a corrected model: features, search, teach, timeline, ELAN and back, teach again, evaluate."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from colour_clips import COLOURS, write_colour

from nonlocal_video.features.table import read_features
from nonlocal_video.video.encode import write_video

pytestmark = pytest.mark.slow
ORDER = ("red", "blue", "green", "red")
SECONDS_EACH = 4.0


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Four seconds of each colour of `ORDER`, 10 frames a second."""
    random = np.random.default_rng(50)
    patches = np.concatenate([np.array(COLOURS[name]) + random.integers(-40, 41, (40, 6, 8, 3)) for name in ORDER])
    frames = (np.kron(patch, np.ones((12, 12, 1))).astype(np.uint8) for patch in patches.clip(0, 255))
    path = tmp_path / "film.mp4"
    write_video(path, frames, fps=10)
    return path


def test_from_clips_to_a_corrected_model(film: Path, tiny_model: Path, tmp_path: Path, run: Callable[..., Any]) -> None:
    base = ("--model", tiny_model, "--device", "cpu")
    clips = tmp_path / "clips"
    for number, (label, colour) in enumerate(COLOURS.items()):
        for clip in range(5):
            write_colour(clips / label / f"{clip}.mp4", colour, 10 * number + clip)

    table = tmp_path / "clips.parquet"
    assert run("features", clips, "--output", table, *base).status == 0
    assert len(set(read_features(table).paths)) == 15

    found = run("search", table, "--like", clips / "green" / "2.mp4", "--top-k", 4, "--json", *base)
    hits = json.loads(found.out)["hits"]
    assert [Path(hit["path"]).parent.name for hit in hits] == ["green"] * 4

    taught = tmp_path / "taught"
    report = json.loads(run("teach", clips, "--output", taught, "--json", *base).out)
    assert (report["num_examples"], report["num_classes"], report["accuracy"]) == (15, 3, 1.0)

    marked = tmp_path / "film.eaf"
    assert run("timeline", film, "--model", taught, "--device", "cpu", "--output", marked).status == 0
    # Somebody renames a class in ELAN.
    marked.write_text(marked.read_text("utf-8").replace(">blue<", ">sea<"), "utf-8")
    corrected = tmp_path / "film.segments.csv"
    assert run("annotations", "convert", marked, corrected).status == 0
    rows = [line.split(",") for line in corrected.read_text("utf-8").splitlines()[1:]]
    assert [row[3] for row in rows] == ["red", "sea", "green", "red"]
    bounds = [float(row[1]) for row in rows]
    assert bounds == pytest.approx([SECONDS_EACH * number for number in range(4)], abs=0.5)

    again = tmp_path / "again"
    report = json.loads(run("teach", corrected, "--output", again, "--json", *base).out)
    assert (report["num_examples"], report["num_classes"]) == (4, 3)

    truth = tmp_path / "truth.segments.csv"
    lines = [
        f"film.mp4,{SECONDS_EACH * number},{SECONDS_EACH * (number + 1)},{'sea' if name == 'blue' else name}"
        for number, name in enumerate(ORDER)
    ]
    truth.write_text("\n".join(["path,start_seconds,end_seconds,label", *lines]) + "\n", "utf-8")
    measured = run("evaluate", truth, "--segments", "--model", again, "--device", "cpu", "--json")
    assert measured.status == 0, measured.err
    assert json.loads(measured.out)["frame_accuracy"] > 0.9
