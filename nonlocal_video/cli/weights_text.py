"""Weights as text."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from nonlocal_video.models.card import ModelCard
from nonlocal_video.zoo.entry import CatalogueEntry


def download_in_words(megabytes: float | None, *, is_stated: bool) -> str:
    """Return the size of a published file in MB; `~` marks an estimate from the parameters."""
    return "" if megabytes is None else f"{'' if is_stated else '~'}{megabytes:.0f} MB"


def accuracy_in_words(accuracy: dict[str, Any] | None) -> str:
    """Return top-1 and top-5 accuracy in percent, and the views."""
    return "" if accuracy is None else f"{accuracy['top1']:.1f} / {accuracy['top5']:.1f} ({accuracy['views']})"


def card_in_words(card: ModelCard) -> dict[str, str]:
    """Return the fields of a card as text, by name; empty where unknown."""
    spec = card.input
    if spec.frame_stride is None:
        frames = f"{spec.num_frames} frames at {spec.frames_per_second:g} per second"
    else:
        frames = f"{spec.num_frames} frames, one in {spec.frame_stride} of the clip"
    resized = f"to {' x '.join(map(str, spec.resize_to))}" if spec.resize_to else f"shorter side to {spec.short_side}"
    normalised = ", ".join(f"{mean:.4g} ± {std:.4g}" for mean, std in zip(spec.mean, spec.std, strict=True))
    return {
        "name": card.name,
        "network": card.architecture,
        "non-local blocks after": ", ".join(card.config.get("nonlocal_blocks", {})),
        "input": f"{frames}; {resized}, crop {spec.crop} pixels",
        "normalised": f"{normalised} (mean ± standard deviation of R, G, B from 0 to 1)",
        "labels": f"{len(card.labels)}: {card.labels[0]}, ..., {card.labels[-1]}",
        "accuracy, published": accuracy_in_words(asdict(card.published) if card.published else None),
        "licence": card.licence,
        "source": card.source,
        "notes": "\n".join(card.notes),
    }


def sizes_in_words(parameters: int, gmacs: float | None) -> dict[str, str]:
    """Return the number of parameters, and of 1e9 multiply-accumulates of one view, as text."""
    return {
        "parameters": f"{parameters:,}",
        "GMAC": "" if gmacs is None else f"{gmacs:.1f} (1e9 multiply-accumulates) per view",
    }


def entry_in_words(entry: CatalogueEntry) -> dict[str, str]:
    """Return the fields of a catalogue entry that are not in the card, by name."""
    words = {
        **sizes_in_words(entry.parameters, entry.gmacs),
        "download": download_in_words(
            entry.download_mb, is_stated=entry.download is not None and entry.download.size_mb is not None
        ),
        "commercial use": "forbidden by the licence" if entry.licence.non_commercial else "",
    }
    if entry.download is None:
        return words | {"source": "no weights were published"}
    sha256 = entry.download.sha256
    how = "by hand from its page" if entry.download.by_hand else entry.download.file_format
    digits = "" if sha256 is None or len(sha256) == 64 else " (its first digits)"
    return words | {
        "source": f"{entry.download.url} ({how})",
        "published SHA-256": "none" if sha256 is None else f"{sha256}{digits}",
    }
