"""The command line as a user meets it: its help, its exit status, what it prints where.

`run` is the command line in this process. `program`, a process of its own, is for each exit status once, and for what
a whole process imports and prints.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow

PROGRAM = (sys.executable, "-m", "nonlocal_video")
Run = Callable[..., Any]


def program(*arguments: object, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=timeout, check=False
    )


def loaded_modules(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


def test_import_and_help_load_nothing_heavy() -> None:
    heavy = {"torch", "torchvision", "gradio", "av", "decord", "pytorchvideo", "pyarrow", "matplotlib", "numpy"}
    assert not loaded_modules("import nonlocal_video") & heavy
    help_of_all = "import contextlib, sys\nfrom nonlocal_video.cli.main import main\nsys.argv = ['nlv', '--help']\n"
    assert not loaded_modules(help_of_all + "with contextlib.suppress(SystemExit): main()") & heavy


def test_help_names_every_verb_and_version_is_printed() -> None:
    done = program("--help")
    assert done.returncode == 0
    verbs = (
        "classify explain timeline watch features teach train evaluate check import export serve doctor "
        "analyze annotations benchmark weights"
    )
    for verb in verbs.split():
        assert verb in done.stdout
    import nonlocal_video

    assert program("--version").stdout.strip() == f"nonlocal-video {nonlocal_video.__version__}"


def test_json_rows_have_the_agreed_keys_and_a_bad_file_makes_the_status_1(tiny_model: Path, clip_folder: Path) -> None:
    done = program("classify", clip_folder, "--model", tiny_model, "--json", "--top-k", 3, "--runtime", "torch")
    assert done.returncode == 1
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 4
    for row in rows:
        assert {"path", "status", "model", "top", "error", "video", "seconds"} <= set(row)
    good = rows[0]
    assert (good["status"], good["model"], good["error"], len(good["top"])) == ("ok", "tiny", None, 3)
    assert set(good["top"][0]) == {"label", "index", "score"}
    assert set(good["video"]) == {
        "duration_seconds", "num_frames", "fps", "width", "height", "codec", "rotation_degrees", "start_seconds",
        "decoder",
    }  # fmt: skip
    assert set(good["seconds"]) == {"decode", "transform", "forward", "total"}
    bad = next(row for row in rows if row["status"] == "error")
    assert bad["error"]["code"] == "not_a_video"
    assert done.stderr.strip() == "4 files: 3 ok, 1 not_a_video"


def test_the_same_clip_gives_the_same_scores_here_and_in_python(run: Run, tiny_model: Path, clip_folder: Path) -> None:
    import nonlocal_video as nlv

    done = run("classify", clip_folder / "a.mp4", "--model", tiny_model, "--json", "--top-k", 7, "--runtime", "torch")
    with nlv.load(tiny_model, runtime="torch") as recognizer:
        expected = recognizer.classify(clip_folder / "a.mp4").to_row(7)["top"]
    assert json.loads(done.out)["top"] == expected


def test_good_clips_give_status_0_and_say_what_was_used(
    tiny_model: Path, clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NONLOCAL_VIDEO_CACHE", str(tmp_path))  # without networks that another process compiled
    done = program("classify", clip_folder / "a.mp4", "--model", tiny_model)
    assert done.returncode == 0
    assert "1 view of 8 frames, 48 px, 0.60-1.40 s, decord, cpu" in done.stdout
    assert "action" in done.stdout
    assert done.stderr == (
        "Runtime torch for views of 8 x 48 x 48: compiling the network would take longer than this work.\n"
    )


def test_table_resume_and_refusal_to_overwrite(run: Run, tiny_model: Path, clip_folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "table.csv"
    command = ("classify", clip_folder, "--model", tiny_model, "--output", output)
    assert run(*command).status == 1
    assert len(output.read_text().splitlines()) == 5
    refused = run(*command)
    assert refused.status == 2
    assert "--resume" in refused.err
    again = run(*command, "--resume")
    assert "4 files: 3 ok, 1 not_a_video (4 of them done before)" in again.err
    other = run(*command, "--resume", "--views", "2x1")
    assert other.status == 2
    assert "views was '1x1' and is '2x1'" in other.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--views", "big"), "CLIPSxCROPS"),
        (("--device", "cuda:99"), "device = 'cuda:99'"),
        (("--resume",), "--output"),
        (("--output", "table.xlsx"), ".parquet"),
        (("--model", "nope"), "weights list"),
        (("--top-k", "0"), "top-k"),
    ],
)
def test_wrong_usage_is_status_2_with_one_message(
    arguments, message, run: Run, tiny_model: Path, clip_folder: Path
) -> None:
    model = () if "--model" in arguments else ("--model", tiny_model)
    done = run("classify", clip_folder / "a.mp4", *model, *arguments)
    assert done.status == 2
    assert message in done.err
    assert "Traceback" not in done.err
    assert done.out == ""


def test_missing_file_and_empty_folder(run: Run, tiny_model: Path, tmp_path: Path) -> None:
    missing = run("classify", tmp_path / "gone.mp4", "--model", tiny_model)
    assert missing.status == 1
    assert "not_found" in missing.out
    empty = program("classify", tmp_path, "--model", tiny_model)
    assert empty.returncode == 2
    assert "no file" in empty.stderr
    assert empty.stdout == ""


def test_names_that_are_hard(tiny_model: Path, clip_folder: Path, tmp_path: Path) -> None:
    names = [b"-dash.mp4", b"two\nlines.mp4", b"latin\xe9.mp4", "ünïcode ☃.mp4".encode()]
    for name in names:
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
            file.write((clip_folder / "z with space.mp4").read_bytes())
    output = tmp_path.parent / "hard.parquet"
    done = program("classify", tmp_path, "--model", tiny_model, "--json", "--output", output)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["status"] for row in rows] == ["ok"] * 4
    assert {Path(row["path"]).name for row in rows} == {
        "-dash.mp4", "two\nlines.mp4", "latin\\xe9.mp4", "ünïcode ☃.mp4",
    }  # fmt: skip


def test_explain_writes_video_pictures_and_arrays(
    run: Run, tiny_model: Path, clip_folder: Path, tmp_path: Path
) -> None:
    for number, options in enumerate(
        [(), ("--query", "1.0,0.5,0.5"), ("--method", "evidence"), ("--method", "evidence", "--layer", "layer2")]
    ):
        folder = tmp_path / str(number)
        done = run("explain", clip_folder / "a.mp4", "--model", tiny_model, "--output", folder, *options)
        assert done.status == 0, done.err
        pictures = sorted((folder / "frames").iterdir())
        assert len(pictures) == 8
        assert Image.open(pictures[0]).size == (96, 72)
        arrays = np.load(folder / "attention.npz")
        assert arrays["maps"].shape == (8, 72, 96)
        assert np.isfinite(arrays["maps"][:, 20:50, 30:60]).all()
        # "maps" are the cells, interpolated: no value can leave their range
        assert np.nanmax(arrays["maps"]) <= arrays["cells"].max() * 1.01 + 1e-3
        np.testing.assert_allclose(arrays["seconds"], 0.6 + np.arange(8) / 10, atol=1e-6)
        probe = subprocess.run(
            ["ffprobe", "-v", "error", "-show_entries", "stream=codec_name,pix_fmt,nb_frames,width,height", "-of",
             "json", folder / "overlay.mp4"], capture_output=True, text=True, check=True,
        )  # fmt: skip
        stream = json.loads(probe.stdout)["streams"][0]
        assert stream == {
            "codec_name": "h264", "width": 96, "height": 72, "pix_fmt": "yuv420p", "nb_frames": "8",
        }  # fmt: skip
        head = (folder / "overlay.mp4").read_bytes()
        assert head.index(b"moov") < head.index(b"mdat")  # plays before it is loaded


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (("--query", "1,2"), 2, "SECONDS,X,Y"),
        (("--query", "1,0.01,0.5"), 2, "outside the square"),
        (("--query", "1,1.5,0.5"), 2, "0 to 1"),
        (("--query", "9,0.5,0.5"), 2, "after the end"),
        (("--layer", "layer2"), 2, "layer3.nonlocal0"),
        (("--method", "evidence", "--layer", "nope"), 2, "outermost layers"),
        (("--method", "query"), 2, "SECONDS,X,Y"),
        (("--label", "no such action"), 2, "not a class"),
    ],
)
def test_explain_refuses_in_words(
    options, status, message, run: Run, tiny_model: Path, clip_folder: Path, tmp_path
) -> None:
    done = run("explain", clip_folder / "a.mp4", "--model", tiny_model, "--output", tmp_path / "out", *options)
    assert done.status == status
    assert message in done.err
    assert "Traceback" not in done.err


def test_explain_of_a_bad_file_is_status_1(run: Run, tiny_model: Path, clip_folder: Path, tmp_path: Path) -> None:
    done = run("explain", clip_folder / "b" / "note.mp4", "--model", tiny_model, "--output", tmp_path / "out")
    assert done.status == 1
    assert done.err.startswith("not_a_video: ")
    assert len(done.err.splitlines()) == 1


def test_doctor_finds_what_works() -> None:
    done = program("doctor")
    assert done.returncode == 0, done.stdout
    for words in ("torch", "decoder pyav", "decoder decord", "default model", "mpegts"):
        assert words in done.stdout


def test_awkward_files_get_a_row_each_and_nothing_else_is_printed(tiny_model: Path, data_folder: Path) -> None:
    folder = data_folder / "awkward"
    done = program("classify", folder, "--model", tiny_model, "--json", "--runtime", "torch", timeout=300)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert sorted(row["path"] for row in rows) == sorted(str(path) for path in folder.iterdir())
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1  # the summary: whatever the decoding libraries print stays in their process
    assert done.stderr.startswith(f"{len(rows)} files: ")
    for row in rows:
        assert (row["status"] == "ok") == (row["error"] is None) == bool(row["top"])
