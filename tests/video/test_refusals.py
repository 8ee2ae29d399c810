"""Refusals of files that are not videos or are too much, and of wrong requests."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

import numbered_clips
import numpy as np
import pytest

from nonlocal_video.errors import UsageError, VideoError
from nonlocal_video.video import DecodeLimits, VideoReader


def failure(reader: VideoReader, path: str | bytes | Path) -> VideoError:
    with pytest.raises(VideoError) as caught:
        reader.probe(path)
    assert "\n" not in caught.value.message
    return caught.value


def test_what_is_no_regular_file(tmp_path: Path, reader: VideoReader) -> None:
    assert failure(reader, tmp_path / "nothing.mp4").code == "not_found"
    assert failure(reader, tmp_path / "nothing.mp4" / "deeper.mp4").code == "not_found"
    assert failure(reader, "nul\0character.mp4").code == "not_found"
    assert failure(reader, "").message.startswith("'': there is no such file")  # and not the working folder
    assert "standard input is not read; save the clip" in failure(reader, "-").message
    assert "nonlocal-video watch" in failure(reader, "/dev/video99").message
    assert failure(reader, tmp_path).code == "not_a_video"
    assert failure(reader, "/dev/null").code == "not_a_video"
    os.mkfifo(tmp_path / "fifo.mp4")  # nobody ever writes to it: an ordinary open would wait for ever
    assert failure(reader, tmp_path / "fifo.mp4").code == "not_a_video"
    with socket.socket(socket.AF_UNIX) as unix:
        here = os.getcwd()
        os.chdir(tmp_path)  # the address of a socket must be short
        try:
            unix.bind("socket.mp4")
        finally:
            os.chdir(here)
        assert failure(reader, tmp_path / "socket.mp4").code == "not_a_video"


def test_what_is_no_path_leaves_the_reader_usable(clips: Path, reader: VideoReader) -> None:
    with pytest.raises(UsageError, match="path = None"):
        reader.probe(None)
    assert reader.probe(clips / "h264.mp4").codec == "h264"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(clips: Path, tmp_path: Path, reader: VideoReader) -> None:
    path = tmp_path / "secret.mp4"
    path.write_bytes((clips / "h264.mp4").read_bytes())
    path.chmod(0)
    error = failure(reader, path)
    assert error.code == "not_found"
    assert "permission denied" in error.message


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXTINF:1,\n{other}\n",  # a playlist
        "ffconcat version 1.0\nfile '{other}'\n",
        '<?xml version="1.0"?><MPD><Period><BaseURL>{other}</BaseURL></Period></MPD>',
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
        "plain words\n" * 100,
    ],
)
@pytest.mark.parametrize("name", ["trap.mp4", "trap.m3u8", "trap.txt"])
def test_text_that_names_other_files_opens_none(
    clips: Path, tmp_path: Path, reader: VideoReader, name: str, text: str
) -> None:
    (tmp_path / name).write_text(text.format(other=clips / "h264.ts"))
    assert failure(reader, tmp_path / name).code == "not_a_video"


def test_names_need_not_be_utf8(clips: Path, tmp_path: Path, reader: VideoReader) -> None:
    path = os.path.join(os.fsencode(tmp_path), b"caf\xe9 \xff\n.mp4")
    try:
        Path(os.fsdecode(path)).write_bytes((clips / "h264.mp4").read_bytes())
    except OSError:
        pytest.skip("this file system wants UTF-8")
    frames = reader.read(path, [1.0])
    assert numbered_clips.number_in(frames.frames_thwc[0]) == 25
    assert failure(reader, path + b".no").message.startswith("caf? ??.mp4.no: ")


def test_a_path_that_looks_like_an_address_is_a_path(
    clips: Path, tmp_path: Path, reader: VideoReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("concat:a.mp4", "-i.mp4", "%03d.mp4"):
        Path(name).write_bytes((clips / "hevc.mp4").read_bytes())
        assert reader.probe(name).num_frames == numbered_clips.NUM_FRAMES
    assert failure(reader, "http://localhost/x.mp4").code == "not_found"


def test_limits_have_codes(clips: Path, tmp_path: Path) -> None:
    for limit, code in (
        (DecodeLimits(max_bytes=1000), "too_large"),
        (DecodeLimits(max_pixels=1000), "too_large"),
        (DecodeLimits(max_duration_seconds=2), "too_long"),
        (DecodeLimits(max_frames=10), "too_long"),
    ):
        with VideoReader(limits=limit) as reader:
            assert failure(reader, clips / "h264.mp4").code == code


def test_limits_are_read_from_words() -> None:
    parsed = DecodeLimits.parse(["max_duration_seconds=600", "max_frames=100"])
    assert parsed == DecodeLimits(max_duration_seconds=600.0, max_frames=100)
    assert DecodeLimits.parse([]) == DecodeLimits()
    for text, message in (
        ("max_size=3", "NAME one of timeout_seconds, max_bytes"),
        ("max_frames", "'' is not a number"),
        ("max_frames=1.5", "not a number"),
        ("max_frames=-1", "above 0"),
    ):
        with pytest.raises(UsageError, match=message):
            DecodeLimits.parse([text])


def test_an_hour_of_black_is_refused_quickly_where_it_is_too_long(tmp_path: Path) -> None:
    path = tmp_path / "hour.mp4"
    numbered_clips.ffmpeg("-f", "lavfi", "-i", "color=black:s=64x64:r=1:d=3600", "-c:v", "libx264", str(path))
    with VideoReader(limits=DecodeLimits(max_duration_seconds=600)) as reader:
        assert failure(reader, path).code == "too_long"
    with VideoReader() as reader:  # allowed, it costs no more than what is looked at
        assert reader.probe(path).num_frames == 3600
        assert reader.read(path, [1800.0]).frames_thwc.shape == (1, 64, 64, 3)


def test_giant_frames_are_refused_before_they_are_decoded(tmp_path: Path, reader: VideoReader) -> None:
    large = tmp_path / "large.mp4"
    source = ["-f", "lavfi", "-i", "color=red:s=8192x8192:r=1:d=1"]
    numbered_clips.ffmpeg(*source, "-c:v", "mjpeg", "-q:v", "31", "-frames:v", "1", str(large))
    claims = tmp_path / "claims.avi"  # a few bytes that claim to be 16384 x 16384, which ffmpeg would not even write
    numbered_clips.encode(claims, [numbered_clips.picture(1)], "-c:v rawvideo -pix_fmt bgr24")
    header = struct.pack("<III", 40, numbered_clips.WIDTH, numbered_clips.HEIGHT)
    data = claims.read_bytes()
    height = numbered_clips.HEIGHT if header in data else -numbered_clips.HEIGHT  # stored from the bottom or the top
    header = struct.pack("<Iii", 40, numbered_clips.WIDTH, height)
    assert data.count(header) == 1
    claims.write_bytes(data.replace(header, struct.pack("<III", 40, 16384, 16384)))
    for path, size in ((large, "8192 x 8192"), (claims, "16384 x 16384")):
        error = failure(reader, path)
        assert error.code == "too_large"
        assert size in error.message


def test_limits_check_themselves() -> None:
    for wrong in ({"timeout_seconds": 0}, {"max_bytes": -1}, {"max_pixels": float("nan")}, {"memory_bytes": 1 << 20}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            DecodeLimits(**wrong)


def test_times_outside_of_the_video_are_refused(clips: Path, reader: VideoReader) -> None:
    path = clips / "h264.mp4"
    end = reader.probe(path).duration_seconds
    for times in ([-0.1], [0.0, end + 0.1], [float("nan")], [float("inf")]):
        with pytest.raises(UsageError, match="times_seconds"):
            reader.read(path, times)
    for no_times in ([], [[0.0]]):
        with pytest.raises(UsageError, match="times_seconds"):
            reader.read(path, no_times)
    with pytest.raises(UsageError, match="chunk_frames"):
        reader.stream(path, [0.0], chunk_frames=0)
    with pytest.raises(UsageError, match="decoder"):
        VideoReader(decoder="opencv")
    last = reader.read(path, [end])
    assert numbered_clips.number_in(last.frames_thwc[0]) == numbered_clips.NUM_FRAMES - 1


def test_the_cover_of_a_song_is_no_video(tmp_path: Path, reader: VideoReader) -> None:
    cover, song = tmp_path / "cover.png", tmp_path / "song.mp3"
    numbered_clips.encode(cover, [numbered_clips.picture(1)], "-frames:v 1")
    sound = ["-f", "lavfi", "-i", "sine=d=1", "-i", str(cover), "-map", "0", "-map", "1"]
    numbered_clips.ffmpeg(*sound, "-c:v", "copy", "-disposition:v", "attached_pic", "-f", "mp3", str(song))
    assert failure(reader, song).code == "no_video_stream"


def test_of_several_video_streams_the_first_is_read_and_said_to_be(tmp_path: Path, reader: VideoReader) -> None:
    import av

    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("mpeg4", rate=10) for _ in range(2)]
        for stream, side in zip(streams, (64, 128), strict=True):
            stream.width = stream.height = side
            stream.pix_fmt = "yuv420p"
        for stream in streams:
            for _ in range(5):
                picture = np.zeros((stream.height, stream.width, 3), np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
    info = reader.probe(path)
    assert (info.width, info.num_frames, info.decoder) == (64, 5, "pyav")
    assert "The file has 2 video streams: the first one is read." in info.notes
