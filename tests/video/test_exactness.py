"""Every frame right, for every codec, against the ffmpeg binary."""

from __future__ import annotations

import shutil
from pathlib import Path

import numbered_clips
import numpy as np
import pytest

from nonlocal_video.video import VideoReader

# Pictures are compared as well as their numbers, and were equal in every pixel when this was written; ours and ffmpeg's
# come from different versions of one library, so a mean of a twentieth of a level (of 255) is let pass.
COLOUR_TOLERANCE = 0.05


def middles(pts_seconds: np.ndarray) -> np.ndarray:
    """The times half-way from each frame to the next, on the player's clock, and a moment after the last one."""
    return np.append((pts_seconds[1:] + pts_seconds[:-1]) / 2, pts_seconds[-1] + 0.001)


@pytest.mark.parametrize("decoder", ["auto", "pyav"])
@pytest.mark.parametrize("name", numbered_clips.ALL)
@pytest.mark.slow
def test_frames_are_those_of_ffmpeg(clips: Path, readers: dict[str, VideoReader], name: str, decoder: str) -> None:
    reader, path = readers[decoder], clips / name
    expected = numbered_clips.reference(path)
    assert len(expected.frames_thwc) == len(expected.pts_seconds), "the reference contradicts itself"

    info = reader.probe(path)
    assert info.num_frames == len(expected.frames_thwc)
    assert (info.height, info.width) == expected.frames_thwc.shape[1:3]
    assert info.start_seconds == pytest.approx(expected.pts_seconds[0], abs=1e-6)  # ffprobe prints six digits
    assert info.fps == pytest.approx(info.num_frames / info.duration_seconds)

    times = middles(expected.pts_seconds)
    everything = reader.read(path, times)
    assert [numbered_clips.number_in(frame) for frame in everything.frames_thwc] == expected.numbers
    assert all(numbered_clips.is_upright_rgb(frame) for frame in everything.frames_thwc)
    np.testing.assert_allclose(everything.pts_seconds, expected.pts_seconds, atol=1e-6)
    np.testing.assert_array_equal(everything.frame_of_time, np.arange(info.num_frames))
    np.testing.assert_array_equal(reader.frame_times(path), everything.pts_seconds)
    difference = np.abs(everything.frames_thwc.astype(np.int16) - expected.frames_thwc).mean()
    assert difference < COLOUR_TOLERANCE

    random = np.random.default_rng(0)
    for index in random.permutation(info.num_frames)[:12]:
        frames = reader.read(path, [times[index]])
        assert numbered_clips.number_in(frames.frames_thwc[0]) == expected.numbers[index]
        assert frames.pts_seconds[0] == everything.pts_seconds[index]
    scattered = random.integers(0, info.num_frames, 9)  # any order, some twice
    frames = reader.read(path, times[scattered])
    assert len(frames.frames_thwc) == len(set(scattered.tolist())), "a frame was decoded twice"
    seen = [numbered_clips.number_in(frame) for frame in frames.frames_thwc[frames.frame_of_time]]
    assert seen == [expected.numbers[index] for index in scattered]


@pytest.mark.parametrize(("name", "row"), numbered_clips.ENCODED.items())
def test_decord_serves_what_the_table_says(clips: Path, readers, name: str, row: tuple[str, bool]) -> None:
    served_by_decord = row[1]
    frames = readers["auto"].read(clips / name, [0.0, 1.0])
    assert frames.info.decoder == ("decord" if served_by_decord else "pyav")
    assert not any("decord" in note for note in frames.info.notes)


def test_edit_lists_and_rotation_are_reported(clips: Path, readers) -> None:
    assert readers["auto"].probe(clips / "h264_edit_list.mp4").has_edit_list
    assert not readers["auto"].probe(clips / "h264.mp4").has_edit_list
    for degrees in numbered_clips.ROTATIONS:
        info = readers["auto"].probe(clips / f"h264_rotated_{degrees}.mp4")
        assert info.rotation_degrees == degrees
        assert (info.width, info.height) == (numbered_clips.WIDTH, numbered_clips.HEIGHT)


