"""The catalogue as rows: what is installed, what can be downloaded, how large, under which licence."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from nonlocal_video.models.checkpoint import read_card
from nonlocal_video.zoo.catalogue import EMBEDDED, EMBEDDED_SIZES, entries, find, recommended
from nonlocal_video.zoo.entry import CatalogueEntry
from nonlocal_video.zoo.store import weights_path


def entry_row(entry: CatalogueEntry) -> dict[str, Any]:
    """Return the row of a catalogue entry in `weights list`."""
    path = weights_path(entry.name)
    if path.is_file():
        state = "here"
    elif entry.download is None:
        state = "unpublished"
    else:
        state = "by hand" if entry.download.by_hand else "no"
    return {
        "name": entry.name,
        "state": state,
        "path": str(path) if state == "here" else None,
        "bytes": path.stat().st_size if state == "here" else None,
        "download_mb": entry.download_mb,
        "download_mb_is_stated": entry.download is not None and entry.download.size_mb is not None,
        "parameters": entry.parameters,
        "gmacs": entry.gmacs,
        "accuracy": asdict(entry.accuracy) if entry.accuracy else None,
        "licence": entry.licence.name,
        "non_commercial": entry.licence.non_commercial,
        "source": entry.source,
        "url": entry.download.url if entry.download else None,
        "sha256": entry.download.sha256 if entry.download else None,
    }


def embedded_row(name: str) -> dict[str, Any]:
    """Return the row of an embedded model in `weights list`, with the same keys as `entry_row`."""
    path = find(name)
    card = read_card(path)
    parameters, gmacs = EMBEDDED_SIZES[name]
    return {
        "name": name,
        "state": "in the package",
        "path": str(path),
        "bytes": path.stat().st_size,
        "download_mb": None,
        "download_mb_is_stated": False,
        "parameters": parameters,
        "gmacs": gmacs,
        "accuracy": asdict(card.published) if card.published else None,
        "licence": card.licence,
        "non_commercial": False,
        "source": "nonlocal-video",
        "url": None,
        "sha256": None,
    }


def recommended_rows() -> list[dict[str, Any]]:
    """The rows of `weights list --recommended`: as in `weights list`, and `why`."""
    rows = []
    for name, why in recommended().items():
        row = embedded_row(name) if name in EMBEDDED else entry_row(entries()[name])
        rows.append({**row, "why": why})
    return rows
