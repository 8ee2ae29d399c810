"""Clips whose frames carry their own number in their pixels, and what the ffmpeg binary says of them."""

from __future__ import annotations

import functools
import json
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

NUM_FRAMES = 96
HEIGHT, WIDTH = 64, 96
_BLOCK = 16
_H264 = "-c:v libx264 -pix_fmt yuv420p -g 24 -bf 3"
_HEVC = "-c:v libx265 -pix_fmt yuv420p -x265-params keyint=24:min-keyint=24:log-level=none"
_OPEN_H264 = "-c:v libx264 -pix_fmt yuv420p -x264-params open-gop=1:keyint=24:min-keyint=24:bframes=3"
_TIMES = "settb=1/90000,setpts=(N+5*floor(N/10)+0.5*mod(N\\,2))/25/TB"
_VARIABLE = f"-vf {_TIMES} -fps_mode passthrough -enc_time_base 1/90000"

# name: arguments of ffmpeg, and whether decord takes it
ENCODED = {
    "h264.mp4": (_H264, True),
    "h264.mov": (_H264, True),
    "h264.mkv": (_H264, True),
    "h264_variable.mp4": (f"{_VARIABLE} {_H264}", True),
    "h264_variable.mkv": (f"{_VARIABLE} {_H264}", True),
    "h264_interlaced.mp4": (f"{_H264} -flags +ildct+ilme -x264-params tff=1", True),
    "h264_open_gop.mp4": (_OPEN_H264, False),
    "h264_open_gop.mkv": (_OPEN_H264, False),
    "h264_refresh.mkv": ("-c:v libx264 -pix_fmt yuv420p -x264-params intra-refresh=1:keyint=24", False),
    "h264_fragmented.mp4": (f"{_H264} -movflags frag_keyframe+empty_moov", False),
    "h264.ts": (_H264, False),
    "h264.avi": (_H264, False),
    "hevc.mp4": (_HEVC, False),
    "hevc.mkv": (_HEVC, False),
    "hevc.ts": (_HEVC, False),
    "vp8.webm": ("-c:v libvpx -auto-alt-ref 1 -lag-in-frames 16 -b:v 300k -g 40", False),
    "vp9.webm": ("-c:v libvpx-vp9 -auto-alt-ref 1 -lag-in-frames 25 -b:v 300k -g 40 -cpu-used 5", False),
    "av1.mkv": ("-c:v libaom-av1 -cpu-used 8 -g 40 -crf 15", False),
    "mpeg4.avi": ("-c:v mpeg4 -bf 2 -g 24 -q:v 3", False),
    "mpeg4.mp4": ("-c:v mpeg4 -bf 2 -g 24 -q:v 3", False),
    "mjpeg.avi": ("-c:v mjpeg -q:v 3 -pix_fmt yuvj420p", False),
    "mjpeg.mov": ("-c:v mjpeg -q:v 3 -pix_fmt yuvj420p", False),
    "animation.gif": ("", False),
    "mpeg1.mpg": ("-c:v mpeg1video -bf 2 -g 24 -q:v 3", False),
    "mpeg2.ts": ("-c:v mpeg2video -bf 2 -g 24 -q:v 3", False),
    "flash.flv": ("-c:v flv1 -g 24 -q:v 3", False),
    "windows.wmv": ("-c:v wmv2 -g 24 -q:v 3", False),
}
# name: what is made of another clip by copying its packets
COPIED = {
    "h264_edit_list.mp4": "-ss 1.5 -i h264.mp4 -c copy",
    "hevc_edit_list.mp4": "-ss 1.5 -i hevc.mp4 -c copy",
    "h264_open_gop_cut.mkv": "-ss 1.92 -i h264_open_gop.mkv -c copy",
    "hevc_open_gop_cut.mkv": "-ss 1.92 -i hevc.mkv -c copy",
    "h264_late_start.ts": "-i h264.ts -c copy -ss 1.5",
}
ROTATIONS = (90, 180, 270)
ROTATED = tuple(f"h264_rotated_{degrees}.{kind}" for degrees in ROTATIONS for kind in ("mp4", "mov"))
ALL = (*ENCODED, *COPIED, *ROTATED)


@dataclass(frozen=True)
class Reference:
    """A clip as ffmpeg decodes it: every shown frame, and their times on a player's clock."""

    frames_thwc: NDArray[np.uint8]
    pts_seconds: NDArray[np.float64]

    @property
    def numbers(self) -> list[int]:
        return [number_in(frame) for frame in self.frames_thwc]


