"""`nonlocal-video watch` as a user meets it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Program = Callable[..., Any]


def lines(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def test_a_line_an_answer_and_an_action_an_event(
    run: Program, tiny_model: Path, clip_folder: Path, tmp_path: Path
) -> None:
    clip, how = clip_folder / "a.mp4", ("--model", tiny_model, "--every-seconds", 0.4, "--top-k", 2)
    plain = run("watch", clip, *how)
    assert (plain.status, plain.err) == (0, "")
    rows = lines(plain.out)
    assert [row["end_seconds"] for row in rows] == [0.8, 1.2, 1.6, 2.0]
    assert [set(row) for row in rows] == [{"start_seconds", "end_seconds", "top", "raw_top"}] * 4
    best = rows[0]["top"][0]
    command = f'{sys.executable} -c \'import sys; open("{tmp_path / "event.json"}", "a").write(sys.stdin.read())\''
    rule = f"{best['label']}>={best['score'] / 2:.3f}"
    told = run("watch", clip, *how, "--on", rule, "--command", command, "--gap-seconds", 100)
    assert told.status == 0
    assert [row["events"] for row in lines(told.out)] == [[best["label"]], [], [], []]
    (event,) = lines((tmp_path / "event.json").read_text())
    assert (event["event"], event["source"], event["end_seconds"]) == (best["label"], str(clip), 0.8)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("97",), 1, "not_found: /dev/video97: there is no such camera"),
        (("CLIP", "--on", "wave"), 2, "should be LABEL>=SCORE"),
        (("CLIP", "--on", "wave>=0.5"), 2, "no class 'wave'"),
        (("CLIP", "--command", "x"), 2, "say what one is with --on"),
        (("CLIP", "--on", "action 0>=0.5", "--webhook", "x.org"), 2, "webhook = 'x.org'"),
        (("CLIP", "--every-seconds", "0"), 2, "every-seconds = 0"),
        (("CLIP", "--gap-seconds", "-1"), 2, "gap-seconds = -1"),
        (("NOTE",), 1, "not_a_video"),
        (("gone.mp4",), 1, "not_found"),
    ],
)
def test_wrong_usage_is_one_sentence(
    run: Program, tiny_model: Path, clip_folder: Path, arguments: tuple[str, ...], status: int, message: str
) -> None:
    paths = {"CLIP": clip_folder / "a.mp4", "NOTE": clip_folder / "b" / "note.mp4"}
    done = run("watch", *(paths.get(word, word) for word in arguments), "--model", tiny_model)
    assert (done.status, done.out) == (status, "")
    assert message in done.err
    assert len(done.err.splitlines()) == 1


@pytest.mark.slow
def test_ctrl_c_ends_it_with_130(tiny_model: Path, clip_folder: Path) -> None:
    command = [sys.executable, "-m", "nonlocal_video", "watch", str(clip_folder / "a.mp4"), "--realtime"]
    with subprocess.Popen(
        [*command, "--model", str(tiny_model), "--every-seconds", "0.1", "--device", "cpu"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        first = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        rest, errors = process.stdout.read(), process.stderr.read()
        status = process.wait(60)
    assert first["end_seconds"] == 0.8
    assert all(json.loads(line)["top"] for line in rest.splitlines()), "whole lines"
    if first["end_seconds"] + 0.1 * len(rest.splitlines()) < 2.0 - 1e-6:
        assert (status, errors) == (130, "Finishing the current step; once more stops at once.\n")
