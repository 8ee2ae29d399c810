"""Recognise files that were given as weights and hold none, most often the remains of a failed download."""

from __future__ import annotations

import re
from pathlib import Path

_BEGINNING_BYTES = 4096
_SHOWN = 40


def describe_non_weights(path: Path) -> str | None:
    """Return what a file is, and what to do, if it is text or an archive; None for anything else.

    Raises:
        OSError: If the file cannot be read.
    """
    with path.open("rb") as file:
        beginning = file.read(_BEGINNING_BYTES)
    if not beginning:
        return "is empty: the download or the copy failed; get the file again"
    if beginning.startswith(b"version https://git-lfs.github.com/spec/"):
        return "is a git-lfs pointer, which only names the weights: get them with `git lfs pull`"
    if re.match(rb"(\.\./)*(\.git/)?/?annex/objects/", beginning):
        return "is a git-annex pointer, which only names the weights: get them with `git annex get`"
    if beginning.startswith(b"\x1f\x8b"):
        return "is a gzip archive: unpack it and give the weights file inside"
    text = _as_text(beginning)
    if text is None:
        return None
    text = text.lstrip("\ufeff \t\r\n")
    if text.startswith("<") and re.search(r"<(!doctype\s+html|html|head|body|title|script)\b", text, re.IGNORECASE):
        return "is an HTML page, perhaps of a login or an error: get the weights by the link to the file itself"
    if text.startswith("<?xml"):
        return f"is an XML document, perhaps a server's error ({_shown(text)}): get the weights again"
    if re.match(r"[\[{]\s*([\"\[{\]}]|-?\d)", text):
        return f"is a JSON text, perhaps a server's error ({_shown(text)}): get the weights again"
    return f"is a text file (it begins with {_shown(text)}): give the weights themselves"


def _as_text(beginning: bytes) -> str | None:
    encoding = "utf-16" if beginning.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8"
    try:
        text = beginning.decode(encoding)
    except UnicodeDecodeError as error:
        if len(beginning) < _BEGINNING_BYTES or error.start < len(beginning) - 4:  # not just cut within a character
            return None
        text = beginning[: error.start].decode(encoding)
    return None if re.search(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]", text) else text


def _shown(text: str) -> str:
    first = re.sub(r"\s+", " ", text)
    return repr(first if len(first) <= _SHOWN else first[:_SHOWN] + "...")
