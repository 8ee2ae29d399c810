"""The command line in hard hands: one line that says what is wrong, an honest exit status, and nothing lost."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nonlocal_video.cli.text import shown

Run = Callable[..., Any]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--start-seconds", "nan"), "start_seconds = nan should be a finite number, 0 or above."),
        (("--start-seconds", "-1"), "start_seconds = -1 should be a finite number, 0 or above."),
        (("--end-seconds", "inf"), "end_seconds = inf should be after start_seconds = 0, and finite."),
        (
            ("--start-seconds", "1", "--end-seconds", "1"),
            "end_seconds = 1 should be after start_seconds = 1, and finite.",
        ),
        (("--device", "cpu:3"), "device = 'cpu:3' should be auto, cpu, cuda or cuda:N."),
        (("--limit", "timeout_seconds=1e300"), "timeout_seconds = 1e+300 should be a number above 0, at most"),
        (("--limit", "timeout_seconds=nan"), "timeout_seconds = nan should be a number above 0, at most"),
        (("--limit", f"memory_bytes={10**23}"), f"memory_bytes = {10**23} should be a number above 0, at most"),
        (("--include", "*.avi"), "that --include, --exclude and --shard let pass."),
    ],
)
def test_what_no_clip_can_satisfy_is_wrong_usage(
    run: Run, options: tuple[str, ...], message: str, tiny_model: Path, clip_folder: Path
) -> None:
    done = run("classify", clip_folder, "--model", tiny_model, *options)
    assert (done.status, done.out) == (2, "")
    assert message in done.err
    assert done.err.count("\n") == 1


def test_a_span_beyond_one_clip_costs_that_clip_alone(run: Run, tiny_model: Path, clip_folder: Path) -> None:
    done = run("classify", clip_folder, "--model", tiny_model, "--start-seconds", "1.5")
    assert done.status == 1
    assert "before the video's end at 0.500 s" in done.out
    assert "4 files: 2 not_found, 1 ok, 1 not_a_video" in done.err


def test_no_name_is_no_file_and_not_the_working_folder(run: Run, tiny_model: Path) -> None:
    done = run("classify", "", "--model", tiny_model)
    assert done.status == 1
    assert "not_found: '': there is no such file" in done.out


def test_no_name_is_no_export(run: Run, tiny_model: Path) -> None:
    done = run("export", tiny_model, "--format", "onnx", "--output", "")
    assert done.status == 2
    assert "--output '.' is not a file" in done.err


def test_what_the_system_refuses_is_one_line(run: Run, tiny_model: Path, clip_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run(
        "explain",
        clip_folder / "a.mp4",
        "--model",
        tiny_model,
        "--runtime",
        "torch",
        "--output",
        tmp_path / "file" / "out",
    )
    assert done.status == 1
    assert "Not a directory" in done.err
    assert done.err.count("\n") == 1
    done = run("classify", clip_folder / "a.mp4", "--model", "x" * 5000)
    assert done.status == 1
    assert done.err.startswith("[Errno 36] File name too long: ")


def test_a_package_that_cannot_be_loaded_is_named(run: Run, monkeypatch: pytest.MonkeyPatch, clip_folder: Path) -> None:
    monkeypatch.setitem(sys.modules, "nonlocal_video.inference.files", None)
    done = run("classify", clip_folder)
    assert done.status == 1
    assert done.err.startswith("A package cannot be loaded: ")
    assert "doctor" in done.err
    assert done.err.count("\n") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_standard_output_is_said_on_the_other(
    run: Run, tiny_model: Path, clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command: tuple[object, ...] = (
        *("classify", clip_folder, "--model", tiny_model, "--output", tmp_path / "table.csv"),
        *("--runtime", "torch"),  # of which standard error has no line
    )
    with monkeypatch.context() as patch, open("/dev/full", "wb", buffering=0) as full:
        patch.setattr(sys, "stdout", io.TextIOWrapper(full, write_through=True))
        done = run(*command)
    assert done.status == 1
    assert done.err.startswith("[Errno 28] No space left on device. ")
    assert not (tmp_path / "table.csv").exists()
    assert run(*command, "--resume").err == "4 files: 3 ok, 1 not_a_video (1 of them done before)\n"

    command = ("timeline", clip_folder / "a.mp4", "--model", tiny_model, "--output", tmp_path / "a.json")
    with monkeypatch.context() as patch, open("/dev/full", "wb", buffering=0) as full:
        patch.setattr(sys, "stdout", io.TextIOWrapper(full, write_through=True))
        assert run(*command).status == 1
    assert json.loads((tmp_path / "a.json").read_text())["status"] == "ok"


def test_names_do_not_command_the_terminal() -> None:
    assert shown("two\nlines \x1b[31m\udce9 ünï 动作 🎬.mp4") == r"two\nlines \x1b[31m\xe9 ünï 动作 🎬.mp4"
