"""Search on the page, without a browser: only offered files and a visitor's own are read."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import gradio as gr
import pytest
from colour_clips import COLOURS, write_colour

from nonlocal_video.app import texts_more, visit_folders
from nonlocal_video.app.callbacks.recognise import Recognition
from nonlocal_video.app.callbacks.search_index import OWN, ROOT
from nonlocal_video.app.callbacks.search_run import Searches
from nonlocal_video.app.callbacks.search_visit import MOST_SEARCHES
from nonlocal_video.app.callbacks.similar import Similar
from nonlocal_video.app.visit_folders import Visits, private_folder
from nonlocal_video.app.visits import How
from nonlocal_video.features.store import FeatureFile
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.retrieval.api import search
from nonlocal_video.video.decode import VideoReader

ANN: Any = SimpleNamespace(session_hash="ann")
BOB: Any = SimpleNamespace(session_hash="bob")


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NONLOCAL_VIDEO_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips of each colour, in two folders, and a note."""
    folder = tmp_path_factory.mktemp("colours")
    for number, (name, colour) in enumerate(COLOURS.items()):
        write_colour(folder / f"{name} 1.mp4", colour, number)
        write_colour(folder / "more" / f"{name} 2.mp4", colour, number + 10)
    (folder / "note.mp4").write_text("no video\n" * 20)
    return folder


@pytest.fixture
def uploads(colours: Path, tmp_path: Path) -> Path:
    """The folder of uploads, with the clips in it."""
    return Path(shutil.copytree(colours, tmp_path / "gradio" / "0123abc"))


@pytest.fixture
def searches(recognizer: Recognizer, colours: Path, tmp_path: Path) -> Searches:
    return Searches(recognizer, Path(shutil.copytree(colours, tmp_path / "offered")))


def last(updates: Iterator[Any]) -> Any:
    return list(updates)[-1]


def headline(update: Any, state: str = "done") -> str:
    """Text of the headline of a tab in this state, with the line below it."""
    assert update.said["state"] == state
    return f"{update.said['headline']}. {update.said['doing']}"


def upload(path: Path | str) -> Any:
    return SimpleNamespace(_data={"paths": [str(path)]})


def cards(found: Any) -> list[dict[str, Any]]:
    return list(json.loads(found.results))


def ticked(card: dict[str, Any], *numbers: Any) -> str:
    """Value that the page sends for ticked moments of a search, by the card of one of them."""
    return json.dumps({"search": card["search"], "moments": numbers})


def pressed(card: dict[str, Any], number: Any) -> Any:
    """The event of `More like this` of a search, by the card of one of its moments."""
    return SimpleNamespace(_data={"search": card["search"], "moments": [number]})


def last_file(updates: Iterator[Any]) -> list[str]:
    """The names in an archive, which is deleted behind its update."""
    for update in updates:
        with zipfile.ZipFile(update["value"]) as archive:
            names = archive.namelist()
    return names


def file_at(address: str) -> Path:
    return Path(unquote(address.partition("file=")[2]))


def test_the_folder_is_searched_like_the_command_does(searches: Searches) -> None:
    indexed = last(searches.index(ROOT, None, ANN))
    names = [f"{place}{name} {number}.mp4" for place, number in (("", 1), ("more/", 2)) for name in COLOURS]
    assert indexed.example["choices"] == sorted(names)
    assert headline(indexed).startswith("6 clips can be searched. ")
    assert "1 could not be read" in headline(indexed)
    address = searches.choose("red 1.mp4", ANN).player
    assert file_at(address).read_bytes() == (searches.root / "red 1.mp4").read_bytes()
    found = last(searches.like_moment(0.7, None, ANN))
    assert [card["url"] for card in cards(found)] == [""] * len(cards(found)), "words first, previews then"
    *_, played = searches.previews(ANN)
    visit = searches.visits.of(ANN)
    expected = search(
        visit.table,
        like=visit.example,
        at=0.7,
        top_k=12,
        model=searches.recognizer,
    )
    assert [(card["name"], card["start"]) for card in cards(found)] == [
        (str(Path(hit.path).relative_to(searches.root.resolve())), hit.start_seconds) for hit in expected
    ]
    alike = sum(hit.score > 0 for hit in expected)
    assert 1 < alike < len(expected)
    assert f"{alike} moments like red 1.mp4, at 0:00.60" in headline(found)
    assert f"those after number {alike} have little in common" in headline(found)
    own = [card for card in cards(found) if card["name"] == "red 1.mp4"]
    assert not [card for card in own if card["start"] < 0.7 < card["end"]], "not the moment itself"
    assert "red 1.mp4, at 0:00." in headline(found)
    with VideoReader() as reader:
        info = reader.probe(file_at(json.loads(played)[0]["url"]))
    assert info.duration_seconds == pytest.approx(cards(found)[0]["end"] - cards(found)[0]["start"], abs=0.11)


