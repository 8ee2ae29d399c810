"""ELAN: what the written file has to keep for ELAN, and what its own files do that a plain reader gets wrong."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from segment_rows import first, made_up, scored, spans, written

from nonlocal_video.annotations.formats import read_annotations, write_annotations
from nonlocal_video.annotations.segment import AnnotatedSegment
from nonlocal_video.errors import UsageError

HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
TYPES = (
    '<LINGUISTIC_TYPE LINGUISTIC_TYPE_ID="default-lt" TIME_ALIGNABLE="true"/>'
    '<LINGUISTIC_TYPE LINGUISTIC_TYPE_ID="words" TIME_ALIGNABLE="true" CONSTRAINTS="Time_Subdivision"/>'
    '<LINGUISTIC_TYPE LINGUISTIC_TYPE_ID="parts" TIME_ALIGNABLE="false" CONSTRAINTS="Symbolic_Subdivision"/>'
    '<LINGUISTIC_TYPE LINGUISTIC_TYPE_ID="notes" TIME_ALIGNABLE="false" CONSTRAINTS="Symbolic_Association"/>'
)
MEDIA = '<MEDIA_DESCRIPTOR MEDIA_URL="file:///somewhere/a.mp4" MIME_TYPE="video/mp4" RELATIVE_MEDIA_URL="./a.mp4"{}/>'
# Attributes and children of EAF 3.0: what is required, what may be there.
SCHEMA = {
    "ANNOTATION_DOCUMENT": ("AUTHOR DATE VERSION", "FORMAT", "HEADER TIME_ORDER TIER LINGUISTIC_TYPE CONSTRAINT"),
    "HEADER": ("", "MEDIA_FILE TIME_UNITS", "MEDIA_DESCRIPTOR"),
    "MEDIA_DESCRIPTOR": ("MEDIA_URL MIME_TYPE", "RELATIVE_MEDIA_URL TIME_ORIGIN", ""),
    "TIME_ORDER": ("", "", "TIME_SLOT"),
    "TIME_SLOT": ("TIME_SLOT_ID", "TIME_VALUE", ""),
    "TIER": ("TIER_ID LINGUISTIC_TYPE_REF", "ANNOTATOR PARENT_REF", "ANNOTATION"),
    "ANNOTATION": ("", "", "ALIGNABLE_ANNOTATION REF_ANNOTATION"),
    "ALIGNABLE_ANNOTATION": ("ANNOTATION_ID TIME_SLOT_REF1 TIME_SLOT_REF2", "", "ANNOTATION_VALUE"),
    "REF_ANNOTATION": ("ANNOTATION_ID ANNOTATION_REF", "PREVIOUS_ANNOTATION", "ANNOTATION_VALUE"),
    "ANNOTATION_VALUE": ("", "", ""),
    "LINGUISTIC_TYPE": ("LINGUISTIC_TYPE_ID", "TIME_ALIGNABLE CONSTRAINTS GRAPHIC_REFERENCES", ""),
    "CONSTRAINT": ("STEREOTYPE", "DESCRIPTION", ""),
}


def eaf(folder: Path, slots: str, tiers: str, *, header: str = "", media: str = MEDIA.format("")) -> Path:
    (folder / "a.mp4").touch()
    root = '<ANNOTATION_DOCUMENT AUTHOR="" DATE="2020-01-01T00:00:00Z" VERSION="3.0">'
    return written(
        folder,
        "a.eaf",
        f"{HEAD}{root}<HEADER {header}>{media}</HEADER>"
        f"<TIME_ORDER>{slots}</TIME_ORDER>{tiers}{TYPES}</ANNOTATION_DOCUMENT>",
    )


def slot(name: str, value: int | None) -> str:
    return f'<TIME_SLOT TIME_SLOT_ID="{name}"' + ("/>" if value is None else f' TIME_VALUE="{value}"/>')


def tier(name: str, *annotations: str, kind: str = "default-lt") -> str:
    inside = "".join(f"<ANNOTATION>{one}</ANNOTATION>" for one in annotations)
    return f'<TIER TIER_ID="{name}" LINGUISTIC_TYPE_REF="{kind}">{inside}</TIER>'


def aligned(name: str, start: str, end: str, value: str) -> str:
    return (
        f'<ALIGNABLE_ANNOTATION ANNOTATION_ID="{name}" TIME_SLOT_REF1="{start}" TIME_SLOT_REF2="{end}">'
        f"<ANNOTATION_VALUE>{value}</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION>"
    )


def refers(name: str, parent: str, value: str, previous: str | None = None) -> str:
    before = "" if previous is None else f' PREVIOUS_ANNOTATION="{previous}"'
    return (
        f'<REF_ANNOTATION ANNOTATION_ID="{name}" ANNOTATION_REF="{parent}"{before}>'
        f"<ANNOTATION_VALUE>{value}</ANNOTATION_VALUE></REF_ANNOTATION>"
    )


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    slots = slot("ts1", 1200) + slot("ts2", 3400)
    return eaf(tmp_path, slots, tier("action", aligned("a1", "ts1", "ts2", "arm wrestling")))


def test_an_annotation_is_a_segment_of_the_video_beside_the_file(plain: Path) -> None:
    found = read_annotations(plain)
    assert list(found) == [AnnotatedSegment(str(plain.parent / "a.mp4"), 1.2, 3.4, "arm wrestling")]
    assert not found.notes
    assert not found.problems


def test_what_is_written_is_read_again_with_scores_and_annotators(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    rows = made_up(tmp_path / "a.mp4")
    rows += [
        AnnotatedSegment(rows[0].path, 5.0, 6.0, "walk", annotator="Ann"),
        AnnotatedSegment(rows[0].path, 5.5, 7, "run", annotator="Bob"),
    ]
    assert write_annotations(tmp_path / "out.eaf", rows) == ()
    found = read_annotations(tmp_path / "out.eaf")
    assert scored(found) == scored(rows)
    assert {row.annotator for row in found if row.start_seconds in (5.0, 5.5)} >= {"Ann", "Bob"}


def test_the_written_file_keeps_to_the_schema(tmp_path: Path) -> None:
    write_annotations(tmp_path / "out.eaf", made_up(tmp_path / "a.mp4"))
    root = ElementTree.parse(tmp_path / "out.eaf").getroot()
    for element in root.iter():
        required, optional, children = (set(names.split()) for names in SCHEMA[element.tag])
        names = {name for name in element.attrib if not name.startswith("{")}
        assert required <= names <= required | optional, element.tag
        assert {child.tag for child in element} <= children
    order = [list(SCHEMA["ANNOTATION_DOCUMENT"][2].split()).index(child.tag) for child in root]
    assert order == sorted(order)
    ids = [element.get("ANNOTATION_ID") for element in root.iter() if element.get("ANNOTATION_ID")]
    assert len(ids) == len(set(ids))
    assert {e.get("LINGUISTIC_TYPE_REF") for e in root.iter("TIER")} <= {
        e.get("LINGUISTIC_TYPE_ID") for e in root.iter("LINGUISTIC_TYPE")
    }


def test_slots_are_sorted_and_no_tier_has_overlap_or_an_empty_annotation(tmp_path: Path) -> None:
    rows = made_up(tmp_path / "a.mp4")
    rows += [
        AnnotatedSegment(rows[0].path, 0.0006, 0.0014, "short"),
        AnnotatedSegment(rows[0].path, 0.0014, 0.5, "next"),
    ]
    write_annotations(tmp_path / "out.eaf", rows)
    root = ElementTree.parse(tmp_path / "out.eaf").getroot()
    times = [int(one.attrib["TIME_VALUE"]) for one in root.iter("TIME_SLOT")]
    assert times == sorted(times)
    time_of = {one.attrib["TIME_SLOT_ID"]: int(one.attrib["TIME_VALUE"]) for one in root.iter("TIME_SLOT")}
    used = []
    for element in root.iter("TIER"):
        latest = 0
        for one in element.iter("ALIGNABLE_ANNOTATION"):
            used += [one.attrib["TIME_SLOT_REF1"], one.attrib["TIME_SLOT_REF2"]]
            start, end = time_of[used[-2]], time_of[used[-1]]
            assert latest <= start < end
            latest = end
    assert sorted(used) == sorted(time_of)  # each boundary has a slot of its own


def test_slots_without_a_time_are_placed_evenly_and_said(tmp_path: Path) -> None:
    slots = slot("ts1", 1000) + slot("ts2", None) + slot("ts3", None) + slot("ts4", 4000)
    words = [aligned("w1", "ts1", "ts2", "The"), aligned("w2", "ts2", "ts3", "old"), aligned("w3", "ts3", "ts4", "cat")]
    found = read_annotations(eaf(tmp_path, slots, tier("words", *words, kind="words")))
    assert spans(found) == [(1.0, 2.0, "The"), (2.0, 3.0, "old"), (3.0, 4.0, "cat")]
    assert any("3 annotations without own times" in note for note in found.notes)


def test_a_slot_without_any_known_neighbour_is_a_problem_and_nothing_else_is_lost(tmp_path: Path) -> None:
    slots = slot("ts1", 1000) + slot("ts2", None) + slot("ts3", 2000)
    path = eaf(tmp_path, slots, tier("t", aligned("a1", "ts1", "ts2", "lost"), aligned("a2", "ts1", "ts3", "kept")))
    found = read_annotations(path)
    assert spans(found) == [(1.0, 2.0, "kept")]
    assert "'t', annotation a1" in found.problems[0]


def test_tiers_without_times_get_them_from_what_they_refer_to(tmp_path: Path) -> None:
    tiers = tier("said", aligned("a1", "ts1", "ts2", "go"))
    tiers += tier("note", refers("b1", "a1", "fast"), kind="notes") + tier(
        "more", refers("c1", "b1", "very"), kind="notes"
    )
    parts = [refers("p2", "a1", "two", "p1"), refers("p1", "a1", "one"), refers("p3", "a1", "three", "p2")]
    path = eaf(tmp_path, slot("ts1", 0) + slot("ts2", 3000), tiers + tier("parts", *parts, kind="parts"))
    found = read_annotations(path)
    assert {row[2]: row[:2] for row in spans(found)} == {
        "go": (0, 3), "fast": (0, 3), "very": (0, 3), "one": (0, 1), "two": (1, 2), "three": (2, 3),
    }  # fmt: skip
    assert any("3 annotations" in note for note in found.notes)


def test_references_in_a_circle_end(tmp_path: Path) -> None:
    circle = tier("t", refers("a", "b", "x"), refers("b", "a", "y"), kind="notes")
    assert len(read_annotations(eaf(tmp_path, "", circle)).problems) == 2


@pytest.mark.parametrize(("origin", "span"), [(2500, (3.7, 5.9)), (-1500, (0.0, 1.9))])
def test_the_time_origin_is_the_videos_position_at_the_clocks_zero(
    tmp_path: Path, origin: int, span: tuple[float, float]
) -> None:
    """A video whose first 2.5 s were cut off by synchronising shows annotation time 0 at 2.5 s."""
    tiers = tier("t", aligned("a1", "ts1", "ts2", "x"))
    media = MEDIA.format(f' TIME_ORIGIN="{origin}"')
    found = read_annotations(eaf(tmp_path, slot("ts1", 1200) + slot("ts2", 3400), tiers, media=media))
    assert first(found) == (*span, "x")
    assert any("cut off" in note for note in found.notes) == (origin < 0)


def test_the_video_is_taken_before_the_sound_and_old_files_name_it_in_the_header(tmp_path: Path) -> None:
    sound = '<MEDIA_DESCRIPTOR MEDIA_URL="file:///x/a.wav" MIME_TYPE="audio/x-wav" TIME_ORIGIN="9"/>'
    one = slot("ts1", 0) + slot("ts2", 1000), tier("t", aligned("a1", "ts1", "ts2", "x"))
    assert read_annotations(eaf(tmp_path, *one, media=sound + MEDIA.format("")))[0].path.endswith("a.mp4")
    old = eaf(tmp_path, *one, media="", header='MEDIA_FILE="clips/old.mpg"')
    assert read_annotations(old)[0].path == str(tmp_path / "clips/old.mpg")
    with pytest.raises(UsageError, match="--media"):
        read_annotations(eaf(tmp_path, *one, media=""))


def test_the_video_that_is_named_has_its_own_time_origin(tmp_path: Path) -> None:
    cameras = MEDIA.format("") + MEDIA.format(' TIME_ORIGIN="5000"').replace("a.mp4", "b.mp4")
    path = eaf(
        tmp_path,
        slot("ts1", 1200) + slot("ts2", 3400),
        tier("t", aligned("a1", "ts1", "ts2", "x")),
        media=cameras,
    )
    unnamed, named = read_annotations(path), read_annotations(path, media="films/b.mp4")
    assert first(unnamed) == (1.2, 3.4, "x")
    assert unnamed.notes == ("Of the 2 linked videos, a.mp4, b.mp4, the first was taken; --media names another.",)
    assert first(named) == (6.2, 8.4, "x")
    assert not named.notes
    assert first(read_annotations(path, media="films/c.mp4")) == (1.2, 3.4, "x")


@pytest.mark.parametrize("before", ["file:/", "file:///", "file:", ""])
def test_relative_addresses_of_old_files_count_from_their_folder(tmp_path: Path, before: str) -> None:
    """Old versions of ELAN write RELATIVE_MEDIA_URL="file:/./../films/a.mp4"."""
    (tmp_path / "films").mkdir()
    (tmp_path / "films/far.mp4").touch()
    (tmp_path / "marks").mkdir()
    media = MEDIA.format("").replace("./a.mp4", f"{before}./../films/far.mp4")
    one = slot("ts1", 0) + slot("ts2", 1000), tier("t", aligned("a1", "ts1", "ts2", "x"))
    assert read_annotations(eaf(tmp_path / "marks", *one, media=media))[0].path == str(tmp_path / "films/far.mp4")


@pytest.mark.parametrize(
    ("unit", "seconds"), [("milliseconds", 0.05), ("PAL-frames", 2.0), ("NTSC-frames", 50 * 1001 / 30000)]
)
def test_units_of_time(tmp_path: Path, unit: str, seconds: float) -> None:
    one = slot("ts1", 0) + slot("ts2", 50), tier("t", aligned("a1", "ts1", "ts2", "x"))
    path = eaf(tmp_path, *one, header=f'TIME_UNITS="{unit}"')
    assert read_annotations(path)[0].end_seconds == pytest.approx(seconds, abs=1e-6)
    with pytest.raises(UsageError, match="TIME_UNITS"):
        read_annotations(eaf(tmp_path, *one, header='TIME_UNITS="hours"'))


def test_tiers_are_chosen_and_can_give_the_label(tmp_path: Path) -> None:
    tiers = tier("walk", aligned("a1", "ts1", "ts2", "")) + tier("mood", aligned("a2", "ts1", "ts2", "calm"))
    path = eaf(tmp_path, slot("ts1", 0) + slot("ts2", 1000), tiers)
    plain = read_annotations(path)
    assert [row.label for row in plain] == ["calm"]
    assert any("1 annotation without text" in note for note in plain.notes)
    assert [row.label for row in read_annotations(path, labels_from="tier")] == ["walk", "mood"]
    assert [row.label for row in read_annotations(path, labels_from="both")] == ["walk", "mood: calm"]
    assert [row.label for row in read_annotations(path, tiers=["mood"])] == ["calm"]
    with pytest.raises(UsageError, match="no tier 'sound'; its tiers are: walk, mood"):
        read_annotations(path, tiers=["sound"])


def test_points_and_what_has_no_place_are_named(tmp_path: Path) -> None:
    rows = [
        AnnotatedSegment("a.mp4", 1, 1, "blink"),
        AnnotatedSegment("a.mp4", 1, 2, "a\x07b", group="g", split="train"),
    ]
    notes = " ".join(write_annotations(tmp_path / "out.eaf", rows))
    assert "Left out: 1 event without a duration" in notes
    assert "group, split" in notes
    assert "XML has no place" in notes
    assert spans(read_annotations(tmp_path / "out.eaf")) == [(1, 2, "a b")]


def test_two_videos_do_not_go_into_one_file(tmp_path: Path) -> None:
    rows = [AnnotatedSegment("a.mp4", 1, 2, "x"), AnnotatedSegment("b.mp4", 1, 2, "x")]
    with pytest.raises(UsageError, match="of 2; choose one with --video"):
        write_annotations(tmp_path / "out.eaf", rows)
    assert not (tmp_path / "out.eaf").exists()


def test_media_are_named_relative_and_whole(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    write_annotations(tmp_path / "clips/out.eaf", [AnnotatedSegment(str(tmp_path / "a b.mp4"), 0, 1, "x")])
    text = (tmp_path / "clips/out.eaf").read_text()
    assert re.search(r'MEDIA_URL="file:///\S*/a%20b.mp4"', text)
    assert read_annotations(tmp_path / "clips/out.eaf")[0].path == str(tmp_path / "a b.mp4")
