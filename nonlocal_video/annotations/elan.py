"""Read ELAN's .eaf: times in milliseconds on tiers, some of which only refer to annotations of others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote
from xml.etree.ElementTree import Element

from nonlocal_video.annotations.documents import as_number, read_xml
from nonlocal_video.annotations.options import ReadOptions, base_name
from nonlocal_video.annotations.segment import Annotations, Collector, counted, listed
from nonlocal_video.errors import UsageError

SCORE_TYPE = "nonlocal-video score"
"""The linguistic type of the tiers that hold scores of another tier's annotations."""
_UNIT_SECONDS = {"milliseconds": 0.001, "PAL-frames": 1 / 25, "PAL-50-frames": 1 / 50, "NTSC-frames": 1001 / 30000}
_MAX_REFERENCES = 100


@dataclass
class _Annotation:
    value: str
    start: float | None = None
    end: float | None = None
    slots: tuple[str, str] | None = None
    parent: str | None = None
    previous: str | None = None


@dataclass
class _Tier:
    name: str
    annotator: str | None
    is_score: bool
    is_subdivided: bool
    annotations: dict[str, _Annotation] = field(default_factory=dict)


def read_eaf(path: Path, options: ReadOptions) -> Annotations:
    """Read the annotations of all tiers, or of those that are asked for.

    Times that the file does not have are placed evenly between their neighbours, as ELAN shows them, and a note says
    so. Where media are synchronised with an offset (TIME_ORIGIN), it is the position in the video at which the
    annotations' clock is 0.

    Raises:
        UsageError: It is no EAF, or does not name its video.
    """
    root = read_xml(path)
    if root.tag != "ANNOTATION_DOCUMENT":
        raise UsageError(f"{str(path)!r} is XML, but no file of ELAN: it begins with {root.tag!r}.")
    header = root.find("HEADER")
    unit = _unit_seconds(path, header)
    linked = _linked(header)
    media = _media(linked, header, options)
    video = options.video(path.parent, media.get("RELATIVE_MEDIA_URL", ""), media.get("MEDIA_URL", ""))
    offset = (as_number(media.get("TIME_ORIGIN", "0")) or 0.0) * 0.001
    times = {slot.get("TIME_SLOT_ID", ""): as_number(slot.get("TIME_VALUE")) for slot in root.iter("TIME_SLOT")}
    tiers = _tiers(root)
    found = Collector()
    if options.media is None and len(videos := list(filter(_is_video, linked))) > 1:
        names = listed([base_name(unquote(one.get("MEDIA_URL", ""))) for one in videos])
        found.notes.append(f"Of the {len(videos)} linked videos, {names}, the first was taken; --media names another.")
    if unknown := [name for name in options.tiers if name not in {tier.name for tier in tiers if not tier.is_score}]:
        names = ", ".join(tier.name for tier in tiers if not tier.is_score)
        raise UsageError(f"{str(path)!r} has no tier {', '.join(map(repr, unknown))}; its tiers are: {names}.")
    num_placed = sum(_place(tier, times) for tier in tiers)
    num_placed += _resolve_references(tiers)
    if num_placed:
        found.notes.append(f"Placed evenly between neighbours: {counted(num_placed, 'annotation')} without own times.")
    scores = _scores(tiers)
    read, nameless = [], 0
    for tier in tiers:
        if tier.is_score or not options.wants(tier.name) or not tier.annotations:
            continue
        read.append(tier.name)
        for name, annotation in tier.annotations.items():
            where = f"tier {tier.name!r}, annotation {name}"
            label = options.label(tier.name, annotation.value)
            if annotation.start is None or annotation.end is None:
                found.problems.append(f"{where}: its times cannot be told from the file.")
            elif not label.strip():
                nameless += 1
            else:
                start, end = annotation.start * unit + offset, annotation.end * unit + offset
                found.add(
                    where,
                    video,
                    round(start, 6),
                    round(end, 6),
                    label,
                    score=scores.get(name),
                    annotator=tier.annotator,
                )
    if nameless:
        found.notes.append(
            f"Left out: {counted(nameless, 'annotation')} without text; --labels tier takes the tier's name."
        )
    if len(read) > 1 and not options.tiers and options.labels_from == "value":
        found.notes.append(
            f"Read from {len(read)} tiers: {listed(read, 20)}. --tier chooses, --labels both tells apart."
        )
    return found.result()


def _unit_seconds(path: Path, header: Element | None) -> float:
    unit = "milliseconds" if header is None else header.get("TIME_UNITS", "milliseconds")
    if unit not in _UNIT_SECONDS:
        raise UsageError(f"{str(path)!r}: TIME_UNITS = {unit!r} should be one of {', '.join(_UNIT_SECONDS)}.")
    return _UNIT_SECONDS[unit]


def _linked(header: Element | None) -> list[Mapping[str, str]]:
    """The linked files, each with a time origin of its own."""
    return [] if header is None else [element.attrib for element in header.iter("MEDIA_DESCRIPTOR")]


def _is_video(media: Mapping[str, str]) -> bool:
    return media.get("MIME_TYPE", "").startswith("video")


