"""`benchmark decode`: every frame is read, by the decoder that is named, with a cold and a warm child."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from nonlocal_video.benchmark.decode import benchmark_decode
from nonlocal_video.cli.benchmark_text import decode_table
from nonlocal_video.errors import UsageError
from nonlocal_video.models.card import ModelCard
from nonlocal_video.models.checkpoint import read_card
from nonlocal_video.video import VideoReader

pytestmark = pytest.mark.slow


@pytest.fixture
def card(tiny_model: Path) -> ModelCard:
    return read_card(tiny_model)


def encode(path: Path, times_ms: list[int], codec: str = "libx264") -> Path:
    """Frames shown at these times, with PyAV."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000 if codec == "libx264" else 25)
        for number, milliseconds in enumerate(times_ms):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), number % 256, np.uint8), format="rgb24")
            frame.time_base = stream.codec_context.time_base
            frame.pts = int(milliseconds / 1000 / frame.time_base)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def frames_by_pyav(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def test_all_frames_of_a_video_of_varying_rate(card: ModelCard, tmp_path: Path) -> None:
    times = np.cumsum([40, 120, 40, 20] * 10).tolist()
    clip = encode(tmp_path / "varying.mp4", times)
    (row,) = benchmark_decode([str(clip)], card, rounds=2)["rows"]
    assert row["status"] == "ok"
    assert row["whole"]["shape"] == [frames_by_pyav(clip), 48, 64, 3] == [40, 48, 64, 3]
    assert len(row["whole"]["seconds"]["warm"]) == 2
    assert row["whole"]["frames_per_second"] == pytest.approx(40 / np.median(row["whole"]["seconds"]["warm"]))
    assert row["view"]["num_times"] == card.input.num_frames
    # 8 moments a tenth of a second apart lie in frames of up to 0.12 s: some in the same
    assert row["view"]["shape"][0] <= 8
    assert {child: len(seconds) for child, seconds in row["view"]["seconds"].items()} == {"cold": 2, "warm": 2}


def test_more_frames_than_decord_is_given(card: ModelCard, tmp_path: Path) -> None:
    clip = encode(tmp_path / "long.mp4", list(range(0, 40 * 1100, 40)))
    results = benchmark_decode([str(clip)], card, fast=True, rounds=1)
    (row,) = results["rows"]
    assert (row["view"]["decoder"], row["whole"]["decoder"]) == ("decord", "pyav")
    assert (row["view"]["num_times"], row["whole"]["shape"][0]) == (4, frames_by_pyav(clip))
    assert list(decode_table(results).columns[2].cells) == ["decord, whole file pyav"]


def test_each_decoder_where_it_is_exact(card: ModelCard, tmp_path: Path) -> None:
    h264 = encode(tmp_path / "a.mp4", [0, 40, 80, 120])
    mpeg4 = encode(tmp_path / "b.avi", [0, 40, 80, 120], "mpeg4")
    rows = benchmark_decode([str(h264), str(mpeg4)], card, decoders=("decord", "pyav"), rounds=1)["rows"]
    found = [(row["status"], row["view"] and row["view"]["decoder"], row["video"]["decoder"]) for row in rows]
    assert found == [
        ("ok", "decord", "decord"), ("ok", "pyav", "decord"), ("skipped", None, "pyav"), ("ok", "pyav", "pyav"),
    ]  # fmt: skip
    assert "not measured to be exact" in rows[2]["reason"]


def test_the_cold_child_is_new_and_the_warm_one_knows_nothing_of_the_file(
    card: ModelCard, clip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probed: list[tuple[str, bool]] = []
    probe = VideoReader.probe

    def watched(self: VideoReader, path: Any) -> Any:
        probed.append((Path(path).name, self._process is not None))
        return probe(self, path)

    monkeypatch.setattr(VideoReader, "probe", watched)
    benchmark_decode([str(clip_folder / "a.mp4")], card, rounds=1)
    assert probed[-5:] == [
        ("a.mp4", False), ("other.mp4", True), ("a.mp4", True), ("other.mp4", True), ("a.mp4", True),
    ]  # fmt: skip


def test_command_with_a_bad_file(tiny_model: Path, clip_folder: Path, tmp_path: Path, run: Callable[..., Any]) -> None:
    output = tmp_path / "new" / "decode.json"
    done = run("benchmark", "decode", clip_folder / "b", "--model", tiny_model, "--rounds", 1, "--output", output)
    assert done.status == 1
    good, bad = json.loads(output.read_text("utf-8"))["rows"]
    assert (Path(good["path"]).name, good["status"], good["error"]) == ("c.mp4", "ok", None)
    assert good["whole"]["shape"] == [frames_by_pyav(clip_folder / "b" / "c.mp4"), 72, 96, 3]
    assert (Path(bad["path"]).name, bad["status"], bad["error"]["code"]) == ("note.mp4", "error", "not_a_video")
    assert bad["view"] is bad["whole"] is None
    assert "not_a_video" in done.out
    assert "8 of 12, 96 x 72 h264" in done.out


def test_nothing_to_measure(card: ModelCard, tmp_path: Path, run: Callable[..., Any]) -> None:
    done = run("benchmark", "decode", tmp_path)
    assert done.status == 2
    assert "no file" in done.err
    with pytest.raises(UsageError, match="rounds = 0"):
        benchmark_decode(["a.mp4"], card, rounds=0)