def picture(number: int) -> NDArray[np.uint8]:
    """White and black blocks for the number's bits on the left; on the right, red above blue, so up is known."""
    frame = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for bit in range(12):
        row, column = bit // 4 * _BLOCK, bit % 4 * _BLOCK
        frame[row : row + _BLOCK, column : column + _BLOCK] = 255 * (number >> bit & 1)
    frame[: HEIGHT // 2, 4 * _BLOCK :] = 255, 0, 0
    frame[HEIGHT // 2 :, 4 * _BLOCK :] = 0, 0, 255
    return frame


def number_in(frame: NDArray[np.uint8]) -> int:
    """Read the number back; the frame may have been scaled."""
    height, width = frame.shape[0] / HEIGHT, frame.shape[1] / WIDTH
    bits = 0
    for bit in range(12):
        row, column = (bit // 4 + 0.5) * _BLOCK * height, (bit % 4 + 0.5) * _BLOCK * width
        bits |= int(frame[int(row), int(column)].mean() > 127) << bit
    return bits


def is_upright_rgb(frame: NDArray[np.uint8]) -> bool:
    """Whether red is above blue on the right."""
    above, below = frame[HEIGHT // 4, 80].astype(int), frame[HEIGHT * 3 // 4, 80].astype(int)
    return above[0] > 180 > 80 > max(above[1:]) and below[2] > 180 > 80 > max(below[:2])


def ffmpeg(*arguments: str, cwd: Path | None = None, feed: bytes | None = None) -> bytes:
    """Run ffmpeg and return what it writes to standard output."""
    command = ["ffmpeg", "-y", "-v", "error", *arguments]
    done = subprocess.run(command, cwd=cwd, input=feed or b"", capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout


def make(folder: Path) -> None:
    """Make all clips."""
    upright = [picture(number) for number in range(NUM_FRAMES)]
    for name, (arguments, _) in ENCODED.items():
        encode(folder / name, upright, arguments)
    for name, arguments in COPIED.items():
        ffmpeg(*arguments.split(), name, cwd=folder)
    for name in ROTATED:
        degrees = int(name.split("_")[2].split(".")[0])
        encode(folder / name, [np.rot90(frame, degrees // 90) for frame in upright], _H264)  # counter-clockwise
        cosine, sine = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
        set_display_matrix(folder / name, cosine, sine, -sine, cosine)  # shown clockwise


def set_display_matrix(path: Path, a: int, b: int, c: int, d: int) -> None:
    """Have an MP4 or MOV shown with its pixel (x, y) at (a x + c y, b x + d y); see the QuickTime format, "tkhd"."""
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 44  # of the matrix in a version 0 track header
    one = 1 << 16
    x, y = (WIDTH * one if a + c < 0 else 0), (HEIGHT * one if b + d < 0 else 0)
    matrix = (a * one, b * one, 0, c * one, d * one, 0, x, y, 1 << 30)
    data[start : start + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(data)


def encode(path: Path, frames: list[NDArray[np.uint8]], arguments: str, rate: str = "25") -> None:
    """Encode RGB frames with ffmpeg."""
    height, width = frames[0].shape[:2]
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", rate, "-i", "-"]
    ffmpeg(*raw, *arguments.split(), str(path), feed=b"".join(np.ascontiguousarray(f).tobytes() for f in frames))


def pictures(path: Path, numbers: list[int], height: int, width: int) -> NDArray[np.uint8]:
    """Decode some frames of a clip with ffmpeg, turned upright by it."""
    select = "select=" + "+".join(f"eq(n\\,{number})" for number in numbers)
    output = ["-map", "0:v:0", "-vf", select, "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    return np.frombuffer(ffmpeg("-i", str(path), *output), np.uint8).reshape(-1, height, width, 3)


@functools.lru_cache(maxsize=64)
def reference(path: Path) -> Reference:
    """Decode all of a clip with ffmpeg, turned upright by it."""
    fields = "format=start_time:frame=best_effort_timestamp_time,width,height:stream_side_data=rotation"
    probe = ["ffprobe", "-v", "error", "-select_streams", "v:0", "-show_entries", fields, "-of", "json", str(path)]
    found = json.loads(subprocess.run(probe, capture_output=True, check=True).stdout)
    shown = found["frames"]
    width, height = shown[0]["width"], shown[0]["height"]
    turns = [side["rotation"] for side in found["streams"][0].get("side_data_list", ()) if "rotation" in side]
    if turns and int(turns[0]) % 180:
        width, height = height, width
    output = ["-map", "0:v:0", "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    frames = np.frombuffer(ffmpeg("-i", str(path), *output), np.uint8).reshape(-1, height, width, 3)
    times = [float(frame.get("best_effort_timestamp_time", "nan")) for frame in shown]
    for position in range(len(times) - 2, len(times)):  # ffprobe has none for the last frames of AVI and MPEG-PS
        if np.isnan(times[position]):
            times[position] = times[position - 1] + 1 / 25
    if path.suffix in {".mp4", ".mov", ".mkv", ".webm"}:  # their times have a 0 of their own
        begin = 0.0
    else:  # ffprobe gives a frame of AVI the time at which it comes out of the decoder
        begin = times[0] if path.suffix == ".avi" else float(found["format"]["start_time"])
    return Reference(frames, np.array(times) - begin)
