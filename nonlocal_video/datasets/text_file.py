"""Text files from other programs, with or without a byte order mark."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, TextIO

from nonlocal_video.errors import UsageError

_OTHER_SIGNATURES = {
    b"\xff\xfe": "text in UTF-16",
    b"\xfe\xff": "text in UTF-16",
    b"PK\x03\x04": "a spreadsheet or another archive",
    b"\xd0\xcf\x11\xe0": "an old spreadsheet",
    b"PAR1": "a Parquet table",
    b"\x1f\x8b": "compressed",
}


@contextmanager
def open_text(
    path: str | os.PathLike[str], *, errors: Literal["strict", "surrogateescape"] = "strict"
) -> Iterator[TextIO]:
    """Open a UTF-8 text file, with or without a byte order mark, without newline translation.

    Args:
        path: Path of the file.
        errors: Handling of bytes that are not UTF-8, as for `open`.

    Raises:
        UsageError: The file is of another kind, judged by its first bytes.
        OSError: The file cannot be read.
    """
    with open(path, "rb") as file:
        signature = file.read(4)
    for start, what in _OTHER_SIGNATURES.items():
        if signature.startswith(start):
            name = repr(os.fspath(path))
            raise UsageError(f"{name} is {what}, not text in UTF-8. Save it as UTF-8 (CSV UTF-8 in a spreadsheet).")
    with open(path, encoding="utf-8-sig", errors=errors, newline="") as text:
        yield text