def test_mirrored_video_is_shown_as_ffmpeg_shows_it(clips: Path, tmp_path: Path, readers) -> None:
    path = tmp_path / "mirrored.mp4"
    shutil.copy(clips / "h264.mp4", path)
    numbered_clips.set_display_matrix(path, -1, 0, 0, 1)
    frames = readers["auto"].read(path, [0.5])
    plain = readers["auto"].read(clips / "h264.mp4", [0.5])
    np.testing.assert_array_equal(frames.frames_thwc, plain.frames_thwc[:, :, ::-1])
    assert frames.info.decoder == "pyav"


def test_recordings_joined_into_one_are_read_to_the_end(clips: Path, tmp_path: Path, reader: VideoReader) -> None:
    data = (clips / "h264.ts").read_bytes()
    (tmp_path / "joined.ts").write_bytes(data + data)
    info = reader.probe(tmp_path / "joined.ts")
    assert info.num_frames == 2 * numbered_clips.NUM_FRAMES
    assert info.duration_seconds == pytest.approx(2 * numbered_clips.NUM_FRAMES / 25)
    frames = reader.read(tmp_path / "joined.ts", [0.1, numbered_clips.NUM_FRAMES / 25 + 0.1])
    assert [numbered_clips.number_in(frame) for frame in frames.frames_thwc] == [2, 2]
    assert any("jump back" in note for note in info.notes)


def test_a_stream_without_times_is_shown_at_its_rate(clips: Path, tmp_path: Path, reader: VideoReader) -> None:
    numbered_clips.ffmpeg("-i", str(clips / "h264.mp4"), "-c", "copy", str(tmp_path / "raw.h264"))
    frames = reader.read(tmp_path / "raw.h264", [0.02, 2.02])
    assert [numbered_clips.number_in(frame) for frame in frames.frames_thwc] == [0, 50]
    assert any("no times" in note for note in frames.info.notes)


def test_the_frame_of_a_time_is_the_last_one_begun(clips: Path, reader: VideoReader) -> None:
    # Matroska rounds 1/25 s exactly, so use thirds: 30 frames a second are 0, 33, 67, 100 ms.
    frames = [numbered_clips.picture(number) for number in range(6)]
    path = clips / "thirtieths.mkv"
    numbered_clips.encode(path, frames, "-c:v libx264 -pix_fmt yuv420p", rate="30")
    times = [0.0, 1 / 30, 2 / 30, 3 / 30, 0.0320, 0.0660, 0.0995, 5 / 30, 6 / 30]
    shown = reader.read(path, times)
    numbers = [numbered_clips.number_in(frame) for frame in shown.frames_thwc[shown.frame_of_time]]
    assert numbers == [0, 1, 2, 3, 0, 1, 3, 5, 5]


@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
@pytest.mark.parametrize("levels", ["tv", "pc"])
@pytest.mark.parametrize("decoder", ["auto", "pyav"])
def test_colour_tags_are_honoured(clips: Path, readers, matrix: str, levels: str, decoder: str) -> None:
    path = clips / f"colours_{matrix}_{levels}.mp4"
    tag = {"bt601": "smpte170m", "bt709": "bt709"}[matrix]
    convert = f"scale=out_color_matrix={matrix}:out_range={levels},format=yuv444p"
    tags = f"-colorspace {tag} -color_primaries {tag} -color_trc {tag} -color_range {levels}"
    numbered_clips.encode(path, [numbered_clips.picture(5)] * 3, f"-vf {convert} -c:v libx264 -crf 5 {tags}")
    frame = readers[decoder].read(path, [0.0]).frames_thwc[0]
    np.testing.assert_allclose(frame[16, 80], (255, 0, 0), atol=6)
    np.testing.assert_allclose(frame[48, 80], (0, 0, 255), atol=6)
    np.testing.assert_allclose(frame, numbered_clips.reference(path).frames_thwc[0], atol=6)
