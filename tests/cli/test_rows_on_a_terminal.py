"""Rows and the bar on one terminal: a result a line, the bar below; and rows go where standard output goes."""

from __future__ import annotations

import json
import os
import pty
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nonlocal_video.cli.main import main

_CONTROL = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])")


def screen(written: str) -> list[str]:
    """Text that a terminal of endless width shows after it got this."""
    lines: list[list[str]] = [[]]
    row = column = position = 0
    while position < len(written):
        control = _CONTROL.match(written, position)
        if control is not None:
            position = control.end()
            if control[2] == "A":
                row = max(0, row - int(control[1] or 1))
            elif control[2] == "K" and control[1] == "2":
                lines[row] = []
            continue
        character = written[position]
        position += 1
        if character == "\n":
            row, column = row + 1, 0
            if row == len(lines):
                lines.append([])
        elif character == "\r":
            column = 0
        else:
            lines[row] += [" "] * (column + 1 - len(lines[row]))
            lines[row][column] = character
            column += 1
    return ["".join(line).rstrip() for line in lines]


@contextmanager
def terminal(*names: str) -> Iterator[list[str]]:
    """These standard streams are a terminal; what it got is there at the end."""
    outside, inside = pty.openpty()
    got: list[bytes] = []

    def read() -> None:
        try:
            while data := os.read(outside, 65536):
                got.append(data)
        except OSError:  # its other end is closed
            pass

    thread = threading.Thread(target=read)
    thread.start()
    found: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        streams = [os.fdopen(os.dup(inside), "w", encoding="utf-8", buffering=1) for _ in names]
        for name, stream in zip(names, streams, strict=True):
            patch.setattr(sys, name, stream)
        patch.setenv("TERM", "xterm-256color")
        patch.setenv("COLUMNS", "100")
        try:
            yield found
        finally:
            for stream in streams:
                stream.close()
            os.close(inside)
    thread.join(10)
    os.close(outside)
    found.append(b"".join(got).decode().replace("\r\n", "\n"))


def classify(*arguments: object) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["nonlocal-video", "classify", *map(str, arguments)])
        with pytest.raises(SystemExit):
            main()


@pytest.fixture
def many(clip_folder: Path, tmp_path: Path) -> Path:
    for number in range(12):
        (tmp_path / f"{number:02}.mp4").symlink_to(clip_folder / "z with space.mp4")
    return tmp_path


def test_one_result_a_line_above_the_bar(tiny_model: Path, many: Path) -> None:
    with terminal("stdout", "stderr") as found:
        classify(many, "--model", tiny_model, "--json")
    assert "of 12 files" in found[0], "there was a bar"
    shown = screen(found[0])
    rows = [json.loads(line) for line in shown if line.startswith("{")]
    assert [Path(row["path"]).name for row in rows] == [f"{number:02}.mp4" for number in range(12)]
    runtime, *others = [line for line in shown if line and not line.startswith("{")]
    assert runtime.startswith("Runtime torch for views of ")
    assert others == ["12 files: 12 ok"]


def test_for_people_too(tiny_model: Path, many: Path) -> None:
    with terminal("stdout", "stderr") as found:
        classify(many, "--model", tiny_model, "--top-k", "1")
    runtime, *shown = [line for line in screen(found[0]) if line]
    assert runtime.startswith("Runtime torch for views of ")
    assert shown[0] == str(many / "00.mp4")
    assert shown[-1] == "12 files: 12 ok"
    assert sum(re.fullmatch(r"  +\d+\.\d%  action \d", line) is not None for line in shown) == 12
    assert not any("files," in line for line in shown)


def test_rows_go_into_a_pipe_while_the_bar_is_on_the_terminal(
    tiny_model: Path, many: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with terminal("stderr") as found:
        classify(many, "--model", tiny_model, "--json")
    assert len([json.loads(line) for line in capsys.readouterr().out.splitlines()]) == 12
    assert "of 12 files" in found[0]
    assert "{" not in found[0]
