"""Public data sets laid out as their archives unpack: paths, labels, splits, and groups that do not leak."""

from __future__ import annotations

import csv
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from nonlocal_video.cli.main import main
from nonlocal_video.datasets.clip_files import ClipFiles
from nonlocal_video.datasets.labelled import read_source
from nonlocal_video.datasets.public_sets import PUBLIC_SETS, PublicClip, read_public_set, write_clip_list
from nonlocal_video.errors import UsageError


def lay_out(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def text(root: Path, name: str, content: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(content, encoding="utf-8")


def rows(found: list[PublicClip], root: Path) -> set[tuple[str, str, str | None, str | None]]:
    return {(str(Path(c.path).relative_to(root)), c.label, c.group, c.split) for c in found}


@pytest.fixture
def ucf101(tmp_path: Path) -> Path:
    names = ("HandstandPushups/v_HandStandPushups_g01_c01.avi", "Yo/v_Yo_g01_c01.avi", "Yo/v_Yo_g02_c01.avi")
    lay_out(tmp_path, *(f"UCF-101/{name}" for name in names))
    text(tmp_path, "ucfTrainTestlist/classInd.txt", "1 HandstandPushups\n2 Yo\n")
    # The list of one release spells the file otherwise than the disk.
    text(
        tmp_path,
        "ucfTrainTestlist/trainlist02.txt",
        "HandstandPushups/v_HandstandPushups_g01_c01.avi 1\nYo/v_Yo_g02_c01.avi 2\n",
    )
    text(tmp_path, "ucfTrainTestlist/testlist02.txt", "Yo/v_Yo_g01_c01.avi\r\nYo/v_Yo_g01_c02.avi\r\n")
    return tmp_path


def test_ucf101(ucf101: Path) -> None:
    found = read_public_set("ucf101", ucf101, split=2)
    assert rows(found.clips, ucf101) == {
        (
            "UCF-101/HandstandPushups/v_HandStandPushups_g01_c01.avi",
            "HandstandPushups",
            "HandstandPushups g01",
            "train",
        ),
        ("UCF-101/Yo/v_Yo_g02_c01.avi", "Yo", "Yo g02", "train"),
        ("UCF-101/Yo/v_Yo_g01_c01.avi", "Yo", "Yo g01", "test"),
    }
    assert found.missing == ["Yo/v_Yo_g01_c02.avi"]
    without = read_public_set("ucf101", ucf101, split=1)
    assert {clip.split for clip in without.clips} == {None}
    assert {clip.group for clip in without.clips} == {"HandstandPushups g01", "Yo g01", "Yo g02"}
    assert any("no split" in note for note in without.notes)


@pytest.mark.parametrize("split", [0, 4])
def test_a_division_that_is_none(ucf101: Path, split: int) -> None:
    with pytest.raises(UsageError, match="from 1 to 3"):
        read_public_set("ucf101", ucf101, split=split)
    with pytest.raises(UsageError, match="one division only"):
        read_public_set("kinetics", ucf101, split=2)


def test_clips_that_were_encoded_again_are_found_by_the_lists_names(tmp_path: Path) -> None:
    lay_out(tmp_path, "Yo/v_Yo_g01_c01.mp4")
    text(tmp_path, "trainlist01.txt", "Yo/v_Yo_g01_c01.avi 1\n")
    assert read_public_set("ucf101", tmp_path).clips[0].path == str(tmp_path / "Yo/v_Yo_g01_c01.mp4")


def test_hmdb51_with_names_that_patterns_would_misread(tmp_path: Path) -> None:
    """1 is training, 2 testing, 0 neither; names have brackets, signs and spaces, and the class again in the film."""
    names = [
        "#20_Rhythm_[clap]&go;_clap_u_nm_np1_fr_goo_0.avi",
        "#20_Rhythm_[clap]&go;_clap_u_nm_np1_fr_goo_1.avi",
        "die_clap_schlägt_clap_f_cm_np2_ba_med_0.avi",
        "other_clap_u_nm_np1_fr_bad_3.avi",
    ]
    lay_out(tmp_path, *(f"clap/{name}" for name in names))
    text(
        tmp_path,
        "testTrainMulti_7030_splits/clap_test_split1.txt",
        "".join(f"{n} {i} \n" for n, i in zip(names, "1220", strict=True)),
    )
    text(tmp_path, "testTrainMulti_7030_splits/clap_test_split2.txt", "")
    text(tmp_path, "classInd.txt", "1 clap\n")
    found = read_public_set("hmdb51", tmp_path)
    assert rows(found.clips, tmp_path) == {
        (f"clap/{names[0]}", "clap", "#20_Rhythm_[clap]&go;", "train"),
        (f"clap/{names[1]}", "clap", "#20_Rhythm_[clap]&go;", "test"),
        (f"clap/{names[2]}", "clap", "die_clap_schlägt", "test"),
    }
    assert any("1 clips are in neither" in note for note in found.notes)
    assert any("1 of 2 sources have clips in more than one" in note for note in found.notes)


def test_kinetics_ids_may_begin_with_a_dash_and_differ_in_case_only(tmp_path: Path) -> None:
    text(
        tmp_path,
        "annotations/train.csv",
        "label,youtube_id,time_start,time_end,split,is_cc\n"
        '"testifying",---QUuC4vJs,84,94,train,0\n"riding, a bike",abcdefghijK,1.0,11.0,train,1\n'
        "testifying,abcdefghijk,1,11,train,0\n",
    )
    text(
        tmp_path,
        "annotations/val.csv",
        "label,youtube_id,time_start,time_end,split\ntestifying,zzzzzzzzzzz,5,15,validate\n",
    )
    text(tmp_path, "annotations/test.csv", "youtube_id,time_start,time_end,split\nyyyyyyyyyyy,5,15,test\n")
    lay_out(
        tmp_path,
        "train/testifying/---QUuC4vJs_000084_000094.mp4",
        "train/riding_a_bike/abcdefghijK_000001_000011.mp4",
        "val/testifying/zzzzzzzzzzz.mp4",
    )
    found = read_public_set("kinetics", tmp_path)
    assert rows(found.clips, tmp_path) == {
        ("train/testifying/---QUuC4vJs_000084_000094.mp4", "testifying", "---QUuC4vJs", "train"),
        ("train/riding_a_bike/abcdefghijK_000001_000011.mp4", "riding, a bike", "abcdefghijK", "train"),
        ("val/testifying/zzzzzzzzzzz.mp4", "testifying", "zzzzzzzzzzz", "validation"),
    }
    assert found.missing == ["abcdefghijk_000001_000011"]
    assert any("1 clips of the test set have no label" in note for note in found.notes)
    text(tmp_path, "annotations/bad.csv", "label,youtube_id,time_start,time_end\nx,aaaaaaaaaaa,?,1\n")
    with pytest.raises(UsageError, match="line 2: time_start"):
        read_public_set("kinetics", tmp_path)


def test_kinetics_without_lists(tmp_path: Path) -> None:
    lay_out(
        tmp_path, "train/tai_chi/aaaaaaaaaaa_000001_000011.mp4", "val/tai chi/-bbbbbbbbbb.mp4", "val/tai chi/short.mp4"
    )
    assert rows(read_public_set("kinetics", tmp_path).clips, tmp_path) == {
        ("train/tai_chi/aaaaaaaaaaa_000001_000011.mp4", "tai chi", "aaaaaaaaaaa", "train"),
        ("val/tai chi/-bbbbbbbbbb.mp4", "tai chi", "-bbbbbbbbbb", "validation"),
    }


def test_files_beside_the_clips_are_no_clips(tmp_path: Path) -> None:
    """Subtitles, sound and what systems leave, with names as the clips have them and earlier in name order."""
    name = "train/tai chi/aaaaaaaaaaa_000001_000011"
    strays = ("Thumbs.db", "desktop.ini", "talk.wav", "__MACOSX/b.mp4", ".Trash/aaaaaaaaaaa_000001_000011.avi")
    lay_out(tmp_path, *(f"{name}.{ending}" for ending in ("ass", "mp4", "srt", "wav")), *strays)
    expected = {(f"{name}.mp4", "tai chi", "aaaaaaaaaaa", "train")}
    assert ClipFiles(tmp_path).all() == [str(tmp_path / f"{name}.mp4")]
    assert rows(read_public_set("kinetics", tmp_path).clips, tmp_path) == expected
    text(tmp_path, "train.csv", "label,youtube_id,time_start,time_end\ntai chi,aaaaaaaaaaa,1,11\n")
    for resource_fork in ("__MACOSX/._train.csv", "._train.csv"):
        (tmp_path / resource_fork).write_bytes(b"\0\5\x16\7\0\2\0\0\xff")
    found = read_public_set("kinetics", tmp_path)
    assert rows(found.clips, tmp_path) == expected
    assert found.notes == []


def test_links_to_folders_are_followed(tmp_path: Path) -> None:
    lay_out(tmp_path / "disk", "tai chi/aaaaaaaaaaa_000001_000011.mp4")
    text(tmp_path / "disk", "train.csv", "label,youtube_id,time_start,time_end\ntai chi,aaaaaaaaaaa,1,11\n")
    (tmp_path / "set").mkdir()
    os.symlink(tmp_path / "disk", tmp_path / "set/train")
    os.symlink(tmp_path / "set", tmp_path / "disk/round")
    (clip,) = read_public_set("kinetics", tmp_path / "set").clips
    assert clip.path == str(tmp_path / "set/train/tai chi/aaaaaaaaaaa_000001_000011.mp4")


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may read everything, so the right is taken away here."""
    lay_out(tmp_path, "train/tai chi/aaaaaaaaaaa_000001_000011.mp4")
    scandir = os.scandir

    def refuse(path: str) -> Any:
        if str(path).endswith("tai chi"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UsageError, match="tai chi' cannot be read"):
        read_public_set("kinetics", tmp_path)


def test_ssv2_classes_are_templates_without_brackets(tmp_path: Path) -> None:
    def listed(name: str, *entries: dict[str, str]) -> None:
        text(tmp_path, f"labels/something-something-v2-{name}.json", json.dumps(entries))

    listed("train", {"id": "7", "label": "holding a cup", "template": "Holding [something] up"})
    listed(
        "validation",
        {"id": "8", "template": "Holding [something] up"},
        {"id": "9", "template": "Holding [something] up"},
    )
    listed("test", {"id": "10"})
    text(tmp_path, "labels/something-something-v2-labels.json", json.dumps({"Holding something up": "0"}))
    lay_out(
        tmp_path,
        "20bn-something-something-v2/7.webm",
        "20bn-something-something-v2/8.webm",
        "20bn-something-something-v2/10.webm",
    )
    found = read_public_set("ssv2", tmp_path)
    assert rows(found.clips, tmp_path) == {
        ("20bn-something-something-v2/7.webm", "Holding something up", None, "train"),
        ("20bn-something-something-v2/8.webm", "Holding something up", None, "validation"),
    }
    assert found.missing == ["9"]
    assert found.without_label == 1
    text(tmp_path, "labels/something-something-v2-labels.json", json.dumps({"Other": "0"}))
    with pytest.raises(UsageError, match=r"is not in labels\.json"):
        read_public_set("ssv2", tmp_path)


def test_jester_clips_are_folders(tmp_path: Path) -> None:
    text(tmp_path, "jester-v1-train.csv", "7;Swiping Left\n8;No gesture\n")
    text(tmp_path, "jester-v1-test.csv", "9\n")
    lay_out(tmp_path, "20bn-jester-v1/7/00001.jpg")
    found = read_public_set("jester", tmp_path)
    assert rows(found.clips, tmp_path) == {("20bn-jester-v1/7", "Swiping Left", None, "train")}
    assert (found.missing, found.without_label) == (["8"], 1)
    assert any("JPEGs" in note for note in found.notes)


@pytest.mark.parametrize("name", PUBLIC_SETS)
def test_a_folder_without_the_data_set_is_refused(tmp_path: Path, name: str) -> None:
    lay_out(tmp_path, "a.mp4", "some/b.mp4")
    with pytest.raises(UsageError, match="neither lists nor clips"):
        read_public_set(name, tmp_path)
    with pytest.raises(UsageError, match="not a folder"):
        read_public_set(name, tmp_path / "gone")


def test_the_list_is_what_check_and_train_read(ucf101: Path, tmp_path: Path) -> None:
    found = read_public_set("ucf101", ucf101, split=2)
    (tmp_path / "lists").mkdir()
    assert write_clip_list(tmp_path / "lists/ucf.csv", found.clips) == []
    again = read_source(tmp_path / "lists/ucf.csv").clips
    assert [(Path(c.path).resolve(), c.label, c.group, c.split) for c in again] == [
        (Path(c.path).resolve(), c.label, c.group, c.split) for c in found.clips
    ]


def test_columns_without_values_and_names_that_are_formulas_or_no_text(tmp_path: Path) -> None:
    clips = [PublicClip(str(tmp_path / "-a,b.mp4"), 'say "hi"'), PublicClip(str(tmp_path / "\udcff.mp4"), "x")]
    (note,) = write_clip_list(tmp_path / "o.csv", clips)
    assert "1 names are no text" in note
    with open(tmp_path / "o.csv", newline="") as file:
        assert list(csv.reader(file)) == [["path", "label"], ["./-a,b.mp4", 'say "hi"']]


def test_the_verb_lists_what_is_missing(
    ucf101: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = ucf101 / "ucf.csv"
    words = ["nonlocal-video", "import", "ucf101", str(ucf101), "--split", "2", "--output", str(output), "--json"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    assert ended.value.code == 1
    summary = json.loads(out)
    assert (summary["num_clips"], summary["num_missing"], summary["splits"]) == (3, 1, {"train": 2, "test": 1})
    assert (summary["num_classes"], summary["num_groups"]) == (2, 3)
    assert (ucf101 / "ucf.missing.txt").read_text() == "Yo/v_Yo_g01_c02.avi\n"
    assert "1 clips of the lists are missing" in err
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
