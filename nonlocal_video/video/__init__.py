"""Reading and writing of video: frames at given times from any file, decoded in a child process."""

from nonlocal_video.video._choice import DecoderChoice, DecoderRow, decoder_table
from nonlocal_video.video.decode import FrameStream, VideoReader
from nonlocal_video.video.encode import VideoWriter, write_video
from nonlocal_video.video.info import FrameChunk, Frames, VideoInfo
from nonlocal_video.video.limits import DecodeLimits
from nonlocal_video.video.region import Region
from nonlocal_video.video.sampling import TemporalView, plan_views

__all__ = [
    "DecodeLimits",
    "DecoderChoice",
    "DecoderRow",
    "FrameChunk",
    "FrameStream",
    "Frames",
    "Region",
    "TemporalView",
    "VideoInfo",
    "VideoReader",
    "VideoWriter",
    "decoder_table",
    "plan_views",
    "write_video",
]
