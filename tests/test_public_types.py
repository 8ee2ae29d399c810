"""The public names are typed: a user's program that uses them passes mypy, and wrong uses do not."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import nonlocal_video as nlv

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = """
from pathlib import Path

import numpy as np
import torch
from torch import nn

import nonlocal_video as nlv

recognizer: nlv.Recognizer = nlv.load("default", device="auto", precision="float32", download=True)
prediction: nlv.Prediction = recognizer("clip.mp4", views="3x1")
label: str = recognizer.classify(np.zeros((8, 64, 64, 3), np.uint8), frames_per_second=8).top1.label
score: float = prediction.top(5)[0].score
seconds: float = prediction.timings.total
words: str = prediction.summary
network: nn.Module = recognizer.network
labels: tuple[str, ...] = recognizer.labels
clips: torch.Tensor = recognizer.preprocess("clip.mp4", views="3x1")
table: nlv.FolderResult = recognizer.classify_folder("clips/", output="t.parquet", resume=True)
paths: list[str] = [row["path"] for row in table]
maps: nlv.AttentionMaps = recognizer.explain("clip.mp4", query=(1.5, 0.5, 0.4))
path: Path = maps.save_overlay("overlay.mp4")
explanation: nlv.Explanation = recognizer.explain_all("clip.mp4")
evidence: nlv.AttentionMaps = explanation.maps(method="gradcam", label=label)
timeline: nlv.Timeline = recognizer.timeline("match.mp4", stride_seconds=1)
found: nlv.WindowFeatures = recognizer.features("match.mp4", stride_seconds=1)
windows: int = nlv.extract_features(recognizer, "clips/", output="f.parquet", resume=True).num_windows
of_table: np.ndarray = nlv.read_features("f.parquet").features
arrays: Path = nlv.extract_arrays(recognizer, ["clips/"], output="arrays", layout="rtfm").output
block: nn.Module = nlv.NonLocalBlock(512, dimension=3, nonlocal_type="dot_product")
nlv.insert_nonlocal(network, at=["layer3.1"])
hits: nlv.SearchResult = nlv.search("table.parquet", like=["clip.mp4", nlv.SearchExample("b.mp4", at=3.2)], top_k=20)
likeness: float = hits[0].score
run: nlv.TrainedRun = nlv.train("clips/", output="runs/r", stage="head", callback=nlv.TrainCallback())
report: nlv.Evaluation = nlv.evaluate("clips/", model=run)
taught: nlv.TaughtRun = nlv.teach("examples/", output="runs/t", callback=nlv.TeachCallback())
known: float | None = taught.report.accuracy
unknown: bool | None = nlv.load(taught).classify("clip.mp4").unknown
names: list[str] = nlv.list_models("*nl*")
weights: Path = nlv.pull(names[0])
model: nn.Module = nlv.build(names[0])
with nlv.VideoReader() as reader:
    frames = reader.read("clip.mp4", [0.0, 0.5]).frames_thwc
"""
WRONG = """
import nonlocal_video as nlv

recognizer = nlv.load(5)
recognizer.classify("clip.mp4").top1.name
nlv.train("clips/", output="runs/r", stage="everything")
recognizer.explain("clip.mp4", start_seconds="1")
recognizer.timeline("clip.mp4", views="3x1")
"""


def test_a_users_program_is_checked(tmp_path: Path) -> None:
    """Both programs in one run of mypy, which takes longer to read PyTorch's types than to check either."""
    (tmp_path / "right.py").write_text(PROGRAM)
    (tmp_path / "wrong.py").write_text(WRONG)
    # The project's own settings, so that what `make lint` has found of PyTorch and others is taken from its cache.
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-error-summary", str(tmp_path / "right.py"), str(tmp_path / "wrong.py")],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    found = re.findall(r"^(?:.*/)?(\w+\.py):(\d+): error: ", done.stdout, re.MULTILINE)
    assert done.stdout.count(" error: ") == len(found), done.stdout
    assert found == [("wrong.py", str(line)) for line in (4, 5, 6, 7, 8)], done.stdout + done.stderr


def test_every_public_name_has_a_docstring() -> None:
    for name in set(nlv.__all__) - {"__version__"}:
        assert (getattr(nlv, name).__doc__ or "").strip(), name
