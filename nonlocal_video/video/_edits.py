"""Effects of MP4's edit lists on a stream, by comparison with the file read without them."""

from __future__ import annotations

from av.video.stream import VideoStream

from nonlocal_video.video._source import Source


def packet_layout(stream: VideoStream) -> list[tuple[int, bool]]:
    """Return the position of each packet of a stream in the container's index, and whether it is hidden."""
    return [(entry.pos, entry.is_discard) for entry in stream.index_entries]


def layout_without_edits(source: Source) -> list[tuple[int, bool]]:
    """Return the same of a file's video stream as if the file had no edit lists."""
    with source.opened(ignore_editlist="1") as (_, stream):
        return packet_layout(stream)
