"""Parsing of H.264 bitstreams."""

from __future__ import annotations

_IDR_SLICE = 5


def nal_length_bytes(extradata: bytes | None) -> int:
    """Return the size of the length before each H.264 unit in MP4 and Matroska (ISO/IEC 14496-15); 0 otherwise."""
    return (extradata[4] & 3) + 1 if extradata is not None and len(extradata) > 4 and extradata[0] == 1 else 0


def is_instantaneous_refresh(packet: bytes, nal_length_bytes: int) -> bool:
    """Return whether an H.264 picture is an IDR picture, not just a recovery point (open GOPs, gradual refresh)."""
    position = 0
    while position + nal_length_bytes < len(packet):
        start = position + nal_length_bytes
        if packet[start] & 0x1F == _IDR_SLICE:
            return True
        position = start + int.from_bytes(packet[position:start], "big")
    return False
