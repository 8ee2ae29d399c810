"""Seconds are the player's: the file's own where they have a 0, else 0 is where its first stream begins."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numbered_clips
import numpy as np
import pytest
from numbered_clips import NUM_FRAMES, ffmpeg

from nonlocal_video.errors import UsageError
from nonlocal_video.video import VideoReader

pytestmark = pytest.mark.slow

FPS = 25
SOUND = ("-f", "lavfi", "-i", "sine=440:duration=4")
# Sound and pictures as the containers store them; the pictures are copied.
CONTAINERS = {
    "late.mp4": "-c:a aac",
    "late_mp3.mp4": "-c:a libmp3lame",
    "late.mov": "-c:a pcm_s16le",
    "late.mkv": "-c:a aac",
    "late_opus.mkv": "-c:a libopus",
    "late.ts": "-c:a aac",
    "late_ten_hours.ts": "-c:a aac -output_ts_offset 36000",
    "late_fragmented.mp4": "-c:a aac -movflags frag_keyframe+empty_moov+delay_moov",
    "late.flv": "-c:a aac",
}


def first_picture_by_ffprobe(path: Path) -> float:
    """Seconds from the start that ffprobe gives the file to the first picture that it decodes.

    Some of its versions let a file begin with the sound's priming, before 0, which no player plays.
    """
    command = ["ffprobe", "-v", "error", "-select_streams", "v:0", "-show_entries"]
    fields = "format=start_time:frame=best_effort_timestamp_time"
    found = json.loads(subprocess.run([*command, fields, "-of", "json", path], capture_output=True, check=True).stdout)
    return float(found["frames"][0]["best_effort_timestamp_time"]) - max(float(found["format"]["start_time"]), 0.0)


def every_frame(reader: VideoReader, path: Path) -> tuple[list[int], np.ndarray]:
    """Numbers of the frames in the order of showing, and their times."""
    info = reader.probe(path)
    frames = reader.read(path, info.start_seconds + (np.arange(info.num_frames) + 0.5) / FPS)
    return [numbered_clips.number_in(frame) for frame in frames.frames_thwc], frames.pts_seconds


@pytest.mark.parametrize("name", CONTAINERS)
def test_sound_that_begins_first_begins_the_file(
    clips: Path, tmp_path: Path, readers: dict[str, VideoReader], name: str
) -> None:
    path = tmp_path / name
    late = ("-itsoffset", "0.7", "-i", str(clips / "h264.mp4"), *SOUND, "-map", "0:v", "-map", "1:a", "-c:v", "copy")
    ffmpeg(*late, *CONTAINERS[name].split(), str(path))
    expected = first_picture_by_ffprobe(path)
    assert 0.65 < expected < 0.8  # the file is what the test is about; priming and ticks make the difference
    for decoder in ("auto", "pyav"):
        reader = readers[decoder]
        info = reader.probe(path)
        assert info.start_seconds == pytest.approx(expected, abs=2e-6)
        assert (info.num_frames, info.duration_seconds) == (NUM_FRAMES, pytest.approx(NUM_FRAMES / FPS, abs=2e-3))
        assert info.end_seconds == pytest.approx(expected + NUM_FRAMES / FPS, abs=2e-3)
        numbers, seconds = every_frame(reader, path)
        assert numbers == list(range(NUM_FRAMES))
        np.testing.assert_allclose(seconds, expected + np.arange(NUM_FRAMES) / FPS, atol=1e-3)
        # What a player shows 2 s after the file's beginning, and what is asked of the time before the first picture.
        shown = reader.read(path, [2.0, 0.0, 0.3])
        of_time = [numbered_clips.number_in(frame) for frame in shown.frames_thwc[shown.frame_of_time]]
        assert of_time == [int((2.0 - expected) * FPS + 1e-3), 0, 0]
        assert not shown.info.notes
        for outside in (-0.1, info.end_seconds + 0.1):
            with pytest.raises(UsageError, match=f"the video's end at {info.end_seconds:.3f} s"):
                reader.read(path, [outside])


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("ten_hours.ts", "-i {clip} -c copy -output_ts_offset 36000"),
        ("alone.ts", "-itsoffset 0.7 -i {clip} -c copy"),
        ("alone.flv", "-itsoffset 0.7 -i {clip} -c copy"),
        ("late_sound.mp4", "-i {clip} -itsoffset 0.7 -f lavfi -i sine=440:d=3 -map 0:v -map 1:a -c:v copy -c:a aac"),
        ("priming.mp4", "-i {clip} -f lavfi -i sine=440:d=4 -map 0:v -map 1:a -c:v copy -c:a aac"),
        ("cover.mp4", "-i {clip} -i {cover} -map 0 -map 1 -c copy -disposition:v:1 attached_pic"),
    ],
)
def test_a_picture_that_comes_first_is_at_zero(
    clips: Path, tmp_path: Path, reader: VideoReader, name: str, arguments: str
) -> None:
    ffmpeg("-f", "lavfi", "-i", "color=red:s=64x64", "-frames:v", "1", str(tmp_path / "cover.png"))
    words = arguments.format(clip=clips / "h264.mp4", cover=tmp_path / "cover.png").split()
    ffmpeg(*words, str(tmp_path / name))
    info = reader.probe(tmp_path / name)
    assert info.start_seconds == 0.0
    numbers, seconds = every_frame(reader, tmp_path / name)
    assert numbers == list(range(NUM_FRAMES))
    np.testing.assert_allclose(seconds, np.arange(NUM_FRAMES) / FPS, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "second", "arguments"),
    [
        ("alone.mp4", 0.7, "-itsoffset 0.7 -i {clip} -c copy"),
        ("alone.mov", 0.7, "-itsoffset 0.7 -i {clip} -c copy"),
        ("alone.mkv", 0.7, "-itsoffset 0.7 -i {clip} -c copy"),
        ("fragments.mp4", 0.7, "-itsoffset 0.7 -i {clip} -c copy -movflags frag_keyframe+empty_moov+delay_moov"),
        ("both.mp4", 0.7, "-itsoffset 0.7 -i {clip} -itsoffset 0.5 {sound} -c:v copy -c:a aac"),
        ("both.mov", 0.7, "-itsoffset 0.7 -i {clip} -itsoffset 0.5 {sound} -c:v copy -c:a pcm_s16le"),
        ("both.mkv", 0.7, "-itsoffset 0.7 -i {clip} -itsoffset 0.5 {sound} -c:v copy -c:a libopus"),
        ("reordered.mp4", 2 / FPS, "-i {clip} -c copy -use_editlist 0"),
        ("reordered_fragments.mp4", 2 / FPS, "-i {clip} -c copy -movflags frag_keyframe+empty_moov"),
        ("recording.mkv", 36000, "-itsoffset 36000 -i {clip} -c copy"),
    ],
)
def test_a_file_whose_times_have_a_zero_may_begin_with_nothing(
    clips: Path, tmp_path: Path, reader: VideoReader, name: str, second: float, arguments: str
) -> None:
    """Browsers do the same (`tests/app/test_players_clock.py`); ffprobe names the same time for the first picture."""
    words = arguments.format(clip=clips / "h264.mp4", sound=" ".join(SOUND)).split()
    ffmpeg(*words, str(tmp_path / name))
    info = reader.probe(tmp_path / name)
    assert (info.start_seconds, info.end_seconds) == (pytest.approx(second), pytest.approx(second + NUM_FRAMES / FPS))
    numbers, seconds = every_frame(reader, tmp_path / name)
    assert numbers == list(range(NUM_FRAMES))
    np.testing.assert_allclose(seconds, second + np.arange(NUM_FRAMES) / FPS, atol=1e-3)


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_frames_with_times_of_decoding_are_shown_in_their_order(
    clips: Path, tmp_path: Path, reader: VideoReader, codec: str
) -> None:
    """An MP4 made of a bare stream has no reordering in its times; ffmpeg shows one frame after another, too."""
    path = tmp_path / "bare.mp4"
    ffmpeg("-i", str(clips / f"{codec}.mp4"), "-c", "copy", "-f", codec, str(tmp_path / "bare"))
    ffmpeg("-i", str(tmp_path / "bare"), "-c", "copy", str(path))
    raw = ffmpeg("-i", str(path), "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
    by_ffmpeg = np.frombuffer(raw, np.uint8).reshape(-1, numbered_clips.HEIGHT, numbered_clips.WIDTH, 3)
    numbers, seconds = every_frame(reader, path)
    assert numbers == [numbered_clips.number_in(frame) for frame in by_ffmpeg]
    assert numbers == sorted(numbers)
    np.testing.assert_allclose(np.diff(seconds), 1 / FPS, atol=1e-3)


def test_the_last_frames_of_an_avi_have_the_steps_of_the_others(
    clips: Path, tmp_path: Path, reader: VideoReader
) -> None:
    """Its header may name twice the rate, as for a copied stream that could have fields."""
    ffmpeg("-i", str(clips / "h264.mp4"), "-c", "copy", str(tmp_path / "copied.avi"))
    seconds = reader.frame_times(tmp_path / "copied.avi")
    np.testing.assert_allclose(seconds, np.arange(NUM_FRAMES) / FPS, atol=1e-3)


def test_subtitles_begin_a_file_only_within_a_second(clips: Path, tmp_path: Path, reader: VideoReader) -> None:
    """FFmpeg's rule: text that comes up to a second before all else is the beginning, earlier text is not."""
    for second, path in ((0.5, tmp_path / "near.flv"), (1.4, tmp_path / "far.flv")):
        (tmp_path / "text.srt").write_text("1\n00:00:00,000 --> 00:00:03,000\nword\n")
        words = ["-itsoffset", str(second), "-i", str(clips / "h264.mp4"), "-i", str(tmp_path / "text.srt")]
        ffmpeg(*words, "-map", "0:v", "-map", "1", "-c:v", "copy", "-c:s", "text", str(path))
        assert reader.probe(path).start_seconds == pytest.approx(first_picture_by_ffprobe(path), abs=2e-6)
    assert reader.probe(tmp_path / "near.flv").start_seconds == pytest.approx(0.5, abs=0.002)
    assert reader.probe(tmp_path / "far.flv").start_seconds == 0.0


