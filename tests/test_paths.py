"""One rule for where things are cached."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from nonlocal_video import samples
from nonlocal_video.errors import OutputError, UsageError
from nonlocal_video.paths import cache_folder, make_cache_folder, weights_folder
from nonlocal_video.zoo.store import weights_path

DEFAULT = ("~/.cache/nonlocal-video", "~/.cache/nonlocal-video/weights")
VARIABLES = ("NONLOCAL_VIDEO_CACHE", "NONLOCAL_VIDEO_SAMPLES", "NONLOCAL_VIDEO_WEIGHTS", "XDG_CACHE_HOME")


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other folders")
@pytest.mark.parametrize(
    ("variables", "cache", "weights"),
    [
        ({}, *DEFAULT),
        ({"XDG_CACHE_HOME": "/xdg"}, "/xdg/nonlocal-video", "/xdg/nonlocal-video/weights"),
        ({"XDG_CACHE_HOME": "/xdg", "NONLOCAL_VIDEO_CACHE": "/own"}, "/own", "/own/weights"),
        ({"NONLOCAL_VIDEO_CACHE": "~/own"}, "~/own", "~/own/weights"),
        (
            {"NONLOCAL_VIDEO_CACHE": "", "NONLOCAL_VIDEO_WEIGHTS": ""},
            "~/.cache/nonlocal-video",
            "~/.cache/nonlocal-video/weights",
        ),
        ({"NONLOCAL_VIDEO_WEIGHTS": "~/w", "NONLOCAL_VIDEO_CACHE": "/own"}, "/own", "~/w"),
    ],
)
def test_samples_and_weights_follow_one_rule(
    variables: dict[str, str], cache: str, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(os.path.expanduser(cache))
    assert weights_folder() == Path(os.path.expanduser(weights))
    assert samples.SAMPLES[0].path == Path(os.path.expanduser(cache)) / "samples" / "dancer.mp4"
    monkeypatch.setenv("NONLOCAL_VIDEO_SAMPLES", "~/clips")
    assert samples.SAMPLES[0].path == Path(os.path.expanduser("~/clips/dancer.mp4"))
    assert weights_path("x").parent == Path(os.path.expanduser(weights))


def test_a_folder_that_cannot_be_written_to_is_said_before_anything_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("NONLOCAL_VIDEO_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(samples, "_download", lambda source, folder: pytest.fail("it was fetched"))
    with pytest.raises(
        OutputError, match=r"file/cache/samples' cannot be written to: .*NONLOCAL_VIDEO_SAMPLES may name"
    ):
        samples.fetch_samples()
    monkeypatch.setenv("NONLOCAL_VIDEO_CACHE", str(tmp_path / "shut"))
    assert make_cache_folder("samples").is_dir()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(OutputError, match="Permission denied"):
        samples.fetch_samples()


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as for a number that no list of users has
    with pytest.raises(UsageError, match=r"no home folder.*NONLOCAL_VIDEO_CACHE"):
        weights_folder()
    monkeypatch.setenv("NONLOCAL_VIDEO_WEIGHTS", "/w")
    assert weights_folder() == Path("/w")
