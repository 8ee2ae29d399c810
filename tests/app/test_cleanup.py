"""Deletion of files whose time is over."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from nonlocal_video.app.cleanup import clean_every_seconds, clean_up, cleaning_up, give_memory_back

LATER = -3600.0
"""Let an hour pass for the cleaner: the times of a file cannot be set back."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("sample/dancer.mp4", "upload/clip.mp4", "tmp123"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "elsewhere").symlink_to(tmp_path / "sample")
    return tmp_path


def test_young_files_stay(folder: Path) -> None:
    before = set(folder.rglob("*"))
    clean_up(folder, set(), older_than_seconds=60)
    assert set(folder.rglob("*")) == before


def test_old_files_and_their_folders_go_and_what_is_kept_stays(folder: Path) -> None:
    kept = {folder / "sample", folder / "sample" / "dancer.mp4"}
    clean_up(folder, kept, older_than_seconds=LATER)
    assert set(folder.rglob("*")) == kept


def test_a_folder_that_is_not_empty_stays(folder: Path) -> None:
    kept = {folder / "upload" / "clip.mp4"}
    clean_up(folder, kept, older_than_seconds=LATER)
    assert set(folder.rglob("*")) == {folder / "upload", *kept}


def test_files_go_when_their_time_is_over_and_those_of_the_beginning_stay(folder: Path) -> None:
    before = set(folder.rglob("*"))
    with cleaning_up(folder, keep_seconds=0.2):
        upload = folder / "later.mp4"
        upload.touch()
        assert upload.exists()
        deadline = time.monotonic() + 30
        while upload.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
    assert set(folder.rglob("*")) == before


@pytest.mark.parametrize(("keep_seconds", "every_seconds"), [(3600, 60), (60, 6), (1, 0.1)])
def test_how_often(keep_seconds: float, every_seconds: float) -> None:
    assert clean_every_seconds(keep_seconds) == every_seconds


def test_memory_can_be_given_back_everywhere() -> None:
    give_memory_back()
