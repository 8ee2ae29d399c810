"""Probing of a file: one pass over its packets, decoding at most the first picture.

For most codecs a packet is one shown frame, so the packets' times are the frames' times. Otherwise (hidden VP8 frames,
packed MPEG-4, missing times) the frames are counted by decoding.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from nonlocal_video.errors import VideoError
from nonlocal_video.video._choice import choose
from nonlocal_video.video._clock import Clock
from nonlocal_video.video._early_blocks import EarlyBlocks
from nonlocal_video.video._edits import layout_without_edits, packet_layout
from nonlocal_video.video._frames import decoded_frames, from_first_sound, is_hidden
from nonlocal_video.video._h264 import is_instantaneous_refresh, nal_length_bytes
from nonlocal_video.video._index import StreamIndex, check_duration, index_webp
from nonlocal_video.video._presentation import StoredAs, present
from nonlocal_video.video._sizes import CodedShape, SizeWatch
from nonlocal_video.video._source import Source, map_error
from nonlocal_video.video._streams import demux, still_format
from nonlocal_video.video._webp import is_webp
from nonlocal_video.video.info import VideoInfo

# Codecs whose packets correspond one to one to shown frames, as measured; for any other, frames are counted by
# decoding.
_ONE_FRAME_A_PACKET = {
    "av1", "dnxhd", "dvvideo", "ffv1", "ffvhuff", "flv1", "gif", "h261", "h263", "h264", "hevc", "huffyuv", "jpeg2000",
    "mjpeg", "mpeg1video", "mpeg2video", "mpeg4", "msmpeg4v1", "msmpeg4v2", "msmpeg4v3", "png", "prores", "qtrle",
    "rawvideo", "theora", "utvideo", "vp8", "vp9", "webp", "wmv1", "wmv2",
}  # fmt: skip
_REORDERING_CODECS = {"h264", "hevc"}
# Formats in which seeks were measured to be exact; elsewhere (MPEG-PS, ASF) times after a seek are estimates.
_SEEKABLE_CONTAINERS = {"mov", "matroska", "avi", "mpegts"}

_LEAST_DECORD_SIDE = 32

_MPEG4_PICTURE = b"\x00\x00\x01\xb6"
_MPEG4_NOTHING_CODED_BYTES = 19  # FFmpeg's own bound on the placeholder that packed streams put after a packed pair


@dataclass
class _Packets:
    """Summary of a stream's packets, in file order."""

    num_packets: int
    pts: NDArray[np.int64]  # of the packets that are shown, wholly there and not lost at a change of the size
    last_duration: int
    first_dts: int | None
    key_pts: list[int]
    key_dts: list[int]
    hides_frames: bool  # some packets are trimmed by an edit list
    one_to_one: bool  # packets can stand for frames
    in_decoding_order: bool  # times of frames that are reordered, written without the reordering
    starts_afresh: bool  # known of H.264 only: nothing after a keyframe refers to what comes before it
    is_cut: bool  # the last packets are only partly there, or not at all
    cut_pts: frozenset[int | None]  # the times of those partly there
    early: EarlyBlocks  # packets without a time
    first_packet: bytes
    shapes: list[CodedShape]  # of the first keyframe and those behind headers that are not the stream's first ones

    @property
    def has_early_pictures(self) -> bool:
        """Whether pictures come before the first keyframe, so that they may refer to what is not in the file."""
        return bool(self.key_pts) and not self.early.has_keyframe and bool((self.pts < self.key_pts[0]).any())


