"""docs/notebook.ipynb runs from its first cell to its last, and what it shows is what the results hold."""

from __future__ import annotations

import ast
import base64
import io
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import nonlocal_video as nlv
from nonlocal_video import samples
from nonlocal_video.errors import UsageError
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.notebook import bars, strip

NOTEBOOK = json.loads((Path(__file__).resolve().parents[1] / "docs" / "notebook.ipynb").read_text("utf-8"))
CODE = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def run_cell(code: str, names: dict[str, Any]) -> Any:
    """Run a cell as a notebook does, and return the value of the expression that ends it."""
    tree = ast.parse(code)
    last = tree.body[-1]
    if isinstance(last, ast.Expr):
        tree.body.pop()
    exec(compile(tree, "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names) if isinstance(last, ast.Expr) else None


def pictures(html: str) -> list[np.ndarray]:
    """The pictures in a piece of HTML, decoded."""
    found = re.findall(r"src='data:image/webp;base64,([^']+)'", html)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")) for data in found]


def test_every_cell_runs(
    tiny_model: Path, clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(samples, "fetch_samples", lambda: (SimpleNamespace(path=clip_folder / "a.mp4"),))
    names: dict[str, Any] = {}
    shown = [run_cell(code.replace('"default"', repr(str(tiny_model))), names) for code in CODE]
    html = [value._repr_html_() for value in shown if hasattr(value, "_repr_html_")]
    assert len(html) == 4, "a prediction, a data frame, and two explanations"
    assert (tmp_path / "overlay.mp4").stat().st_size > 1000
    assert capsys.readouterr().out.rstrip().endswith("True"), "a new block changes nothing"


def test_no_outputs_are_stored() -> None:
    cells = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)


@pytest.fixture(scope="module")
def recognizer(tiny_model: Path) -> Recognizer:
    return nlv.load(tiny_model, device="cpu")


def test_a_prediction_shows_the_frames_that_the_network_saw(recognizer: Recognizer, clip_folder: Path) -> None:
    prediction = recognizer.classify(clip_folder / "a.mp4")
    html = prediction._repr_html_()
    times = [float(text) for text in re.findall(r">(\d+\.\d\d) s</div>", html)]
    assert len(pictures(html)) == len(times) == 8
    seen = prediction.views[0].times_seconds
    assert all(min(abs(time - other) for other in seen) < 0.006 for time in times)
    assert re.findall(r"nowrap'>([^<]+)</td>", html) == [one.label for one in prediction.top(5)]
    assert prediction.summary in html


def test_an_explanation_shows_the_same_frames(recognizer: Recognizer, clip_folder: Path) -> None:
    clip = clip_folder / "a.mp4"
    of_answer = pictures(recognizer.classify(clip)._repr_html_())
    of_explanation = pictures(recognizer.explain_all(clip)._repr_html_())
    np.testing.assert_array_equal(of_answer, of_explanation)


def test_overlays_show_the_frame_of_the_query(recognizer: Recognizer, clip_folder: Path) -> None:
    maps = recognizer.explain(clip_folder / "a.mp4", query=(0.93, 0.5, 0.5))
    assert maps.query_index is not None
    html = maps._repr_html_()
    assert f">{maps.seconds[maps.query_index]:.2f} s<" in html
    assert len(pictures(html)) in (8, 9)


def test_a_file_that_is_gone_leaves_the_bars(recognizer: Recognizer, clip_folder: Path, tmp_path: Path) -> None:
    clip = tmp_path / "a.mp4"
    clip.write_bytes((clip_folder / "a.mp4").read_bytes())
    prediction = recognizer.classify(clip)
    clip.write_text("no video any more")
    assert pictures(prediction._repr_html_()) == []
    clip.unlink()
    assert pictures(prediction._repr_html_()) == []
    assert "action" in prediction._repr_html_()


def test_text_is_escaped_and_pictures_keep_their_colours() -> None:
    assert "<script>" not in bars([("<script>alert(1)</script>", 0.5)])
    frame = np.full((56, 100, 3), (200, 40, 90), np.uint8)
    (picture,) = pictures(strip([frame], [1.5]))
    assert picture.shape == (112, 200, 3)
    assert abs(picture.astype(int) - (200, 40, 90)).max() < 8


def test_a_data_frame_has_all_classes_best_first(recognizer: Recognizer, clip_folder: Path) -> None:
    prediction = recognizer.classify(clip_folder / "a.mp4")
    frame = prediction.to_pandas()
    assert list(frame.columns) == ["label", "index", "score"]
    np.testing.assert_array_equal(frame["score"], np.sort(prediction.scores)[::-1])
    assert list(frame["label"]) == [prediction.labels[index] for index in frame["index"]]


def test_without_pandas_a_sentence_says_so(
    recognizer: Recognizer, clip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match="pip install pandas"):
        recognizer.classify(clip_folder / "a.mp4").to_pandas()
