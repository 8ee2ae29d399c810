"""The command line in poor surroundings: no PATH, no working folder, closed streams; and spans of other clips."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import nonlocal_video as nlv
from nonlocal_video.errors import PartError

pytestmark = pytest.mark.slow

COMMAND = [sys.executable, "-c", "from nonlocal_video.cli.main import main; main()"]
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="written for Linux")


@linux_only
def test_without_anything_in_the_environment(tiny_model: Path, clip_folder: Path) -> None:
    arguments = ["classify", str(clip_folder / "a.mp4"), "--model", str(tiny_model), "--device", "cpu", "--json"]
    done = subprocess.run([*COMMAND, *arguments], env={}, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    assert (row["status"], row["video"]["decoder"]) == ("ok", "decord")


@linux_only
@pytest.mark.parametrize("arguments", [("--version",), ("classify", "clip.mp4")])
def test_a_working_folder_that_is_gone(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """torch's numeric library ended the process there, without a row or a status of ours."""

    def leave() -> None:
        os.chdir(tmp_path / "here")
        os.rmdir(tmp_path / "here")

    (tmp_path / "here").mkdir()
    done = subprocess.run([*COMMAND, *arguments], preexec_fn=leave, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "The working directory was deleted; change to one that exists, and try again.\n"


@linux_only
def test_what_libraries_print_never_gets_into_a_table(tiny_model: Path, clip_folder: Path, tmp_path: Path) -> None:
    """The table was the next file to get the number of standard error, where that was closed."""

    def close_all() -> None:
        for descriptor in range(3):
            os.close(descriptor)

    script = (
        "import os, sys\n"
        "from nonlocal_video.inference.recognizer import Recognizer\n"
        "predict = Recognizer.predict\n"
        "def printing(*arguments, **options):\n"
        "    os.write(2, b'a C library speaks')\n"
        "    os.write(1, b'a C library speaks')\n"
        "    return predict(*arguments, **options)\n"
        "Recognizer.predict = printing\n"
        "from nonlocal_video.cli.main import main; main()\n"
    )
    table = tmp_path / "t.csv"
    arguments = ["classify", str(clip_folder / "a.mp4"), "--model", str(tiny_model), "--device", "cpu"]
    arguments += ["--output", str(table)]
    done = subprocess.run([sys.executable, "-c", script, *arguments], preexec_fn=close_all, check=False, timeout=120)
    assert done.returncode == 0
    assert "speaks" not in table.read_text()
    assert [row["status"] for row in csv.DictReader(table.open(newline=""))] == ["ok"]


def test_a_span_that_some_clips_do_not_have(tiny_model: Path, clip_folder: Path, run: Callable[..., Any]) -> None:
    """a.mp4 lasts 2 s, c.mp4 1.2 s: the row of the one that lacks the span says so, and is no fault of ours."""
    done = run(
        "classify", clip_folder / "a.mp4", clip_folder / "b" / "c.mp4", "--model", tiny_model, "--start-seconds", "1.5",
        "--json",
    )  # fmt: skip
    assert done.status == 1
    rows = {Path(row["path"]).name: row for row in map(json.loads, done.out.splitlines())}
    assert rows["a.mp4"]["status"] == "ok"
    assert rows["c.mp4"]["error"]["code"] == "not_found"
    assert rows["c.mp4"]["error"]["message"] == (
        "c.mp4: it has no such part: start_seconds = 1.5 should be from 0 to before the video's end at 1.200 s."
    )
    done = run("classify", clip_folder / "a.mp4", "--model", tiny_model, "--end-seconds", "99", "--json")
    assert json.loads(done.out)["error"]["code"] == "not_found"
    with nlv.load(tiny_model, device="cpu") as recognizer, pytest.raises(PartError, match=r"end at 2\.000 s"):
        recognizer.classify(clip_folder / "a.mp4", start_seconds=99)


def test_bytes_without_a_temporary_folder(tiny_model: Path, clip_folder: Path, tmp_path: Path, monkeypatch) -> None:
    clip = (clip_folder / "a.mp4").read_bytes()
    with nlv.load(tiny_model, device="cpu") as recognizer:
        assert recognizer.classify(clip).top(1)
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
        with pytest.raises(nlv.VideoError, match=r"<bytes>: .*TMPDIR") as caught:
            recognizer.classify(clip)
        assert caught.value.code == "internal"
        assert recognizer.classify(clip_folder / "a.mp4").top(1)  # files need none