@pytest.mark.slow
def test_more_like_a_moment_that_was_found_and_only_of_a_class(searches: Searches) -> None:
    last(searches.index(ROOT, None, ANN))
    searches.choose("red 1.mp4", ANN)
    before = cards(last(searches.like_whole(None, ANN)))
    after = last(searches.like_hit(None, ANN, pressed(before[0], 0)))
    assert before[0]["name"] in headline(after)
    assert (before[0]["name"], before[0]["start"]) not in [(card["name"], card["start"]) for card in cards(after)]
    label = searches.recognizer.classify(searches.visits.of(ANN).hits[0].path).top1.label
    assert 0 < len(cards(last(searches.like_whole(label, ANN)))) <= len(before)
    for number in (99, -1, "x", None, float("inf")):
        with pytest.raises(gr.Error, match="search again"):
            last(searches.like_hit(None, ANN, pressed(before[0], number)))
    for sent in (0, None, {"search": 99, "moments": [0]}, {"search": None, "moments": 0}, {"moments": [0]}):
        with pytest.raises(gr.Error, match="search again"):
            last(searches.like_hit(None, ANN, SimpleNamespace(_data=sent)))


def test_a_press_that_waits_while_others_are_found_is_for_the_moments_that_were_shown(searches: Searches) -> None:
    last(searches.index(ROOT, None, ANN))
    searches.choose("red 1.mp4", ANN)
    red = cards(last(searches.like_whole(None, ANN)))
    searches.choose("blue 1.mp4", ANN)
    blue = cards(last(searches.like_whole(None, ANN)))
    assert red[0]["name"] != blue[0]["name"]
    saved = last_file(searches.save(ticked(red[0], 0), ANN))
    assert Path(red[0]["name"]).stem.replace(" ", "_") in saved[0]
    assert red[0]["name"] in headline(last(searches.like_hit(None, ANN, pressed(red[0], 0))))
    searches.choose("blue 1.mp4", ANN)
    again = cards(last(searches.like_whole(None, ANN)))
    assert again[0]["search"] != blue[0]["search"], "others were found between"
    assert cards(last(searches.like_whole(None, ANN)))[0]["search"] == again[0]["search"], "its ticks stay"
    for seconds in range(MOST_SEARCHES):
        searches.choose(("green 1.mp4", "red 1.mp4")[seconds % 2], ANN)
        last(searches.like_whole(None, ANN))
    with pytest.raises(gr.Error, match="search again"):
        last(searches.like_hit(None, ANN, pressed(red[0], 0)))
    assert len(searches.visits.of(ANN).found) == MOST_SEARCHES


def test_own_clips_are_searched_and_saved_as_files(searches: Searches, uploads: Path) -> None:
    dropped = [str(uploads / "red 1.mp4"), str(uploads / "more" / "red 2.mp4"), str(uploads / "blue 1.mp4")]
    indexed = last(searches.index(OWN, dropped, ANN))
    assert indexed.example["choices"] == ["blue 1.mp4", "red 1.mp4", "red 2.mp4"]
    chosen = searches.choose_upload(upload(uploads / "green 1.mp4"), ANN)  # not among them
    assert file_at(chosen.player) == uploads / "green 1.mp4"
    found = last(searches.like_whole(None, ANN))
    assert len(cards(found)) == 3
    for update in searches.save(ticked(cards(found)[0], 0, 2), ANN):
        assert not Path(update["value"]).is_relative_to(searches.visits.of(ANN).folder), "Gradio would not copy it"
        with zipfile.ZipFile(update["value"]) as archive:
            names = archive.namelist()
    assert [name[:4] for name in names] == ["0001", "0003"]
    assert all(name.endswith(".mp4") for name in names)
    for wrong in ("", ticked(cards(found)[0]), ticked(cards(found)[0], 7)):
        with pytest.raises(gr.Error, match="Tick the moments"):
            last(searches.save(wrong, ANN))
    for wrong in ("[0]", ticked(cards(found)[0], "x"), '{"search": 99, "moments": [0]}'):
        with pytest.raises(gr.Error, match="search again"):
            last(searches.save(wrong, ANN))
    folder = searches.visits.of(ANN).folder
    stop = searches.visits.of(ANN).stop
    searches.forget(ANN)
    searches.forget(BOB)  # not known
    assert stop.is_set()
    assert not folder.exists()


