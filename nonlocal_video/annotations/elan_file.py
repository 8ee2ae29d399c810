"""Write ELAN's .eaf (EAF 3.0): sorted time slots, tiers without overlap, scores on tiers that depend on them."""

from __future__ import annotations

import mimetypes
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from nonlocal_video.annotations.elan import SCORE_TYPE
from nonlocal_video.annotations.options import WriteOptions, is_remote
from nonlocal_video.annotations.segment import (
    AnnotatedSegment,
    by_video,
    dropped_fields,
    only_spans,
    without_overlap,
)
from nonlocal_video.errors import UsageError

_SCHEMA = "http://www.mpi.nl/tools/elan/EAFv3.0.xsd"
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_TIER = "action"
_LEAST_SECONDS = 0.0005

_Boundary = tuple[int, int, Literal["start", "end"]]
"""Layer, position in it, and which end of the annotation."""


def write_eaf(segments: Sequence[AnnotatedSegment], options: WriteOptions) -> tuple[str, list[str]]:
    """An EAF of one video, and what is not in it.

    Annotations of one tier may not overlap in ELAN: what overlaps goes to `action 2` and so on, and each annotator has
    tiers of their own. Scores are on tiers `action score`, whose annotations refer to those that they belong to.

    Raises:
        UsageError: The segments are of several videos.
    """
    videos = by_video(segments)
    if len(videos) != 1:
        raise UsageError(f"An .eaf is of one video, and these segments are of {len(videos)}; choose one with --video.")
    ((video, spans),) = videos.items()
    kept, notes = only_spans(spans, "ELAN", least_seconds=_LEAST_SECONDS)
    notes += dropped_fields(kept, "ELAN", "score", "annotator")
    if any(_NOT_IN_XML.search(span.label) for span in kept):
        notes.append("Characters that XML has no place for were replaced by spaces in labels.")
    root = Element(
        "ANNOTATION_DOCUMENT",
        {
            "AUTHOR": "nonlocal-video",
            "DATE": datetime.now(UTC).isoformat(timespec="seconds"),
            "FORMAT": "3.0",
            "VERSION": "3.0",
            "xmlns:xsi": "http://www.w3.org/2001/XMLSchema-instance",
            "xsi:noNamespaceSchemaLocation": _SCHEMA,
        },
    )
    header = SubElement(root, "HEADER", MEDIA_FILE="", TIME_UNITS="milliseconds")
    SubElement(header, "MEDIA_DESCRIPTOR", _media(video, options))
    kept = [_to_milliseconds(span) for span in kept]
    layers = [(annotator, layer) for annotator in _annotators(kept) for layer in _layers(kept, annotator)]
    slot_of = _add_slots(SubElement(root, "TIME_ORDER"), [layer for _, layer in layers])
    number = 0
    has_scores = False
    for index, (annotator, layer) in enumerate(layers or [(None, [])], start=1):
        name = _TIER if index == 1 else f"{_TIER} {index}"
        tier = SubElement(root, "TIER", {"LINGUISTIC_TYPE_REF": "default-lt", "TIER_ID": name})
        if annotator is not None:
            tier.set("ANNOTATOR", _NOT_IN_XML.sub(" ", annotator))
        scored: list[tuple[str, float]] = []
        for position, span in enumerate(layer):
            number += 1
            start, end = slot_of[index - 1, position, "start"], slot_of[index - 1, position, "end"]
            attributes = {"ANNOTATION_ID": f"a{number}", "TIME_SLOT_REF1": start, "TIME_SLOT_REF2": end}
            one = SubElement(SubElement(tier, "ANNOTATION"), "ALIGNABLE_ANNOTATION", attributes)
            SubElement(one, "ANNOTATION_VALUE").text = _NOT_IN_XML.sub(" ", span.label)
            if span.score is not None:
                scored.append((f"a{number}", span.score))
        if scored:
            has_scores = True
            tier = SubElement(root, "TIER", LINGUISTIC_TYPE_REF=SCORE_TYPE, PARENT_REF=name, TIER_ID=f"{name} score")
        for parent, score in scored:
            number += 1
            attributes = {"ANNOTATION_ID": f"a{number}", "ANNOTATION_REF": parent}
            one = SubElement(SubElement(tier, "ANNOTATION"), "REF_ANNOTATION", attributes)
            SubElement(one, "ANNOTATION_VALUE").text = f"{score:.6g}"
    _add_types(root, has_scores=has_scores)
    indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + tostring(root, encoding="unicode") + "\n", notes


def _add_types(root: Element, *, has_scores: bool) -> None:
    plain = {"GRAPHIC_REFERENCES": "false", "LINGUISTIC_TYPE_ID": "default-lt", "TIME_ALIGNABLE": "true"}
    SubElement(root, "LINGUISTIC_TYPE", plain)
    if has_scores:
        SubElement(
            root,
            "LINGUISTIC_TYPE",
            CONSTRAINTS="Symbolic_Association",
            GRAPHIC_REFERENCES="false",
            LINGUISTIC_TYPE_ID=SCORE_TYPE,
            TIME_ALIGNABLE="false",
        )
        SubElement(
            root,
            "CONSTRAINT",
            DESCRIPTION="1-1 association with a parent annotation",
            STEREOTYPE="Symbolic_Association",
        )


def _annotators(segments: Sequence[AnnotatedSegment]) -> list[str | None]:
    return list(dict.fromkeys(segment.annotator for segment in segments))


def _layers(segments: Sequence[AnnotatedSegment], annotator: str | None) -> list[list[AnnotatedSegment]]:
    return without_overlap(segment for segment in segments if segment.annotator == annotator)


def _to_milliseconds(segment: AnnotatedSegment) -> AnnotatedSegment:
    """The segment from and to whole milliseconds; ELAN has no annotation shorter than one."""
    start = round(segment.start_seconds * 1000)
    end = max(start + 1, round(segment.end_seconds * 1000))
    return replace(segment, start_seconds=start / 1000, end_seconds=end / 1000)


def _add_slots(element: Element, layers: Sequence[Sequence[AnnotatedSegment]]) -> dict[_Boundary, str]:
    """Add the time slots in order of time, two for each annotation: moving one in ELAN then moves no other."""
    boundaries: list[tuple[int, _Boundary]] = []
    for index, layer in enumerate(layers):
        for position, span in enumerate(layer):
            boundaries.append((round(span.start_seconds * 1000), (index, position, "start")))
            boundaries.append((round(span.end_seconds * 1000), (index, position, "end")))
    slot_of = {}
    for number, (time, boundary) in enumerate(sorted(boundaries), start=1):
        slot_of[boundary] = f"ts{number}"
        SubElement(element, "TIME_SLOT", TIME_SLOT_ID=f"ts{number}", TIME_VALUE=str(time))
    return slot_of


def _media(video: str, options: WriteOptions) -> dict[str, str]:
    kind = mimetypes.guess_type(video)[0] or "unknown"
    if is_remote(video):
        return {"MEDIA_URL": video, "MIME_TYPE": kind}
    options.written_path(video)  # refuses names that are not text
    relative = Path(os.path.relpath(video, options.folder)).as_posix()
    whole = Path(os.path.abspath(video)).as_uri()
    return {"MEDIA_URL": whole, "MIME_TYPE": kind, "RELATIVE_MEDIA_URL": f"./{relative}"}
