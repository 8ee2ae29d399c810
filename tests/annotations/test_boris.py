"""BORIS: parity of state events, one clock for several files, offsets, and three kinds of tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from segment_rows import made_up, scored, spans, written

from nonlocal_video.annotations.formats import read_annotations, write_annotations
from nonlocal_video.annotations.segment import AnnotatedSegment
from nonlocal_video.errors import UsageError

BEHAVIOURS = {"0": {"type": "State event", "code": "walk"}, "1": {"type": "Point event", "code": "blink"}}


def project(folder: Path, events: list[list[Any]], **changes: Any) -> Path:
    observation = {"type": "MEDIA", "time offset": 0.0, "file": {"1": ["a.mp4"], "2": []}, "events": events}
    observation["media_info"] = {"length": {"a.mp4": 10.0, "b.mp4": 10.0}}
    document = {"behaviors_conf": BEHAVIOURS, "observations": {"o1": observation | changes}}
    return written(folder, "p.boris", json.dumps(document))


def test_states_begin_and_end_by_turns_for_each_subject_and_modifier(tmp_path: Path) -> None:
    events: list[list[Any]] = [
        [1.0, "", "walk", "", "", 30],
        [1.5, "cat", "walk", "", "", 40],
        [2.0, "cat", "walk", "fast", "", 50],
        [3.0, "", "walk", "", ""],  # five elements in old projects
        [4.0, "cat", "walk", "", "", 60],
        [5.0, "cat", "walk", "fast", "", "NA"],
        [5.5, "", "blink", "", "", 70],
    ]
    found = read_annotations(project(tmp_path, events))
    assert spans(found) == [(1, 3, "walk"), (1.5, 4, "walk"), (2, 5, "walk"), (5.5, 5.5, "blink")]
    assert any("No focal subject, cat" in note for note in found.notes)
    assert any("modifiers of 2 events" in note for note in found.notes)
    assert spans(read_annotations(project(tmp_path, events), tiers=["cat"])) == [(1.5, 4, "walk"), (2, 5, "walk")]
    assert len(read_annotations(project(tmp_path, events), tiers=["No focal subject"])) == 2


def test_events_are_paired_in_order_of_time_whatever_the_files_order(tmp_path: Path) -> None:
    found = read_annotations(project(tmp_path, [[3.0, "", "walk", ""], [1.0, "", "walk", ""]]))
    assert spans(found) == [(1, 3, "walk")]


def test_an_odd_event_or_an_unknown_behaviour_is_a_problem_and_the_rest_is_kept(tmp_path: Path) -> None:
    events: list[list[Any]] = [
        [1, "", "walk"],
        [2, "", "walk"],
        [3, "", "walk"],
        [4, "", "fly"],
        ["x", "", "walk"],
        [5],
    ]
    found = read_annotations(project(tmp_path, events))
    assert spans(found) == [(1, 2, "walk")]
    assert len(found.problems) == 4
    assert any("at 3 s never stops" in problem for problem in found.problems)


def test_the_observations_offset_is_in_all_of_its_times(tmp_path: Path) -> None:
    events = [[99.0, "", "walk", ""], [102.0, "", "walk", ""], [90.0, "", "blink", ""]]
    found = read_annotations(project(tmp_path, events, **{"time offset": 100.0}))
    assert spans(found) == [(0, 2, "walk")]
    assert any("cut off" in note for note in found.notes)
    assert any("left out" in note for note in found.notes)


def test_times_run_on_over_the_files_of_the_first_player(tmp_path: Path) -> None:
    """The first file counts with its length cut to milliseconds: 10.0009 s are 10.000 s."""
    lengths = {
        "media_info": {"length": {"a.mp4": 10.0009, "b.mp4": 10.0}},
        "file": {"1": ["a.mp4", "b.mp4"], "2": ["c.mp4"]},
    }
    events = [
        [8.0, "", "walk", ""],
        [12.0, "", "walk", ""],
        [13.0, "", "walk", ""],
        [14.0, "", "walk", ""],
        [10.0, "", "blink", ""],
    ]
    found = read_annotations(project(tmp_path, events, **lengths))
    assert spans(row for row in found if row.path.endswith("a.mp4")) == [(8, 10, "walk")]
    assert spans(row for row in found if row.path.endswith("b.mp4")) == [
        (0, 0, "blink"),
        (0, 2, "walk"),
        (3, 4, "walk"),
    ]
    assert any("divided" in note for note in found.notes)
    without = read_annotations(project(tmp_path, events, **{**lengths, "media_info": {"length": {}}}))
    assert "length of each" in without.problems[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": "LIVE"}, "LIVE"),
        ({"media_creation_date_as_offset": True}, "creation date"),
        ({"file": {}}, "no media"),
    ],
)
def test_observations_without_a_videos_times_are_problems(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    assert message in read_annotations(project(tmp_path, [], **change)).problems[0]


def test_what_is_written_is_read_again_even_where_segments_of_one_label_overlap(tmp_path: Path) -> None:
    rows = made_up(tmp_path / "a.mp4") + made_up(tmp_path / "b.mp4", seed=1)
    rows += [AnnotatedSegment(rows[0].path, 3.25, 3.25, "blink"), AnnotatedSegment(rows[0].path, 4, 4, "walk")]
    notes = " ".join(write_annotations(tmp_path / "out.boris", rows))
    assert "walk: in BORIS a behaviour is a state or a point" in notes
    again = list(read_annotations(tmp_path / "out.boris"))
    assert scored(again)[:] == scored([*rows[:-1], AnnotatedSegment(rows[0].path, 4, 4, "walk (point)")])
    assert {row.path for row in again} == {row.path for row in rows}


def test_the_written_project_pairs_by_parity_and_has_what_boris_asks_for(tmp_path: Path) -> None:
    """Restated: walk through the events as BORIS does, switching a behaviour of a subject on and off."""
    rows = made_up(tmp_path / "a.mp4", scores=False)
    write_annotations(tmp_path / "out.boris", rows)
    document = json.loads((tmp_path / "out.boris").read_text())
    assert document["project_format_version"] == "7.0"
    declared = {one["code"]: one["type"] for one in document["behaviors_conf"].values()}
    assert set(declared.values()) == {"State event"}
    named = {"", *(one["name"] for one in document["subjects_conf"].values())}
    (observation,) = document["observations"].values()
    assert {"type", "file", "media_info", "time offset", "events", "independent_variables"} <= observation.keys()
    on: dict[tuple[str, str], float] = {}
    bouts = []
    assert [event[0] for event in observation["events"]] == sorted(event[0] for event in observation["events"])
    for time, subject, code, modifiers, _, _ in observation["events"]:
        assert subject in named
        assert code in declared
        assert modifiers == ""
        if (subject, code) in on:
            bouts.append((on.pop((subject, code)), time, code))
        else:
            on[subject, code] = time
    assert not on
    assert sorted(bouts) == spans(rows)


AGGREGATED = """Observation id,Observation date,Source,Time offset (s),Coding duration,Media duration (s),\
FPS (frame/s),weather,Subject,Behavior,Behavioral category,Modifier #1,Behavior type,Start (s),Stop (s),Duration (s),\
Media file name,Image index start
o1,2026,player #1:a.mp4,5.0,10,10,25,"rain, wind",No focal subject,walk,,None,STATE,6.000,8.500,2.5,a.mp4,25
o1,2026,player #1:a.mp4,5.0,10,10,25,rain,cat,blink,,None,POINT,9.000,9.000,NA,a.mp4,100
o2,2026,player #1:b.mp4,0.0,10,10,25,sun,cat,walk,,None,STATE,1,2,1,b.mp4,25
o3,2026,player #1:c.mp4,0.0,10,10,25,sun,cat,walk,,None,STATE,1,2,1,c.mp4,25
o3,2026,player #1:c.mp4,0.0,10,10,25,sun,cat,walk,,None,STATE,11,12,1,d.mp4,25
o4,2026,player #1:e.mp4,0.0,10,10,25,sun,cat,walk,,None,STATE,NA,12,1,e.mp4,25
"""
TABULAR = """Observation id\tTime offset (s)\tSubject\tBehavior\tBehavior type\tTime\tMedia file name\t\
Image index\tComment
o1\t1.0\tNo focal subject\twalk\tSTART\t2.0\ta.mp4\t50\t
o1\t1.0\tcat\twalk\tSTART\t2.5\ta.mp4\t62\t
o1\t1.0\tNo focal subject\twalk\tSTOP\t4.0\ta.mp4\t100\t
o1\t1.0\tNo focal subject\tblink\tPOINT\t5.0\ta.mp4\t125\t
o1\t1.0\tcat\twalk\tSTOP\t6.0\ta.mp4\t150\t
o1\t1.0\tcat\twalk\tSTOP\t7.0\ta.mp4\t175\t
"""
OLD = """Observation id,o1
Observation date,2015
Media file(s)
Player #1,a.mp4

