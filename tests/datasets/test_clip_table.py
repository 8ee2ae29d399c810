"""Lists of clips the way that spreadsheets, scripts and people write them."""

from __future__ import annotations

import codecs
from dataclasses import fields
from pathlib import Path

import pytest

from nonlocal_video.datasets.clip_table import MANIFEST_COLUMNS, read_rows
from nonlocal_video.datasets.labelled import read_source
from nonlocal_video.datasets.manifest import Manifest, ManifestRow, is_manifest, read_manifest, write_manifest
from nonlocal_video.errors import UsageError

ROWS = [("a.mp4", "yoga"), ("b, c.mp4", 'say "hi"'), ("d.mp4", "tai chi")]
PLAIN = 'path,label\na.mp4,yoga\n"b, c.mp4","say ""hi"""\nd.mp4,tai chi\n'


def written(folder: Path, content: str | bytes, name: str = "clips.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def rows_of(path: Path) -> list[tuple[str, str]]:
    return [(Path(clip.path).name, clip.label) for clip in read_source(path).clips]


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\r"),
        codecs.BOM_UTF8.decode() + PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\n\n") + "\n \n,\n",
        "\n\n" + PLAIN,
        PLAIN.replace("path,label", " Path , LABEL "),
        'path;label\na.mp4;yoga\n"b, c.mp4";"say ""hi"""\nd.mp4;tai chi\n',
        'sep=;\npath;label\na.mp4;yoga\nb, c.mp4;"say ""hi"""\nd.mp4;tai chi\n',
        'path\tlabel\na.mp4\tyoga\nb, c.mp4\t"say ""hi"""\nd.mp4\ttai chi\n',
        'path,label,,\na.mp4,yoga,,\n"b, c.mp4","say ""hi""",,\nd.mp4,tai chi,,\n',
    ],
    ids=["plain", "CRLF", "CR", "mark", "empty", "first", "case", "semicolons", "sep", "tabs", "trailing"],
)
def test_the_same_list_however_it_was_saved(tmp_path: Path, content: str) -> None:
    assert rows_of(written(tmp_path, content)) == ROWS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (PLAIN.encode("utf-16"), "is text in UTF-16, not text in UTF-8. Save it as UTF-8"),
        (b"PK\x03\x04....", "is a spreadsheet or another archive"),
        ("path,label\na.mp4,Fußball\n".encode("latin-1"), "line 2: label is not a CSV in UTF-8"),
        ("a.mp4,yoga\nb.mp4,yoga\n", "has the columns a.mp4, yoga, not path, label; its first line should be"),
        ("path,label,splt\na.mp4,yoga,val\n", r"not known: splt \(split\?\)\. Known are path, label, group, split\."),
        ("path,label,start_seconds\na.mp4,yoga,0\n", "not end_seconds; its first line should be path,start_seconds"),
        ("path,label,label\na.mp4,yoga,run\n", "has the column label twice"),
        ('path,label\n"a.mp4,yoga\nb.mp4,run\n', "line 3: this is not valid CSV"),
        ("path,label\na.mp4,yoga\n\n\nb.mp4,\n", "line 5: a row needs a path and a label"),
        ('path,label\n"a\nb.mp4",yoga\nb.mp4,\n', "line 4: a row needs a path and a label"),
        ("path,label,\na.mp4,yoga,x\n", "line 2: 'x' is in a column without a name"),
        ("path,label\na\0.mp4,yoga\n", "zero byte|no CSV"),
    ],
)
def test_what_is_wrong_is_one_sentence(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_source(written(tmp_path, content))


def test_columns_of_other_programs_are_named_to_be_left_out(tmp_path: Path) -> None:
    path = written(tmp_path, "path,label,note,Source\na.mp4,yoga,x,y\n")
    with pytest.raises(UsageError, match=r"note, source.*--ignore-column note"):
        read_source(path)
    assert len(read_source(path, ignore_columns=["note", "source"]).clips) == 1


def test_rows_without_a_split_are_named_by_their_lines(tmp_path: Path) -> None:
    path = written(tmp_path, "path,label,split\na.mp4,yoga,train\nb.mp4,yoga,\n\nc.mp4,run,val\nd.mp4,run,\n")
    (note,) = read_source(path).notes
    assert "2 of 4 rows" in note
    assert "(line 3, 6): training divides them by itself" in note
    assert "(line 3, 6): they are left out" in read_source(path, split="val").notes[0]
    assert read_source(written(tmp_path, "path,label,split\na.mp4,yoga,\nb.mp4,yoga,\n")).notes == ()


def test_a_manifest_that_a_spreadsheet_saved_is_still_one(tmp_path: Path) -> None:
    assert tuple(field.name for field in fields(ManifestRow)) == MANIFEST_COLUMNS
    rows = (
        ManifestRow(str(tmp_path / "a.mp4"), "wave", None, "train", None, 2.0, 20, 10.0, 96, 72, "0f" * 32),
        ManifestRow(str(tmp_path / "b.mp4"), "wave", problem="corrupt: b.mp4"),
    )
    write_manifest(tmp_path / "m.csv", Manifest(rows))
    saved = (tmp_path / "m.csv").read_text().replace(",", ";")
    path = written(tmp_path, codecs.BOM_UTF8 + saved.encode(), "saved.csv")
    assert is_manifest(path)
    assert read_manifest(path).rows == rows
    source = read_source(path)
    assert len(source.clips) == 2
    assert source.notes == (), "a clip that cannot be used has no split, and that is no omission"
    lines = written(tmp_path, codecs.BOM_UTF8 + b'{"path": "c.mp4", "label": "x", "problem": "y"}\n', "m.jsonl")
    assert read_manifest(lines).rows[0].label == "x"


def test_names_of_files_in_a_manifest_may_be_bytes(tmp_path: Path) -> None:
    content = b"path,label,sha256\ncaf\xe9.mp4,wave,x\n"
    ((_, row),) = read_rows(written(tmp_path, content))
    assert row["path"] == "caf\udce9.mp4"
