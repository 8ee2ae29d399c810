"""Annotation files are what strangers send: nothing is expanded, fetched or read without bound."""

from __future__ import annotations

from pathlib import Path

import pytest
from segment_rows import written

from nonlocal_video.annotations import documents
from nonlocal_video.annotations.formats import read_annotations
from nonlocal_video.errors import UsageError

BILLION = '<!DOCTYPE l [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><ANNOTATION_DOCUMENT>&b;</ANNOTATION_DOCUMENT>'
OUTSIDE = '<!DOCTYPE l SYSTEM "file:///etc/passwd"><ANNOTATION_DOCUMENT/>'


@pytest.mark.parametrize("text", [BILLION, OUTSIDE, '<?xml version="1.0"?>\n' + BILLION])
def test_document_types_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match="DTD"):
        read_annotations(written(tmp_path, "a.eaf", text))


def test_xml_that_nests_for_ever_or_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nests deeper"):
        read_annotations(written(tmp_path, "a.eaf", "<a>" * 100_000))
    with pytest.raises(UsageError, match="is not valid XML"):
        read_annotations(written(tmp_path, "b.eaf", "<a><b></a>"))
    with pytest.raises(UsageError, match="no file of ELAN"):
        read_annotations(written(tmp_path, "c.eaf", "<html/>"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nests too deeply"),
        ('{"data": NaN}', "NaN"),
        ('{"a": ' + "9" * 5000 + "}", "not valid JSON"),
        ("{", "not valid JSON"),
        ('"text"', "neither"),
        ("[]", "neither"),
        ("[1]", "neither"),
        ("{}", "neither"),
    ],
)
def test_json_that_is_no_annotation_file(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_annotations(written(tmp_path, "a.json", text))


def test_sizes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MAX_BYTES", 1 << 20)
    with pytest.raises(UsageError, match="more than 1 MiB"):
        read_annotations(written(tmp_path, "a.json", " " * ((1 << 20) + 1)))


@pytest.mark.parametrize("content", [b"PK\x03\x04abc", "WEBVTT".encode("utf-16"), b"WEBVTT\n\n\xff\xfa"])
def test_what_is_not_utf8_says_so(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.vtt"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="UTF-8"):
        read_annotations(path, media="a.mp4")


def test_unknown_endings_and_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="should end in one of"):
        read_annotations(tmp_path / "a.xyz")
    with pytest.raises(UsageError, match="is not a file"):
        read_annotations(tmp_path / "a.eaf")