@pytest.mark.parametrize("second", [0.3, 1.2])
@pytest.mark.parametrize("name", ["h264.mkv", "vp9.webm"])
@pytest.mark.parametrize("with_sound", [False, True])
def test_times_before_zero_are_times(
    clips: Path, tmp_path: Path, reader: VideoReader, name: str, second: float, with_sound: bool
) -> None:
    """Matroska counts blocks from their cluster's time with a sign; FFmpeg gives those before 0 no time at all."""
    path = tmp_path / name
    sound = SOUND if with_sound else ()
    both = ("-map", "0:v", *(("-map", "1:a") if with_sound else ()), "-c:v", "copy", "-c:a", "libopus")
    ffmpeg("-i", str(clips / name), *sound, *both, "-avoid_negative_ts", "disabled", str(tmp_path / f"at_0_{name}"))
    shifted = ("-itsoffset", str(-second), "-i", str(tmp_path / f"at_0_{name}"), "-c", "copy", "-copyts")
    ffmpeg(*shifted, "-avoid_negative_ts", "disabled", str(path))
    info = reader.probe(path)
    assert (info.num_frames, info.notes) == (NUM_FRAMES, ())
    assert info.start_seconds == pytest.approx(0.0, abs=0.03)  # the sound may begin by its priming before
    numbers, seconds = every_frame(reader, path)
    assert numbers == list(range(NUM_FRAMES))
    np.testing.assert_allclose(np.diff(seconds), 1 / FPS, atol=1.1e-3)


