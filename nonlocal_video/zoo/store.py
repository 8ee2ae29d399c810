"""Files of pulled and converted weights, and the records about them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nonlocal_video.errors import ModelError
from nonlocal_video.io import atomic_write
from nonlocal_video.paths import weights_folder

if TYPE_CHECKING:
    from nonlocal_video.zoo.entry import CatalogueEntry

_SUFFIXES = {"safetensors": ".safetensors", "torch": ".pth", "caffe2": ".pkl"}


def weights_path(name: str) -> Path:
    """Return the path of a catalogue name's converted weights."""
    return weights_folder() / f"{name}.safetensors"


def original_path(entry: CatalogueEntry) -> Path:
    """Return the path of the publisher's file until it is converted; a file put there by hand is used.

    It has the entry's name, since publishers give different files the same name.
    """
    suffix = _SUFFIXES[entry.download.file_format] if entry.download else ""
    return weights_folder() / "downloads" / f"{entry.name}{suffix}"


@dataclass(frozen=True)
class Record:
    """Record of a download, stored as JSON with the weights."""

    url: str
    """Address of the publisher's file."""
    sha256: str
    """SHA-256 of the publisher's file."""
    num_bytes: int
    """Size of the publisher's file."""
    converted_sha256: str
    """SHA-256 of the converted file."""


def record_path(name: str) -> Path:
    """Return the path of a catalogue name's record."""
    return weights_folder() / f"{name}.json"


def read_record(name: str) -> Record | None:
    """Return the record of a catalogue name; None if it was never pulled.

    Raises:
        ModelError: If the file is not a record.
    """
    path = record_path(name)
    try:
        return Record(**json.loads(path.read_text("utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, RecursionError) as error:
        raise ModelError(f"{path} is damaged ({error}). Delete it, and pull {name} again.") from error


def write_record(name: str, record: Record) -> None:
    """Write or replace the record of a catalogue name in one step."""
    path = record_path(name)
    with atomic_write(path) as file:
        file.write(json.dumps(asdict(record), indent=1).encode() + b"\n")