def build_index(source: Source) -> StreamIndex:
    """Index a file's video stream.

    Raises:
        VideoError: If the file cannot be read, or exceeds a limit.
    """
    if is_webp(source):
        return index_webp(source)
    with source.opened() as (container, stream):
        if stream.time_base is None:
            raise VideoError("corrupt", f"{source.name}: its stream has no time base; re-encode it.")
        container_name = container.format.name.split(",")[0]
        codec = stream.codec_context.codec.canonical_name
        time_base = stream.time_base
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        layout = packet_layout(stream)
        length_bytes = nal_length_bytes(stream.codec_context.extradata) if codec == "h264" else 0
        num_promised = stream.frames
        codec_context = stream.codec_context
        transfer, primaries = int(codec_context.color_trc), int(codec_context.color_primaries)
        stored_as = StoredAs(stream.sample_aspect_ratio, transfer, primaries)
        packets = _read_packets(source, container, stream, codec, length_bytes)
        if (still := still_format(container, packets.num_packets, packets.first_packet)) is not None:
            raise VideoError("not_a_video", f"{source.name}: it is a still picture ({still}); give a video file.")
        assert source.stream_choice is not None
        notes = _truncation_notes(container, stream, len(layout), packets) + source.stream_choice.notes
        num_video_streams = len(container.streams.video)
        clock = Clock.from_container(container, stream)
    if not packets.num_packets:
        raise VideoError("corrupt", f"{source.name}: its video stream is empty; get the file again.")
    has_edit_list = packets.hides_frames or (container_name == "mov" and layout != layout_without_edits(source))

    first, early_pts = _decode_head(source, packets)
    pts = packets.pts
    if packets.has_early_pictures:
        num_early = int((pts < packets.key_pts[0]).sum())
        pts = np.concatenate([early_pts, pts[num_early:]])
        if len(early_pts) < num_early:
            left_out = num_early - len(early_pts)
            notes += (f"{left_out} frames before the first keyframe cannot be decoded: they are left out.",)
    counted = not packets.one_to_one or not packets.key_pts or len(pts) == 0 or bool((np.diff(pts) <= 0).any())
    if counted:
        pts, count_notes = _count_frames(source, packets, time_base, rate)
        notes += count_notes
    first_shown, earliest = int(pts[0]), int(packets.pts.min(initial=pts[0]))
    if counted:
        earliest = first_shown
        if container_name == "avi" and packets.first_dts is not None:  # reordered frames come out late
            first_shown = earliest = min(first_shown, packets.first_dts)
    step = int(pts[-1] - pts[-2]) if len(pts) > 1 else 0
    last_duration = packets.last_duration or step or max(1, round(1 / (rate * time_base)))
    duration_seconds = float((int(pts[-1] - pts[0]) + last_duration) * time_base)
    check_duration(source, duration_seconds)

    presentation = present(source, first, stored_as, packets.shapes)
    # decord returns wrong frames for keyframes that are not random-access points, may choose another video stream,
    # fails on rows shorter than FFmpeg's alignment and rounds 10 bits differently.
    is_fragmented = container_name == "mov" and num_promised < packets.num_packets
    is_8_bit = first.format.components[0].bits == 8
    is_usual = (
        packets.starts_afresh
        and num_video_streams == 1
        and is_8_bit
        and not is_fragmented
        and min(first.width, first.height) >= _LEAST_DECORD_SIDE
    )
    is_plain = is_usual and not (
        counted
        or packets.is_cut
        or notes
        or packets.has_early_pictures
        or presentation.decord_fault
        or presentation.changes_size
    )
    row = choose(container_name, codec, has_edit_list=has_edit_list, is_plain=is_plain)
    info = VideoInfo(
        container=container_name,
        codec=codec,
        width=presentation.width,
        height=presentation.height,
        rotation_degrees=presentation.orientation.clockwise_degrees,
        num_frames=len(pts),
        fps=len(pts) / duration_seconds,
        start_seconds=clock.seconds_to(first_shown * time_base, earliest=earliest * time_base),
        duration_seconds=duration_seconds,
        has_edit_list=has_edit_list,
        decoder=row.decoder,
        notes=notes + presentation.notes,
    )
    seekable = container_name in _SEEKABLE_CONTAINERS and not counted
    return StreamIndex(
        info=info,
        time_base=time_base,
        pts=pts,
        counted=counted,
        key_pts=np.asarray(packets.key_pts if seekable else (), dtype=np.int64),
        key_dts=np.asarray(packets.key_dts if seekable else (), dtype=np.int64),
        cut_pts=packets.cut_pts,
        stream_choice=source.stream_choice,
        presentation=presentation,
    )