def test_visitors_are_apart_and_nothing_else_is_read(
    searches: Searches, colours: Path, uploads: Path, tmp_path: Path
) -> None:
    last(searches.index(OWN, [str(uploads / "red 1.mp4")], ANN))
    for wrong in ("red 1.mp4", "../red 1.mp4", "/etc/passwd"):
        refused = searches.choose(wrong, BOB)
        assert "no longer on the server" in headline(refused, "error")
        assert refused.player == ""
    assert "Choose a clip" in headline(last(searches.like_whole(None, BOB)), "error")
    assert "drop it again" in headline(searches.choose_upload(upload(colours / "red 1.mp4"), BOB), "error")
    searches.choose_upload(upload(uploads / "red 1.mp4"), BOB)
    assert "Drop the clips to search in" in headline(last(searches.like_whole(None, BOB)), "error")
    for dropped, words in (
        (None, "Drop some clips"),
        ([str(tmp_path / "gone.mp4")], "drop it again"),
        ([str(colours / "red 1.mp4")], "drop it again"),
        (["x"] * 51, "At most 50"),
    ):
        assert words in headline(last(searches.index(OWN, dropped, BOB)), "error")


def test_links_out_of_the_folder_are_not_read(searches: Searches, colours: Path, tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    shutil.copy(colours / "blue 1.mp4", tmp_path / "private" / "secret.mp4")
    assert searches.root is not None
    (searches.root / "link.mp4").symlink_to(tmp_path / "private" / "secret.mp4")
    (searches.root / "out").symlink_to(tmp_path / "private")
    indexed = last(searches.index(ROOT, None, ANN))
    assert not [name for name in indexed.example["choices"] if "link" in name or "secret" in name]
    # One that becomes a link after it was looked through is not copied either.
    (searches.root / "red 1.mp4").unlink()
    (searches.root / "red 1.mp4").symlink_to(tmp_path / "private" / "secret.mp4")
    refused = searches.choose("red 1.mp4", ANN)
    assert "links are not followed" in headline(refused, "error")
    assert refused.player == ""


def test_a_file_that_becomes_a_link_while_the_folder_is_looked_through_leads_nowhere(
    searches: Searches, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret, is_to_do = Path(shutil.copy(colours / "blue 1.mp4", tmp_path / "secret.mp4")), FeatureFile.is_to_do

    def exchanged(table: FeatureFile, path: str) -> bool:
        """Every file was checked before this is asked, and is opened after it."""
        if Path(path).name == "red 1.mp4":
            Path(path).unlink()
            Path(path).symlink_to(secret)
        return is_to_do(table, path)

    monkeypatch.setattr(FeatureFile, "is_to_do", exchanged)
    indexed = last(searches.index(ROOT, None, ANN))
    assert len(indexed.example["choices"]) == 5
    assert "red 1.mp4" not in indexed.example["choices"]
    assert "2 could not be read" in headline(indexed)


def test_an_example_that_becomes_a_link_leads_nowhere(searches: Searches, colours: Path, tmp_path: Path) -> None:
    assert searches.root is not None
    last(searches.index(ROOT, None, ANN))
    searches.choose("red 1.mp4", ANN)
    secret = Path(shutil.copy(colours / "blue 1.mp4", tmp_path / "secret.mp4"))
    (searches.root / "red 1.mp4").unlink()
    (searches.root / "red 1.mp4").symlink_to(secret)
    last(searches.index(ROOT, None, BOB))  # the table of both has it no more, so that it would be read
    assert "links are not followed" in headline(last(searches.like_whole(None, ANN)), "error")


def test_a_search_says_nothing_over_what_came_after_it(searches: Searches) -> None:
    ready = last(searches.index(ROOT, None, ANN))
    first, second, third = (choice for choice in sorted(ready.example["choices"])[:3])
    searches.choose(first, ANN)
    early = searches.like_whole("", ANN)
    assert next(early).said["state"] == "working"
    searches.choose(second, ANN)  # before it has found anything
    assert list(early) == []
    moments = last(searches.like_whole("", ANN))
    before = searches.previews(ANN)
    next(before)
    searches.choose(third, ANN)
    *_, played = before  # its moments stay on the page, and their previews still come
    assert [card["when"] for card in json.loads(played)] == [card["when"] for card in cards(moments)]
    assert all(card["url"] for card in json.loads(played))
    late = searches.previews(ANN)
    next(late)
    last(searches.like_whole("", ANN))
    assert list(late) == []  # other moments are shown


def test_previews_end_with_the_visit(searches: Searches) -> None:
    ready = last(searches.index(ROOT, None, ANN))
    searches.choose(ready.example["choices"][0], ANN)
    assert list(searches.previews(ANN)) == [], "nothing was found yet"
    last(searches.like_whole("", ANN))
    shown = searches.previews(ANN)
    next(shown)
    searches.forget(ANN)
    assert list(shown) == []


def test_a_stop_keeps_what_is_done(searches: Searches) -> None:
    updates = searches.index(ROOT, None, ANN)
    next(updates)
    searches.stop(ANN)
    assert headline(list(updates)[-1], "stopped").startswith("Stopped: ")
    assert headline(last(searches.index(ROOT, None, ANN))).startswith("6 clips")


def test_old_visits_are_forgotten_with_their_folders() -> None:
    visits = Visits(lambda folder: folder, max_visits=2)
    folders = [visits.of(SimpleNamespace(session_hash=name)) for name in "abc"]
    assert [folder.exists() for folder in folders] == [False, True, True]
    assert len({folder.parent for folder in folders}) == 1
    assert len(private_folder().name) >= 20, "unguessable"
    (folders[1] / "clip.mp4").write_bytes(b"one")
    assert visit_folders.put_in(folders[2], folders[1] / "clip.mp4").name == "clip.mp4"
    assert visit_folders.put_in(folders[2], folders[1] / "clip.mp4").name == "clip 2.mp4"


@pytest.mark.slow
def test_more_like_the_moment_in_the_player(
    searches: Searches, recognizer: Recognizer, colours: Path, tmp_path: Path
) -> None:
    recognition = Recognition({"tiny": recognizer})
    similar = Similar(recognition, searches)
    upload = Path(shutil.copy(colours / "red 1.mp4", private_folder()))
    begun = recognition.begin("ann", upload, How("tiny"), 1)
    assert begun is not None
    asked: Any = gr.EventData(None, {"run": begun["run"], "seconds": 0.5})
    tabs, _, player, *_, seconds = similar.open(ANN, asked)
    assert (tabs.selected, file_at(player), seconds) == ("search", upload, 0.5)
    updates = list(similar.find(seconds, ANN))
    told = [one for one in updates if "headline" in one.said]
    looked = [one.said["headline"] for one in told]
    assert "6 clips can be searched" in looked, "the offered folder is looked through first"
    shown = told[-1]
    assert "like red 1.mp4, at 0:0" in headline(shown)
    searches.visits.of(ANN).example = colours / "red 1.mp4"
    expected = last(searches.like_moment(0.5, "", ANN))
    assert [card["name"] for card in cards(shown)] == [card["name"] for card in cards(expected)]
    assert cards(shown)[0]["name"] in ("red 1.mp4", "more/red 2.mp4")
    similar.open(ANN, asked)
    again = list(similar.find(seconds, ANN))
    assert "6 clips can be searched" not in str([one.said for one in again]), "it is looked through once"
    with pytest.raises(gr.Error, match="no longer on the server"):
        similar.open(BOB, asked)


def test_without_an_offered_folder_the_visitor_is_asked_what_to_search_in(
    recognizer: Recognizer, colours: Path
) -> None:
    recognition, searches = Recognition({"tiny": recognizer}), Searches(recognizer)
    upload = Path(shutil.copy(colours / "red 1.mp4", private_folder()))
    begun = recognition.begin("ann", upload, How("tiny"), 1)
    assert begun is not None
    asked: Any = gr.EventData(None, {"run": begun["run"], "seconds": 0.5})
    similar = Similar(recognition, searches)
    similar.open(ANN, asked)
    assert headline(last(similar.find(0.5, ANN))).startswith(texts_more.KEEP["similar_where"])
    others = [Path(shutil.copy(colours / "more" / f"{name} 2.mp4", private_folder())) for name in COLOURS]
    last(searches.index(OWN, [str(path) for path in others], ANN))
    found = last(searches.like_moment(0.5, "", ANN))
    assert cards(found)[0]["name"] == "red 2.mp4", "the clip of the player is still the example"
