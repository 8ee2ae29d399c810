"""Damaged pictures: a frame is given as it is, or refused; never something else in its place."""

from __future__ import annotations

from pathlib import Path

import av
import numbered_clips
import numpy as np
import pytest

from nonlocal_video.errors import VideoError
from nonlocal_video.video import Frames, VideoReader

pytestmark = pytest.mark.slow


def damaged(clip: Path, folder: Path, packet_number: int) -> Path:
    """Copy a clip with the middle of one packet, in the order of the file, overwritten."""
    with av.open(str(clip)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        packet = packets[packet_number]
        assert packet.pos is not None
        position, size = packet.pos, packet.size
    data = bytearray(clip.read_bytes())
    start = position + size // 3
    data[start : position + size - size // 8] = b"\xff" * (position + size - size // 8 - start)
    path = folder / clip.name
    path.write_bytes(data)
    return path


def read_or_refuse(reader: VideoReader, path: Path, seconds: float) -> Frames | VideoError:
    try:
        return reader.read(path, [seconds])
    except VideoError as error:
        return error


# Packets of a keyframe, of the P-frame after it, and of others; what a decoder cannot notice (here HEVC's first
# keyframe, whose wrong bits are another valid picture) nobody can.
@pytest.mark.parametrize(
    ("name", "packet_number", "decoder"),
    [
        *(("h264.mp4", number, "auto") for number in (1, 25, 72)),
        *(("h264.mp4", number, "pyav") for number in (1, 24, 25, 30, 47, 72, 95)),
        *(("h264_open_gop.mp4", number, "pyav") for number in (1, 24, 25, 47)),
        *(("hevc.mp4", number, "pyav") for number in (1, 24, 25, 30, 95)),
    ],
)
def test_each_frame_is_right_or_refused(
    clips: Path, tmp_path: Path, readers: dict[str, VideoReader], name: str, packet_number: int, decoder: str
) -> None:
    whole = numbered_clips.reference(clips / name).frames_thwc
    path = damaged(clips / name, tmp_path, packet_number)
    group = packet_number // 24 * 24
    near = range(max(group - 4, 0), min(group + 28, len(whole)), 1 if decoder == "pyav" else 4)
    refused = []
    for number in sorted({*near, *range(0, len(whole), 12)}):
        found = read_or_refuse(readers[decoder], path, number / 25 + 0.01)
        if isinstance(found, VideoError):
            assert found.code == "corrupt"
            assert f"the frame at {number / 25:.2f} s" in found.message
            refused.append(number)
        else:
            np.testing.assert_allclose(found.frames_thwc[0], whole[number], atol=1, err_msg=f"frame {number}")
    assert refused, "the damage was not seen"
    # Two threads of a decoder may tell of an error when the next group has begun, which is then refused, too.
    assert min(refused) >= group - 4
    assert max(refused) < group + 48


def test_a_stream_gives_what_comes_before_the_damage(clips: Path, tmp_path: Path, reader: VideoReader) -> None:
    path = damaged(clips / "h264.mp4", tmp_path, 48)
    seen = []
    stream = reader.stream(path, np.arange(96) / 25 + 0.01, chunk_frames=4)
    with pytest.raises(VideoError, match=r"the frame at 1\.9"):
        seen += [numbered_clips.number_in(frame) for chunk in stream for frame in chunk.frames_thwc]
    assert list(stream) == []
    assert reader.probe(path).num_frames == 96


def test_a_lost_beginning_is_told(clips: Path, tmp_path: Path, reader: VideoReader) -> None:
    """Without its first keyframe the clip begins at the second; its times say so, and a note does."""
    path = damaged(clips / "h264.mp4", tmp_path, 0)
    frames = reader.read(path, [0.01])
    assert frames.pts_seconds[0] == pytest.approx(24 / 25)
    assert numbered_clips.number_in(frames.frames_thwc[0]) == 24
    assert any("24 frames before the first keyframe" in note for note in frames.info.notes)


@pytest.mark.parametrize("name", ["h264.mp4", "h264.mkv", "mpeg4.avi", "vp9.webm", "h264.ts"])
def test_a_file_cut_anywhere_gives_whole_frames_or_an_error(
    clips: Path, tmp_path: Path, reader: VideoReader, name: str
) -> None:
    source = clips / name
    if name == "h264.mp4":  # its index must come first to survive
        source = tmp_path / "index_first.mp4"
        numbered_clips.ffmpeg("-i", str(clips / name), "-c", "copy", "-movflags", "+faststart", str(source))
    expected = numbered_clips.reference(source)
    data = source.read_bytes()
    counts = []
    for part in (0.1, 0.35, 0.5, 0.77, 0.99):
        path = tmp_path / f"{part}_{name}"
        path.write_bytes(data[: int(len(data) * part)])
        found = read_or_refuse(reader, path, 0.0)
        if isinstance(found, VideoError):
            assert found.code in ("corrupt", "not_a_video")
            continue
        frames = reader.read(path, np.linspace(found.info.start_seconds, found.info.end_seconds, 5))
        for frame, seconds in zip(frames.frames_thwc, frames.pts_seconds, strict=True):
            number = int(np.abs(expected.pts_seconds - seconds).argmin())
            np.testing.assert_allclose(frame, expected.frames_thwc[number], atol=1)
        counts.append(found.info.num_frames)
    assert counts == sorted(counts)
    assert counts[0] < counts[-1] <= numbered_clips.NUM_FRAMES


def test_pictures_that_ogg_repeats_are_not_damaged(tmp_path: Path, reader: VideoReader) -> None:
    """Its packets of no bytes say: the picture before once more."""
    greys, path = [40] * 8 + [200] * 8 + [120] * 8, tmp_path / "repeated.ogv"
    pictures = [np.full((64, 96, 3), grey, np.uint8) for grey in greys]
    numbered_clips.encode(path, pictures, "-c:v libtheora -b:v 200k")
    with av.open(str(path)) as container:
        assert sum(packet.size == 0 and packet.pts is not None for packet in container.demux(video=0)) > 8
    frames = reader.read(path, [(number + 0.5) / 25 for number in range(18)])
    shown = frames.frames_thwc[frames.frame_of_time].mean(axis=(1, 2, 3))
    np.testing.assert_allclose(shown, greys[:18], atol=4)


@pytest.mark.parametrize("name", ["clips.csv", "RATS.EAF", "notes.txt"])
def test_a_list_of_clips_is_told_where_it_belongs(name: str, tmp_path: Path, readers: dict[str, VideoReader]) -> None:
    (tmp_path / name).write_text("path,label\na.mp4,jumping\n")
    with pytest.raises(VideoError, match="give a video") as raised:
        readers["auto"].probe(tmp_path / name)
    assert raised.value.code == "not_a_video"
    assert ("Lists of clips are for check, teach, train and evaluate." in raised.value.message) == (name != "notes.txt")