def _read_packets(
    source: Source, container: InputContainer, stream: VideoStream, codec: str, length_bytes: int
) -> _Packets:
    assert stream.time_base is not None
    shown = array("q")
    key_pts: list[int] = []
    key_dts: list[int] = []
    num_packets = last_duration = 0
    first_packet = b""
    watch = SizeWatch(stream, source.limits.max_pixels)
    lowest_pts, highest_pts = np.iinfo(np.int64).max, np.iinfo(np.int64).min
    previous_dts: int | None = None
    first_dts: int | None = None
    hides_frames = is_cut = False
    starts_afresh = length_bytes > 0
    # AVI has no presentation times, and FFmpeg's guess is wrong if pictures are read in another order than shown.
    is_unordered = container.format.name == "avi" and codec in _REORDERING_CODECS
    one_to_one = codec in _ONE_FRAME_A_PACKET and not is_unordered
    in_decoding_order = codec in _REORDERING_CODECS and stream.codec_context.has_b_frames
    partial_pts: list[int | None] = []
    lost_pts: list[int] = []
    early = EarlyBlocks(source, container)
    allowed_ticks = source.limits.max_duration_seconds / float(stream.time_base)
    try:
        for packet in demux(container, stream):
            if packet.size == 0:  # the empty packet at the end, and frames that an AVI recorder dropped
                continue
            num_packets += 1
            if packet.pts is None:
                early.add(packet)
            first_packet = first_packet or bytes(packet)
            if watch.see(packet):
                lost_pts.append(highest_pts)
            if packet.is_corrupt:
                partial_pts.append(packet.pts)
            else:  # only damage at the very end is a cut; elsewhere the decoder has to judge the picture
                partial_pts.clear()
            one_to_one &= packet.pts is not None and _is_one_picture(packet, codec)
            in_decoding_order &= packet.pts is not None and packet.pts == packet.dts
            hides_frames |= packet.is_discard
            if packet.pts is not None and not packet.is_discard and not is_hidden(packet, codec):
                shown.append(packet.pts)
                if len(shown) > source.limits.max_frames:
                    message = f"{source.name}: it has more than {source.limits.max_frames:,} frames"
                    raise VideoError("too_long", f"{message}; cut it into parts or raise max_frames.")
                lowest_pts = min(lowest_pts, packet.pts)
                if packet.pts >= highest_pts:
                    highest_pts, last_duration = packet.pts, packet.duration or 0
                if highest_pts - lowest_pts > allowed_ticks:  # no need to read the rest
                    check_duration(source, float((highest_pts - lowest_pts) * stream.time_base))
            if starts_afresh and packet.is_keyframe:
                starts_afresh = is_instantaneous_refresh(bytes(packet), length_bytes)
            if packet.is_keyframe and packet.pts is not None:
                key_pts.append(packet.pts)
                key_dts.append(packet.pts if packet.dts is None else packet.dts)
            if packet.dts is not None:
                # Times that jump back come from two recordings joined into one: packets cannot be sorted by them.
                one_to_one &= previous_dts is None or packet.dts >= previous_dts
                first_dts = packet.dts if first_dts is None else first_dts
                previous_dts = packet.dts
    except av.FFmpegError as error:
        if not shown or isinstance(error, MemoryError):
            raise map_error(error, source.name, "reading its packets") from None
        is_cut = True
    if partial_pts:
        is_cut, last_duration = True, 0
    pts = np.sort(np.frombuffer(shown, dtype=np.int64))
    return _Packets(
        num_packets=num_packets - len(partial_pts),
        pts=pts[~np.isin(pts, [*lost_pts, *(p for p in partial_pts if p is not None)])],
        last_duration=last_duration,
        first_dts=first_dts,
        key_pts=key_pts,
        key_dts=key_dts,
        hides_frames=hides_frames,
        one_to_one=one_to_one and not (in_decoding_order and num_packets > 1),
        in_decoding_order=in_decoding_order,
        starts_afresh=starts_afresh,
        is_cut=is_cut,
        cut_pts=frozenset(partial_pts),
        early=early,
        first_packet=first_packet,
        shapes=watch.shapes(),
    )


