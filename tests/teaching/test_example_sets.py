"""Examples of folders and lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from nonlocal_video.errors import UsageError
from nonlocal_video.teaching.examples import is_none_of_these, read_examples


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines))
    return path


def test_a_folder_of_classes_and_of_none_of_these(tmp_path: Path) -> None:
    for name in ("wave/a.mp4", "wave/b.mp4", "bow/a.mp4", "None-of_these/x.mp4", "wave/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = read_examples(tmp_path)
    assert found.labels == ("bow", "wave")
    assert sorted((Path(one.path).name, one.labels) for one in found.examples) == [
        ("a.mp4", ("bow",)), ("a.mp4", ("wave",)), ("b.mp4", ("wave",)), ("x.mp4", ()),
    ]  # fmt: skip
    assert sum(found.passed_over.counts.values()) == 1


def test_a_list_with_several_labels_groups_and_splits(tmp_path: Path) -> None:
    path = write(
        tmp_path / "c.csv",
        "path,label,group,split",
        "a.mp4,wave,s1,train",
        "a.mp4,smile,s1,train",
        "b.mp4,bow,s2,",
        "c.mp4,none of these,,train",
        "d.mp4,bow,s3,validation",
    )
    found = read_examples(path)
    assert [(Path(one.path).name, one.labels, one.group) for one in found.examples] == [
        ("a.mp4", ("smile", "wave"), "s1"), ("b.mp4", ("bow",), "s2"), ("c.mp4", (), None),
    ]  # fmt: skip
    assert found.notes == ("1 rows are of other splits than train (validation) and are not taught.",)


def test_segments_of_one_video_are_one_group(tmp_path: Path) -> None:
    path = write(tmp_path / "s.csv", "path,start_seconds,end_seconds,label", "v.mp4,0,2,wave", "v.mp4,3,4.5,bow")
    found = read_examples(path)
    assert [one.path.rpartition("/")[2] for one in found.examples] == ["v.mp4#t=0,2", "v.mp4#t=3,4.5"]
    assert {one.group for one in found.examples} == {str(tmp_path / "v.mp4")}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a.mp4,wave,", "b.mp4,wave,"], "examples of 1 class"),
        (["a.mp4,wave,x", "a.mp4,bow,y"], "in the groups x, y"),
        (["a.mp4,wave,", "a.mp4,wave,", "b.mp4,bow,"], "the label 'wave' twice"),
        (["a.mp4,wave,", "a.mp4,none of these,", "b.mp4,bow,"], "as 'wave' and as 'none of these'"),
        (["a.mp4,,", "b.mp4,bow,"], "line 2: a row needs a path and a label"),
    ],
)
def test_what_cannot_be_meant(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_examples(write(tmp_path / "c.csv", "path,label,group", *lines))


def test_names_of_none_of_these() -> None:
    assert [is_none_of_these(name) for name in ("none of these", "None_Of-These", " NONE  of these ")] == [True] * 3
    assert not is_none_of_these("none")