def _media(linked: Sequence[Mapping[str, str]], header: Element | None, options: ReadOptions) -> Mapping[str, str]:
    """The linked file that is asked for, else the first linked video, else the first linked file.

    Files of old versions name their only one in the header.
    """
    for media in linked if options.media is not None else ():
        names = {base_name(unquote(media.get(name, ""))) for name in ("RELATIVE_MEDIA_URL", "MEDIA_URL")}
        if base_name(options.media or "") in names:
            return media
    named = {} if header is None else {"MEDIA_URL": header.get("MEDIA_FILE", "")}
    return next(iter([*filter(_is_video, linked), *linked]), named)


def _tiers(root: Element) -> list[_Tier]:
    constraint_of = {t.get("LINGUISTIC_TYPE_ID", ""): t.get("CONSTRAINTS", "") for t in root.iter("LINGUISTIC_TYPE")}
    tiers = []
    for element in root.iter("TIER"):
        kind = element.get("LINGUISTIC_TYPE_REF", "")
        tier = _Tier(
            element.get("TIER_ID", ""),
            element.get("ANNOTATOR") or None,
            kind == SCORE_TYPE,
            constraint_of.get(kind, "").replace(" ", "_") == "Symbolic_Subdivision",
        )
        for one in [*element.iter("ALIGNABLE_ANNOTATION"), *element.iter("REF_ANNOTATION")]:
            annotation = _Annotation(one.findtext("ANNOTATION_VALUE") or "")
            if one.tag == "ALIGNABLE_ANNOTATION":
                annotation.slots = one.get("TIME_SLOT_REF1", ""), one.get("TIME_SLOT_REF2", "")
            else:
                annotation.parent, annotation.previous = one.get("ANNOTATION_REF"), one.get("PREVIOUS_ANNOTATION")
            tier.annotations[one.get("ANNOTATION_ID", f"#{len(tier.annotations)}")] = annotation
        tiers.append(tier)
    return tiers


def _place(tier: _Tier, times: Mapping[str, float | None]) -> int:
    """Give aligned annotations their times; chains of slots without a time share out the time between known ones."""
    follows = {a.slots[0]: a.slots[1] for a in tier.annotations.values() if a.slots}
    before = {end: start for start, end in follows.items()}
    placed = 0
    own = dict(times)
    for slot in [slot for a in tier.annotations.values() for slot in a.slots or ()]:
        if own.get(slot) is not None:
            continue
        back, back_steps = _nearest_known(slot, before, times)
        ahead, ahead_steps = _nearest_known(slot, follows, times)
        if back is not None and ahead is not None:
            own[slot] = back + (ahead - back) * back_steps / (back_steps + ahead_steps)
    for annotation in tier.annotations.values():
        if annotation.slots:
            annotation.start, annotation.end = own.get(annotation.slots[0]), own.get(annotation.slots[1])
            missing = any(times.get(slot) is None for slot in annotation.slots)
            placed += missing and annotation.start is not None and annotation.end is not None
    return placed


def _nearest_known(
    slot: str, next_of: Mapping[str, str], times: Mapping[str, float | None]
) -> tuple[float | None, int]:
    """The first known time along a chain of slots, and how many steps away it is."""
    steps = 0
    while (time := times.get(slot)) is None and slot in next_of and steps <= len(next_of):
        slot, steps = next_of[slot], steps + 1
    return time, steps


def _resolve_references(tiers: list[_Tier]) -> int:
    """Give annotations that refer to others their times; those that subdivide one share it out evenly."""
    every = {name: annotation for tier in tiers for name, annotation in tier.annotations.items()}
    placed = 0
    for _ in range(_MAX_REFERENCES):
        progress = False
        for tier in tiers:
            children: dict[str, list[str]] = {}
            for name, annotation in tier.annotations.items():
                if annotation.parent is not None and annotation.start is None:
                    children.setdefault(annotation.parent, []).append(name)
            for parent_name, names in children.items():
                parent = every.get(parent_name)
                if parent is None or parent.start is None or parent.end is None:
                    continue
                progress = True
                order = _in_order(names, tier.annotations) if tier.is_subdivided else names
                for position, name in enumerate(order):
                    share = (parent.end - parent.start) / len(order) if tier.is_subdivided else 0.0
                    annotation = tier.annotations[name]
                    annotation.start = parent.start + position * share
                    annotation.end = annotation.start + share if tier.is_subdivided else parent.end
                placed += len(order) if tier.is_subdivided and len(order) > 1 else 0
        if not progress:
            break
    return placed


def _in_order(names: list[str], annotations: Mapping[str, _Annotation]) -> list[str]:
    """Subdivisions in the order of their PREVIOUS_ANNOTATION; in the file's order where that is broken."""
    after = {annotations[name].previous: name for name in names}
    order: list[str] = []
    following = after.get(None)
    while following is not None and following not in order:
        order.append(following)
        following = after.get(following)
    return order if len(order) == len(names) else names


def _scores(tiers: list[_Tier]) -> dict[str, float]:
    """Scores by the annotation that they belong to."""
    scores: dict[str, float] = {}
    for tier in tiers:
        for annotation in tier.annotations.values() if tier.is_score else ():
            score = as_number(annotation.value)
            if annotation.parent is not None and score is not None:
                scores[annotation.parent] = score
    return scores
