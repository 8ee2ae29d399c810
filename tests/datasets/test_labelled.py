"""Choice of the clips that are measured, and their names in the model's terms."""

from __future__ import annotations

from pathlib import Path

import pytest

from nonlocal_video.datasets.labelled import LabelledClip, class_indices, read_labelled
from nonlocal_video.errors import UsageError

LABELS = ("playing drums", "playing harp", "Yoga", "tai chi")


def clips_of(*labels: str) -> list[LabelledClip]:
    return [LabelledClip(f"{number}.mp4", label) for number, label in enumerate(labels)]


def table(folder: Path, text: str, *, encoding: str = "utf-8") -> Path:
    path = folder / "clips.csv"
    path.write_text(text, encoding=encoding)
    return path


def test_class_folders(tmp_path: Path) -> None:
    for name in ("yoga/a.mp4", "yoga/more/b.avi", "playing_drums/c.mp4", "yoga/.DS_Store", ".cache/d.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert read_labelled(tmp_path) == [
        LabelledClip(str(tmp_path / "playing_drums/c.mp4"), "playing_drums"),
        LabelledClip(str(tmp_path / "yoga/a.mp4"), "yoga"),
        LabelledClip(str(tmp_path / "yoga/more/b.avi"), "yoga"),
    ]


@pytest.mark.parametrize("name", ["a.mp4", "clip", "clip.xyz"])
def test_a_clip_beside_the_class_folders_is_not_left_out_silently(tmp_path: Path, name: str) -> None:
    (tmp_path / "yoga").mkdir()
    (tmp_path / name).touch()
    with pytest.raises(UsageError, match=f"{name}' is in no class folder.*Move it"):
        read_labelled(tmp_path)


def test_csv_with_its_paths_from_its_own_folder_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        'label,path,group,split\nyoga,a.mp4,s1,val\n"tai chi", sub/b.mp4,,train\nyoga,s3://bucket/c.mp4,s2,val\n',
        encoding="utf-8-sig",
    )
    assert read_labelled(path) == [
        LabelledClip(str(tmp_path / "a.mp4"), "yoga", "s1", "val"),
        LabelledClip(str(tmp_path / "sub/b.mp4"), "tai chi", None, "train"),
        LabelledClip("s3://bucket/c.mp4", "yoga", "s2", "val"),
    ]
    assert [clip.label for clip in read_labelled(path, split="train")] == ["tai chi"]


def test_csv_with_the_two_needed_columns_and_an_absolute_path(tmp_path: Path) -> None:
    path = table(tmp_path, f"path,label\n{tmp_path}/a.mp4,yoga\n")
    assert read_labelled(path) == [LabelledClip(str(tmp_path / "a.mp4"), "yoga")]


@pytest.mark.parametrize(
    ("text", "split", "message"),
    [
        ("file,label\na.mp4,yoga\n", None, "has the columns file, label, not path; its first line should be"),
        ("", None, r"has the columns \(none\), not path, label"),
        ("path,label\na.mp4,yoga\n", "val", "not split"),
        ("path,label,split\na.mp4,yoga,train\nb.mp4,yoga,val\n", "test", "split = 'test' is in no row.*train, val"),
        ("path,label\na.mp4,yoga\nb.mp4,\n", None, "line 3: a row needs a path and a label"),
        ("path,label\na.mp4\n", None, "line 2: a row needs a path and a label"),
        ("path,label\na,b.mp4,yoga\n", None, "line 2: more fields than columns"),
        ("path,label\na.mp4,yoga\nb.mp4,yoga\na.mp4,tai chi\n", None, "line 4: 'a.mp4' was in line 2 before"),
        ("path,label\n", None, "There is no clip"),
    ],
)
def test_csv_that_is_not_clear(tmp_path: Path, text: str, split: str | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_labelled(table(tmp_path, text), split=split)


def test_csv_in_another_encoding(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a CSV in UTF-8"):
        read_labelled(table(tmp_path, "path,label\na.mp4,Fußball\n", encoding="latin-1"))


def test_what_is_neither_and_a_split_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="should be a folder with one folder of clips a class, or a CSV"):
        read_labelled(tmp_path / "gone")
    with pytest.raises(UsageError, match="split = 'val' needs a CSV"):
        read_labelled(tmp_path, split="val")
    with pytest.raises(UsageError, match="There is no clip"):
        read_labelled(tmp_path)


def test_labels_match_exactly_or_but_for_case_and_underscores() -> None:
    assert class_indices(clips_of("playing drums", "Playing_Harp", "yoga", "TAI  CHI"), LABELS) == [0, 1, 2, 3]


def test_an_exact_label_wins_over_a_like_one() -> None:
    labels = ("push up", "Push_Up")
    assert class_indices(clips_of("Push_Up", "push up"), labels) == [1, 0]
    with pytest.raises(UsageError, match=r"'PUSH UP' \(1 clips\) fits 'push up' and 'Push_Up': write one of them"):
        class_indices(clips_of("PUSH UP"), labels)


def test_all_unknown_labels_are_listed_with_the_closest_known() -> None:
    with pytest.raises(UsageError) as caught:
        class_indices(clips_of("playing_drum", "yoga", "playing_drum", "zzz"), LABELS)
    message = str(caught.value)
    assert "2 of the clips' labels cannot be matched with the model's 4" in message
    assert "'playing_drum' (2 clips), closest 'playing drums', 'playing harp'" in message
    assert "'zzz' (1 clips)." in message
    assert "'yoga'" not in message


def test_a_model_of_one_class_cannot_be_wrong() -> None:
    with pytest.raises(UsageError, match="always right"):
        class_indices(clips_of("yoga"), ("yoga",))
