"""Where pulled and converted weights are kept, and what is known about them."""

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
    """Where the converted weights of a catalogue name lie once they are pulled."""
    return weights_folder() / f"{name}.safetensors"


def original_path(entry: CatalogueEntry) -> Path:
    """Where the publisher's file lies until it is converted; a file put there by hand is taken.

    Named after the entry, as publishers give different files the same name.
    """
    suffix = _SUFFIXES[entry.download.file_format] if entry.download else ""
    return weights_folder() / "downloads" / f"{entry.name}{suffix}"


@dataclass(frozen=True)
class Record:
    """What was seen when weights were pulled; lies beside them as JSON."""

    url: str
    sha256: str
    """SHA-256 of the publisher's file."""
    num_bytes: int
    converted_sha256: str
    """SHA-256 of the converted file."""


def record_path(name: str) -> Path:
    """Where the record of a catalogue name lies."""
    return weights_folder() / f"{name}.json"


def read_record(name: str) -> Record | None:
    """The record of a catalogue name, if it was ever pulled.

    Raises:
        ModelError: The file is not a record.
    """
    path = record_path(name)
    try:
        return Record(**json.loads(path.read_text("utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, RecursionError) as error:
        raise ModelError(f"{path} is damaged ({error}). Delete it, and pull {name} again.") from error


def write_record(name: str, record: Record) -> None:
    """Writes or replaces the record of a catalogue name in one step."""
    path = record_path(name)
    with atomic_write(path) as file:
        file.write(json.dumps(asdict(record), indent=1).encode() + b"\n")
