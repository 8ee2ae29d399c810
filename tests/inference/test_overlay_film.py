"""The overlay film plays as fast as the clip and lasts as long as the view, whatever the clip's times are."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

import nonlocal_video as nlv
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.models.checkpoint import load_checkpoint
from nonlocal_video.video.decode import VideoReader
from nonlocal_video.video.encode import write_video

GREYS = tuple(range(20, 256, 12))


@pytest.fixture(scope="module")
def recognizer(tiny_model: Path) -> Iterator[Recognizer]:
    """It looks at 8 frames at 10 a second: 0.8 s."""
    with nlv.load(tiny_model, device="cpu") as loaded:
        yield loaded


def strided(tiny_model: Path, **changes: object) -> Recognizer:
    """The small model with an input that takes every so many frames of the clip."""
    network, given = load_checkpoint(tiny_model)
    card = replace(given, input=replace(given.input, **changes), fast_input=None)
    return Recognizer(network, card, device="cpu")


def grey(value: int) -> np.ndarray:
    return np.full((72, 96, 3), value, np.uint8)


def uneven_mp4(path: Path, starts_ms: Sequence[int], end_ms: int) -> Path:
    """Frames of other greys at given times, as a screen recorder writes them."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "0"})
        stream.height, stream.width, stream.pix_fmt = 72, 96, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        durations = dict(zip(starts_ms, np.diff([*starts_ms, end_ms]).tolist(), strict=True))
        for number, start in enumerate(starts_ms):
            frame = av.VideoFrame.from_ndarray(grey(GREYS[number % len(GREYS)]), format="rgb24")
            frame.pts, frame.time_base = start, Fraction(1, 1000)
            for packet in stream.encode(frame):
                packet.duration = durations[packet.pts]
                container.mux(packet)
        for packet in stream.encode(None):
            packet.duration = durations[packet.pts]
            container.mux(packet)
    return path


def uneven_gif(path: Path, lasts_ms: Sequence[int]) -> Path:
    pictures = [Image.fromarray(grey(GREYS[number])) for number in range(len(lasts_ms))]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=list(lasts_ms), loop=0)
    return path


def film_of(recognizer: Recognizer, clip: Path, tmp_path: Path) -> tuple[float, int]:
    """Compare the overlay film with the clip; return how long ffprobe says that it lasts, and its frames."""
    explanation = recognizer.explain_all(clip)
    pan_and_zoom = explanation.attention_received().save_overlay(tmp_path / "overlay.mp4")
    fields = "format=duration:stream=duration,nb_frames"
    command = ["ffprobe", "-v", "error", "-show_entries", fields, "-of", "json", str(pan_and_zoom)]
    found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    lasts = float(found["streams"][0]["duration"])
    assert float(found["format"]["duration"]) == pytest.approx(lasts, abs=1e-3)
    # Outside of the network's square a film is the clip darkened: at each time it shows the picture of that time.
    view = explanation.clip.views[0]
    if explanation.prediction.video.duration_seconds > lasts:
        with VideoReader() as reader:
            moments = (np.arange(len(explanation.seconds)) + 0.5) * lasts / len(explanation.seconds)
            of_clip = reader.read(clip, view.start_seconds + moments)
            of_film = reader.read(pan_and_zoom, moments)
            expected = of_clip.frames_thwc[of_clip.frame_of_time][:, 40, 2].astype(float) * 0.45
            shown = of_film.frames_thwc[of_film.frame_of_time][:, 40, 2].astype(float)
            np.testing.assert_allclose(shown, expected, atol=6)
    return lasts, int(found["streams"][0]["nb_frames"])


@pytest.mark.parametrize("rate", [1, 5, Fraction(15000, 1001), 25, 60])
@pytest.mark.slow
def test_at_any_rate_the_film_lasts_as_long_as_the_view(recognizer: Recognizer, tmp_path: Path, rate: Fraction) -> None:
    count = max(4, round(3 * rate))
    write_video(tmp_path / "clip.mp4", (grey(GREYS[k % len(GREYS)]) for k in range(count)), fps=rate)
    assert film_of(recognizer, tmp_path / "clip.mp4", tmp_path) == (pytest.approx(0.8, abs=1e-3), 8)


def test_uneven_times_do_not_change_it(recognizer: Recognizer, tmp_path: Path) -> None:
    """Steps of 10 ms and of a second, in a screen recording and in a GIF."""
    recording = uneven_mp4(tmp_path / "recording.mp4", [0, 10, 20, 30, 40, 900, 950, 1000, 1400, 1410, 1420], 3000)
    gif = uneven_gif(tmp_path / "uneven.gif", [20, 500, 30, 1000, 20, 20, 700])
    for clip in (recording, gif):
        lasts, num_frames = film_of(recognizer, clip, tmp_path)
        assert (lasts, num_frames) == (pytest.approx(0.8, abs=1e-3), 8), clip.name


@pytest.mark.parametrize("short_clips", ["loop", "hold_last_frame", "spread"])
def test_a_short_clip_is_shown_as_the_network_saw_it(tiny_model: Path, tmp_path: Path, short_clips: str) -> None:
    """0.5 s for a view of 0.8 s: again and again or held for 0.8 s, or spread over its own 0.5 s."""
    write_video(tmp_path / "clip.mp4", (grey(GREYS[k]) for k in range(5)), fps=10)
    with strided(tiny_model, short_clips=short_clips) as recognizer:
        lasts, num_frames = film_of(recognizer, tmp_path / "clip.mp4", tmp_path)
    assert (lasts, num_frames) == (pytest.approx(0.5 if short_clips == "spread" else 0.8, abs=1e-3), 8)


@pytest.mark.parametrize("rate", [0.001, 0.3, 1000.0])
@pytest.mark.slow
def test_no_rate_is_too_slow_or_too_fast_for_a_film(tiny_model: Path, tmp_path: Path, rate: float) -> None:
    """A network that takes every frame of the clip: a view of 8 frames lasts 8000 s, 26.7 s or 8 ms."""
    write_video(tmp_path / "clip.mp4", (grey(GREYS[k]) for k in range(12)), fps=rate)
    with strided(tiny_model, frame_stride=1) as recognizer:
        lasts, num_frames = film_of(recognizer, tmp_path / "clip.mp4", tmp_path)
    assert (lasts, num_frames) == (pytest.approx(8 / rate, rel=1e-3), 8)


@pytest.mark.parametrize("placement", ["start_of_steps", "both_ends"])
def test_the_rules_of_other_projects_do_not_change_it(tiny_model: Path, tmp_path: Path, placement: str) -> None:
    write_video(tmp_path / "clip.mp4", (grey(GREYS[k]) for k in range(20)), fps=10)
    with strided(tiny_model, frame_placement=placement) as recognizer:
        maps = recognizer.explain(tmp_path / "clip.mp4")
    assert maps.playback_seconds == pytest.approx(0.8)


@pytest.mark.slow
def test_reported_clip(recognizer: Recognizer, data_folder: Path, tmp_path: Path) -> None:
    """5 frames a second for a network that looks at 64 frames in 2.56 s, and for a small one."""
    clip = data_folder / "reports" / "rate5.mp4"
    assert film_of(recognizer, clip, tmp_path)[0] == pytest.approx(0.8, abs=1e-3)
    with Recognizer(recognizer.network, replace(recognizer.card, input=replace(
        recognizer.card.input, num_frames=64, frames_per_second=25.0
    )), device="cpu") as long_view:  # fmt: skip
        assert film_of(long_view, clip, tmp_path) == (pytest.approx(2.56, abs=1e-3), 64)
