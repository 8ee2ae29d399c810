"""Files of a search: tables, a picture, a page and clips, with awkward names and missing videos."""

from __future__ import annotations

import csv
import io
import json
import os
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote_to_bytes, urldefrag

import numpy as np
import pytest
from PIL import Image

from nonlocal_video.errors import OutputError, UsageError, VideoError
from nonlocal_video.frame_folders import RATE_VARIABLE
from nonlocal_video.retrieval.hit import Hit
from nonlocal_video.retrieval.page import address_of, page_of
from nonlocal_video.retrieval.result import SearchResult
from nonlocal_video.video.decode import VideoReader
from nonlocal_video.video.encode import write_video

AWKWARD = 'a "quoted" <b> #1 100% & é?.mp4'


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    (folder / "sub").mkdir()
    for name in (f"sub/{AWKWARD}", "plain.mp4"):
        write_video(folder / name, (np.full((48, 64, 3), 8 * number, np.uint8) for number in range(30)), fps=10)
    return folder


@pytest.fixture
def result(videos: Path) -> SearchResult:
    hits = (
        Hit(1, str(videos / "sub" / AWKWARD), 1.0, 2.0, 0.9, 1.5),
        Hit(2, str(videos / "=gone.mp4"), 0.0, 1.0, 0.5, 0.5),
        Hit(3, str(videos / "plain.mp4"), 0.0, 0.5, 0.25, 0.25),
    )
    return SearchResult({"like": []}, hits, ((str(videos / "plain.mp4"), 0.0, 3.0),))


def test_tables_hold_every_hit(result: SearchResult, tmp_path: Path) -> None:
    text = result.save(tmp_path / "hits.csv").read_text("utf-8")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert list(rows[0]) == ["rank", "path", "start_seconds", "end_seconds", "score"]
    assert [(int(row["rank"]), row["path"], float(row["score"])) for row in rows] == [
        (hit.rank, hit.path, hit.score) for hit in result
    ]
    lines = result.save(tmp_path / "hits.jsonl").read_text("utf-8").splitlines()
    whole = json.loads(result.save(tmp_path / "hits.json").read_text("utf-8"))
    assert [json.loads(line) for line in lines] == whole["hits"] == result.to_json()["hits"]
    assert list(whole) == ["query", "hits"]
    assert list(whole["hits"][0]) == ["rank", "path", "start_seconds", "end_seconds", "score"]


def test_nothing_is_written_over(result: SearchResult, tmp_path: Path) -> None:
    (tmp_path / "hits.csv").write_text("kept", "utf-8")
    for name in ("hits.csv", "hits.txt", "no/hits.csv"):
        with pytest.raises(UsageError):
            result.save(tmp_path / name)
    assert (tmp_path / "hits.csv").read_text("utf-8") == "kept"


class Players(HTMLParser):
    """The players of a page, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.videos: list[dict[str, str | None]] = []
        self.images: list[dict[str, str | None]] = []
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "video":
            self.videos.append(dict(attrs))
        elif tag == "img":
            self.images.append(dict(attrs))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_plays_the_moments(result: SearchResult, videos: Path, tmp_path: Path) -> None:
    page = result.save(videos / "found.html")
    players = Players()
    players.feed(page.read_text("utf-8"))
    page.unlink()
    assert len(players.videos) == 4  # the example, too
    source, part = urldefrag(str(players.videos[1]["src"]))
    assert part == "t=1.000,2.000"
    assert unquote_to_bytes(source) == b"./sub/" + os.fsencode(AWKWARD)
    assert (videos / os.fsdecode(unquote_to_bytes(source))).is_file()
    assert "b" in players.tags  # the captions' own
    assert AWKWARD in players.text  # as text, not as tags
    assert 'src="http' not in page_of(result.hits, result.examples, videos)  # nothing else is loaded


def test_the_page_plays_folders_of_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "clips" / 'one "#1'
    folder.mkdir(parents=True)
    for number in range(1, 13):
        Image.new("RGB", (16, 12), (20 * number, 0, 0)).save(folder / f"{number}.jpg")
    (folder / "list.txt").touch()
    hit = Hit(1, str(folder), 0.25, 1.0, 0.9, 0.5)
    players = Players()
    players.feed(page_of([hit], [], tmp_path))
    assert len(players.videos) == 1, "without a rate it is no clip"
    monkeypatch.setenv(RATE_VARIABLE, "12")
    players = Players()
    players.feed(page_of([hit], [], tmp_path))
    (image,) = players.images
    assert not players.videos
    frames = json.loads(str(image["data-frames"]))
    assert frames == [f"./clips/one%20%22%231/{number}.jpg" for number in range(4, 13)]
    assert (image["src"], image["data-rate"]) == (frames[0], "12")
    assert players.tags[players.tags.index("img") - 1] == "button"


def test_addresses_are_relative_to_the_page() -> None:
    assert address_of("clips/a b.mp4", Path("out/deep")) == "../../clips/a%20b.mp4"
    assert address_of("javascript:alert(1)", Path()) == "./javascript%3Aalert%281%29"
    assert address_of("https://host/a.mp4", Path()) == "https://host/a.mp4"
    assert address_of(os.fsdecode(b"\xff.mp4"), Path()) == "./%FF.mp4"


def test_the_picture_has_a_frame_of_each(result: SearchResult, tmp_path: Path) -> None:
    picture = np.asarray(Image.open(result.save(tmp_path / "hits.png")).convert("L"), dtype=float)
    height = picture.shape[0]
    assert picture.shape[1] == 6 + 4 * 306
    middles = [picture[height // 3, 6 + 150 + 306 * tile] for tile in range(4)]
    np.testing.assert_allclose(middles, [8 * 15, 8 * 15, 128, 8 * 2.5], atol=9)  # the second hit's video is gone


def test_clips_of_what_can_be_read(result: SearchResult, tmp_path: Path) -> None:
    failed: list[tuple[int, str]] = []
    paths = result.cut(tmp_path / "clips", on_failure=lambda hit, error: failed.append((hit.rank, error.code)))
    assert [path.name for path in paths] == ["0001_1.00-2.00_a_quoted_b_1_100_é.mp4", "0003_0.00-0.50_plain.mp4"]
    assert failed == [(2, "not_found")]
    with VideoReader() as reader:
        assert reader.probe(paths[0]).num_frames == 10
        assert reader.read(paths[0], [0.05]).frames_thwc.mean() == pytest.approx(80, abs=3)
    with pytest.raises(UsageError, match="not written over"):
        result.cut(tmp_path / "clips")
    with pytest.raises(VideoError, match="gone"):
        result.cut(tmp_path / "others")
    assert len(list((tmp_path / "others").iterdir())) == 2


def test_a_folder_that_cannot_be_made(result: SearchResult, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(OutputError):
        result.cut(tmp_path / "file" / "clips")
