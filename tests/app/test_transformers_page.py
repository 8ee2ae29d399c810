"""The page's server with a video classifier of transformers: scores, evidence and attention."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from gradio_client import Client, handle_file
from serving import serving

sys.path.insert(0, str(Path(__file__).parents[1] / "zoo"))
from transformers_folders import LABELS, small_folder

pytestmark = pytest.mark.slow


def test_it_answers_and_explains(tmp_path: Path, clip_folder: Path) -> None:
    model = small_folder(tmp_path / "videomae-tiny")
    (tmp_path / "run").mkdir()
    with serving(tmp_path / "run", "--model", str(model)) as server:
        client = Client(server.url, verbose=False)
        row = client.predict(handle_file(str(clip_folder / "a.mp4")), api_name="/classify")
        assert row["status"] == "ok"
        assert {one["label"] for one in row["top"]} == set(LABELS)
        assert sum(one["score"] for one in row["top"]) == pytest.approx(1, abs=1e-6)
        asked, _ = client.predict(
            handle_file(str(clip_folder / "a.mp4")), query_seconds=0.9, query_x=0.5, query_y=0.5, api_name="/explain"
        )
        assert asked["method"] == "query"
        assert asked["layer"].endswith("attention.attention")
        evidence, _ = client.predict(handle_file(str(clip_folder / "a.mp4")), label=LABELS[2], api_name="/explain")
        assert (evidence["method"], evidence["layer"]) == ("evidence", "features")
