"""The guide to the HTTP API, as it is printed, against a server."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from absent import absent
from serving import Server

from nonlocal_video.app.http_errors import STATUS_OF_CLIP_ERROR
from nonlocal_video.video.decode import VideoReader

pytestmark = pytest.mark.slow

GUIDE = (Path(__file__).parents[2] / "docs" / "http_api.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(sh|python)\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
ADDRESS = "http://127.0.0.1:7860"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, clip_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("reader")
    shutil.copy(clip_folder / "a.mp4", folder / "clip.mp4")
    return folder


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_what_is_printed_works(small_server: Server, folder: Path, number: int) -> None:
    language, text = BLOCKS[number]
    assert ADDRESS in text
    text = text.replace(ADDRESS, small_server.url)
    if language == "sh" and shutil.which("curl") is None:
        absent("no curl on PATH")
    command = [sys.executable, "-c", text] if language == "python" else ["sh", "-e", "-c", text]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    if "overlay.mp4" in text:
        with VideoReader() as reader:
            assert reader.probe(folder / "overlay.mp4").codec == "h264"
    elif language == "sh":
        answer = json.loads(done.stdout)
        row = answer.get("prediction", answer)
        assert (row["path"], row["status"], row["model"]) == ("clip.mp4", "ok", "tiny")
        assert len(row["top"]) == (3 if "top_k=3" in text else 5)
    elif "/v1/features" in text:
        assert all(line.endswith(" 32 layer4") for line in done.stdout.splitlines())
        assert done.stdout
    else:
        assert "action" in done.stdout


def test_the_guide_has_examples_of_both_kinds() -> None:
    assert [language for language, _ in BLOCKS] == ["sh", "sh", "python", "sh", "sh", "python", "python"]


def test_the_guide_names_each_code_with_its_status() -> None:
    rows = dict(re.findall(r"^\| (\d{3}) \| (.*) \|$", GUIDE, re.MULTILINE))
    for code, status in STATUS_OF_CLIP_ERROR.items():
        assert f"`{code}`" in rows[str(status)]