Time,Media file path,Total length,FPS,Subject,Behavior,Behavioral category,Comment,Status
1.5,a.mp4,10,25,,walk,,,START
3.5,a.mp4,10,25,,walk,,,STOP
4.0,a.mp4,10,25,,blink,,,POINT
"""


def test_aggregated_tables_are_read_by_the_names_of_their_columns(tmp_path: Path) -> None:
    found = read_annotations(written(tmp_path, "t.csv", AGGREGATED))
    assert [(Path(row.path).name, *span) for row in found for span in spans([row])] == [
        ("a.mp4", 1.0, 3.5, "walk"), ("a.mp4", 4.0, 4.0, "blink"), ("b.mp4", 1.0, 2.0, "walk"),
    ]  # fmt: skip
    assert len(found.problems) == 2
    assert any("o3" in problem and ".boris project" in problem for problem in found.problems)
    assert len(read_annotations(written(tmp_path, "t.csv", AGGREGATED), tiers=["cat"])) == 2
    header, *rows = AGGREGATED.splitlines(keepends=True)
    two_files = read_annotations(written(tmp_path, "t.csv", header + rows[3] + rows[4]), media=tmp_path / "c.mp4")
    assert not len(two_files)  # the second bout is no second of c.mp4
    assert ".boris project" in two_files.problems[0]


def test_tables_of_events_are_paired(tmp_path: Path) -> None:
    found = read_annotations(written(tmp_path, "t.tsv", TABULAR))
    assert spans(found) == [(1, 3, "walk"), (1.5, 5, "walk"), (4, 4, "blink")]
    assert "stops without a start" in found.problems[0]
    old = read_annotations(written(tmp_path, "old.csv", OLD))
    assert spans(old) == [(1.5, 3.5, "walk"), (4, 4, "blink")]
    assert not old.problems


def test_a_project_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a project of BORIS"):
        read_annotations(written(tmp_path, "p.boris", "{}"))