def test_uneven_times_before_zero_are_kept(tmp_path: Path, reader: VideoReader) -> None:
    """The times that FFmpeg leaves out are read from the file, not made up from a rate."""
    starts = np.array([0, 1, 5, 6, 7, 11, 20, 21, 22, 30])
    select = "+".join(f"eq(n\\,{start})" for start in starts)
    numbered_clips.encode(
        tmp_path / "uneven.mkv",
        [numbered_clips.picture(number) for number in range(32)],
        f"-vf select={select} -fps_mode passthrough -c:v libx264 -bf 2 -pix_fmt yuv420p",
    )
    words = ("-itsoffset", "-0.5", "-i", str(tmp_path / "uneven.mkv"), "-c", "copy", "-copyts")
    ffmpeg(*words, "-avoid_negative_ts", "disabled", str(tmp_path / "early.mkv"))
    moments = np.append(starts / FPS + 0.01, 1.21)
    frames = reader.read(tmp_path / "early.mkv", moments)
    assert frames.info.notes == ()
    assert [numbered_clips.number_in(frame) for frame in frames.frames_thwc] == starts.tolist()
    np.testing.assert_allclose(frames.pts_seconds, starts / FPS, atol=1.1e-3)


def test_reported_files(data_folder: Path, reader: VideoReader) -> None:
    late = reader.probe(data_folder / "reports" / "late_video.mp4")
    assert (late.start_seconds, late.duration_seconds, late.notes) == (pytest.approx(0.7), pytest.approx(2.0), ())
    negative = data_folder / "reports" / "neg.mkv"
    frames = reader.read(negative, (np.arange(50) + 0.5) / FPS)
    assert (frames.info.num_frames, frames.info.start_seconds, frames.info.notes) == (50, 0.0, ())
    np.testing.assert_allclose(frames.pts_seconds, np.arange(50) / FPS, atol=1e-3)
    by_ffmpeg = np.frombuffer(
        ffmpeg("-i", str(negative), "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"), np.uint8
    )
    np.testing.assert_allclose(frames.frames_thwc.ravel(), by_ffmpeg, atol=2)
