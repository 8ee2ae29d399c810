"""Clips in object storage: listed folder by folder, copied for the decoder, refused in time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

import nonlocal_video as nlv
from nonlocal_video.inference.files import find_files
from nonlocal_video.inference.folder import classify_files
from nonlocal_video.inference.object_storage import is_remote, local_copy
from nonlocal_video.inference.prediction import Failure, Prediction
from nonlocal_video.inference.request import ClipRequest


@pytest.fixture
def bucket(clip_folder: Path) -> Iterator[str]:
    storage = fsspec.filesystem("memory")
    storage.put(f"{clip_folder}/", "/bucket/clips/", recursive=True)
    yield "memory://bucket/clips"
    storage.rm("/bucket", recursive=True)


def test_a_folder_in_storage_is_listed(bucket: str, clip_folder: Path) -> None:
    expected = [path.replace(str(clip_folder), "") for path in find_files([clip_folder])]
    found = list(find_files([bucket]))
    assert sorted(url.partition("/bucket/clips")[2] for url in found) == sorted(expected)
    assert all(is_remote(url) for url in found)
    assert list(find_files([f"{bucket}/a.mp4"])) == [f"{bucket}/a.mp4"]


def test_rows_of_stored_clips_are_those_of_the_files(bucket: str, tiny_model: Path, clip_folder: Path) -> None:
    with nlv.load(tiny_model, device="cpu") as recognizer:
        good, bad, gone = classify_files(
            recognizer, [f"{bucket}/a.mp4", f"{bucket}/b/note.mp4", f"{bucket}/gone.mp4"], ClipRequest()
        )
        assert isinstance(good, Prediction)
        assert good.path == f"{bucket}/a.mp4"
        assert good.scores.tolist() == recognizer.classify(clip_folder / "a.mp4").scores.tolist()
    assert isinstance(bad, Failure)
    assert (bad.path, bad.error.code) == (f"{bucket}/b/note.mp4", "not_a_video")
    assert isinstance(gone, Failure)
    assert gone.error.code == "not_found"


def test_a_large_file_is_refused_before_it_is_fetched(bucket: str) -> None:
    with pytest.raises(nlv.VideoError, match="limit is 100") as caught, local_copy(f"{bucket}/a.mp4", max_bytes=100):
        pass
    assert caught.value.code == "too_large"
    with local_copy(f"{bucket}/a.mp4", max_bytes=10**6) as copy:
        assert Path(copy).read_bytes() == fsspec.filesystem("memory").cat("/bucket/clips/a.mp4")
    assert not Path(copy).exists()


def test_storage_that_fails_costs_a_row(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise RuntimeError("no route to the bucket")

    with monkeypatch.context() as patch:
        patch.setattr(fsspec.filesystem("memory"), "isdir", fail)
        assert list(find_files([bucket])) == [bucket]
        patch.setattr(fsspec.filesystem("memory"), "open", fail)
        with (
            pytest.raises(nlv.VideoError, match=r"no route to the bucket.*check the address") as caught,
            local_copy(f"{bucket}/a.mp4", max_bytes=10**6),
        ):
            pass
    assert caught.value.code == "not_found"


def test_unknown_storage_is_wrong_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(nlv.UsageError, match="nosuch://x/y"):
        list(find_files(["nosuch://x/y"]))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd:").mkdir()
    (tmp_path / "odd:" / "name").touch()
    assert list(find_files(["odd://name"])) == ["odd://name"]  # a file of that name is a file
