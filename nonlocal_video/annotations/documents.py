"""Files that strangers made: text, JSON and XML of bounded size, without anything that expands or nests for ever."""

from __future__ import annotations

import json
import math
import os
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from nonlocal_video.errors import UsageError

MAX_BYTES = 64 << 20
_MAX_DEPTH = 64
_NOT_TEXT = {
    b"\xff\xfe": "text in UTF-16",
    b"\xfe\xff": "text in UTF-16",
    b"PK\x03\x04": "a spreadsheet or another archive",
    b"\xd0\xcf\x11\xe0": "an old spreadsheet",
    b"\x1f\x8b": "compressed",
}


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Read a file of at most 64 MiB.

    Raises:
        UsageError: It is no file, or larger.
    """
    name = os.fspath(path)
    if not os.path.isfile(name):
        raise UsageError(f"{name!r} is not a file; give an annotation file.")
    with open(name, "rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise UsageError(f"{name!r} has more than {MAX_BYTES >> 20} MiB; divide it by videos.")
    return content


def read_text(path: str | os.PathLike[str]) -> str:
    """Read text in UTF-8, with or without a byte order mark; line ends become one newline.

    Raises:
        UsageError: It is something else.
    """
    content = read_bytes(path)
    name = os.fspath(path)
    for beginning, what in _NOT_TEXT.items():
        if content.startswith(beginning):
            raise UsageError(f"{name!r} is {what}, not text in UTF-8. Save it as UTF-8.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{name!r} is not text in UTF-8 (byte {error.start}). Save it as UTF-8.") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read JSON, in which NaN and the like are refused.

    Raises:
        UsageError: It is not valid JSON.
    """
    text = read_text(path)
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise UsageError(f"{os.fspath(path)!r} nests too deeply for an annotation file.") from None
    except ValueError as error:
        raise UsageError(f"{os.fspath(path)!r} is not valid JSON: {error}.") from None


def read_xml(path: str | os.PathLike[str]) -> Element:
    """Read XML that declares no document type, so that nothing in it is expanded or fetched.

    Raises:
        UsageError: It is not valid XML, has a document type, or nests too deeply.
    """
    content = read_bytes(path)
    name = os.fspath(path)
    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    depth = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _MAX_DEPTH:
            raise UsageError(f"{name!r} nests deeper than {_MAX_DEPTH} elements, as no annotation file does.")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def refuse(*_: object) -> None:
        raise UsageError(f"{name!r} declares a document type (DTD), which annotation files do not need. Remove it.")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        raise UsageError(f"{name!r} is not valid XML: {error}.") from None
    return builder.close()


def as_number(value: Any) -> float | None:
    """A finite number from JSON or from the text of a cell; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def as_mapping(value: Any) -> dict[str, Any]:
    """A JSON object; an empty one in place of anything else."""
    return value if isinstance(value, dict) else {}


def as_list(value: Any) -> list[Any]:
    """A JSON array; an empty one in place of anything else."""
    return value if isinstance(value, list) else []


def to_json(document: Any) -> str:
    """Text that people can read and compare."""
    return json.dumps(document, ensure_ascii=False, indent=1) + "\n"


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number in JSON")