def _is_one_picture(packet: av.Packet[VideoStream], codec: str) -> bool:
    """Return False for a packet of packed MPEG-4 (DivX), where one packet has two pictures and the next none."""
    if codec != "mpeg4":
        return True
    return packet.size > _MPEG4_NOTHING_CODED_BYTES and bytes(packet).count(_MPEG4_PICTURE) == 1


def _truncation_notes(
    container: InputContainer, stream: VideoStream, num_listed: int, packets: _Packets
) -> tuple[str, ...]:
    """Return a note that the file is cut off, if that is certain; headers of intact files are often inexact."""
    if container.format.name.startswith("mov") and num_listed > packets.num_packets:
        promised = f" of {num_listed}"
    elif packets.is_cut:
        promised = f" of {stream.frames}" if stream.frames > packets.num_packets else ""
    elif (
        container.format.name.startswith("matroska")
        and len(container.streams) == 1
        and container.duration
        and len(packets.pts)
    ):
        assert stream.time_base is not None
        end_seconds = float((int(packets.pts[-1]) + packets.last_duration) * stream.time_base)
        promised_seconds = container.duration / av.time_base
        if promised_seconds - end_seconds < max(0.5, 0.1 * promised_seconds):
            return ()
        return (f"The file is cut off: {end_seconds:.2f} s of {promised_seconds:.2f} s are present.",)
    else:
        return ()
    return (f"The file is cut off: {packets.num_packets}{promised} frames are present.",)


def _decode_head(source: Source, packets: _Packets) -> tuple[VideoFrame, NDArray[np.int64]]:
    """Decode the first picture, and return the times of intact ones before the first keyframe."""
    first: VideoFrame | None = None
    early_pts = []
    with source.opened() as (container, stream):
        for frame, is_damaged in decoded_frames(source, container, stream, packets.cut_pts):
            first = first or frame
            if not packets.has_early_pictures or frame.pts is None or frame.pts >= packets.key_pts[0]:
                break
            if not is_damaged:
                early_pts.append(frame.pts)
    if first is None:
        raise source.undecodable()
    if first.width * first.height > source.limits.max_pixels:
        raise source.too_many_pixels(first.width, first.height)
    return first, np.asarray(early_pts, dtype=np.int64)


def _count_frames(
    source: Source, packets: _Packets, time_base: Fraction, rate: Fraction
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Decode the whole file for the times of its frames, with notes on times that had to be assumed."""
    step = max(1, round(1 / (rate * time_base)))
    pts: list[int | None] = []
    dts: list[int] = []
    with source.opened() as (container, stream):
        for frame, _ in from_first_sound(decoded_frames(source, container, stream, packets.cut_pts)):
            pts.append(frame.pts)
            if frame.dts is not None:
                dts.append(frame.dts)
            elif dts:  # a decoder's last frames have none
                dts.append(dts[-1] + (dts[-1] - dts[-2] if len(dts) > 1 else step))
    if not pts:
        message = f"{source.name}: none of its frames is intact; get the file again or re-encode it."
        raise VideoError("corrupt", message)
    early = packets.early.times(num_frames=next((k for k, ticks in enumerate(pts) if ticks is not None), 0))
    pts[: len(early)] = early
    if packets.in_decoding_order and len(pts) == len(packets.pts) and (np.diff(packets.pts) > 0).all():
        return packets.pts, ()
    # Packed MPEG-4 and H.264 in AVI only have reliable decoding times, which FFmpeg then uses too.
    for times in (pts, dts):
        if len(times) == len(pts) and None not in times:
            ticks = np.asarray(times, dtype=np.int64)
            if (np.diff(ticks) > 0).all():
                return ticks, ()
    if None in pts:
        note = f"The file has no timestamps: {float(rate):g} frames per second are assumed."
        return np.arange(len(pts), dtype=np.int64) * step, (note,)
    ticks = np.asarray(pts, dtype=np.int64)
    steps = np.diff(ticks)
    if (steps >= 0).all():  # of two pictures with one time, the second is the one that is shown
        return ticks, ()
    jumps_back = np.where(steps < 0, steps - step, 0)
    return ticks - np.append(0, np.cumsum(jumps_back)), (
        "The file's times jump back at some points; they are made continuous.",
    )
