"""Messages between a reader and its decoding process: a kind, a length, and that many bytes.

They are JSON and raw pixels, never pickle: the decoding process reads hostile files, and its messages must not be able
to run code in the process that trusts it.
"""

from __future__ import annotations

import json
import struct
from typing import IO, Any

MAGIC = b"\x93nonlocal-video\n"
"""First bytes of a decoding process; the interpreter may have printed others before them."""

TAKEN = b"T"  # empty: the request was read, work begins
PLAN = b"P"  # JSON: what the file is and which frames will follow
FRAME = b"F"  # one frame, raw RGB
SHARED = b"S"  # empty: a frame is in shared memory, see _shared_frames; the reader answers TAKEN after copying it
DONE = b"D"  # JSON: the request is finished; notes made meanwhile
ERROR = b"E"  # JSON: code and message
KINDS = (TAKEN, PLAN, FRAME, SHARED, DONE, ERROR)

MAX_JSON_BYTES = 1 << 28

_HEADER = struct.Struct("<cQ")
HEADER_BYTES = _HEADER.size


class BrokenMessageError(Exception):
    """The other side ended, or sent an invalid message."""


def read_exactly(pipe: IO[bytes], view: memoryview) -> None:
    """Fill `view` from an unbuffered pipe."""
    while view:
        count = pipe.readinto(view)  # type: ignore[attr-defined]
        if not count:
            raise BrokenMessageError("The pipe was closed.")
        view = view[count:]


def read_header(pipe: IO[bytes]) -> tuple[bytes, int]:
    """Read a message's kind and the length of its body."""
    header = bytearray(HEADER_BYTES)
    read_exactly(pipe, memoryview(header))
    kind, length = _HEADER.unpack(header)
    if kind not in KINDS:
        raise BrokenMessageError(f"{kind = } is not a kind of message.")
    return kind, length


def read_json(pipe: IO[bytes], length: int) -> dict[str, Any]:
    """Read a JSON object of `length` bytes."""
    if length > MAX_JSON_BYTES:
        raise BrokenMessageError(f"{length = } is more than a message may have.")
    payload = bytearray(length)
    read_exactly(pipe, memoryview(payload))
    try:
        value = json.loads(payload)
    except ValueError as error:
        raise BrokenMessageError("The message is not valid JSON.") from error
    if not isinstance(value, dict):
        raise BrokenMessageError("The message is not a JSON object.")
    return value


def write_message(pipe: IO[bytes], kind: bytes, payload: memoryview | bytes = b"") -> None:
    """Write one message to an unbuffered pipe."""
    for part in (memoryview(_HEADER.pack(kind, len(payload))), memoryview(payload)):
        while part:
            part = part[pipe.write(part) :]


def write_json(pipe: IO[bytes], kind: bytes, value: dict[str, Any]) -> None:
    """Write one JSON message; undecodable file names survive as lone surrogates, which JSON escapes."""
    write_message(pipe, kind, json.dumps(value).encode("ascii"))
