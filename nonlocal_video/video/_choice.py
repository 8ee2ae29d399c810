"""Choice of the decoder for a file: one table, each row of which an exactness test checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DecoderChoice = Literal["auto", "decord", "pyav"]


@dataclass(frozen=True)
class DecoderRow:
    """One row of the table; the first row that fits a file decides."""

    containers: tuple[str, ...]
    """FFmpeg's names of the containers; empty for any."""
    codecs: tuple[str, ...]
    """FFmpeg's names of the codecs; empty for any."""
    decoder: Literal["decord", "pyav"]
    """Decoder of the files that fit."""
    reason: str
    """Reason for the choice."""


_TABLE = (
    DecoderRow((), ("hevc",), "pyav", "decord returns wrong frames of HEVC with open groups of pictures"),
    DecoderRow((), ("mpeg4", "msmpeg4v3"), "pyav", "decord returns wrong frames of MPEG-4 with B-frames"),
    DecoderRow(("mpegts",), (), "pyav", "decord hangs on MPEG-TS"),
    DecoderRow((), ("av1", "gif"), "pyav", "decord cannot read it"),
    DecoderRow(
        ("mov", "matroska"),
        ("h264",),
        "decord",
        "exact if whole and shown as stored, without edit list or open groups",
    ),
    DecoderRow((), (), "pyav", "decord was not measured to be exact"),
)


def decoder_table() -> tuple[DecoderRow, ...]:
    """Return the table of decoders. The first row that fits wins, but decord only gets files that are plain."""
    return _TABLE


def choose(container: str, codec: str, *, has_edit_list: bool, is_plain: bool) -> DecoderRow:
    """Choose the decoder of a file.

    Args:
        container: FFmpeg's name of the container.
        codec: FFmpeg's name of the codec.
        has_edit_list: Whether an edit list hides or reorders frames.
        is_plain: Whether the file is complete, with one 8-bit video stream whose times are those of its packets, whose
            keyframes are all random-access points, and which is shown as it is stored: upright, of one size, not HDR.
    """
    row = next(
        row
        for row in _TABLE
        if (not row.containers or container in row.containers) and (not row.codecs or codec in row.codecs)
    )
    if row.decoder == "decord" and has_edit_list:
        return DecoderRow(row.containers, row.codecs, "pyav", "decord ignores edit lists and returns wrong frames")
    if row.decoder == "decord" and not is_plain:
        return DecoderRow(row.containers, row.codecs, "pyav", "decord is not exact on this kind of file")
    return row
