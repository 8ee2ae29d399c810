"""Results that are kept for a while: their addresses, their files, their end."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fastapi
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from nonlocal_video.app.application import create_app
from nonlocal_video.app.callbacks.recognise import Recognition
from nonlocal_video.app.cleanup import clean_up
from nonlocal_video.app.components.heat import packed
from nonlocal_video.app.results.routes import GONE, add_result_routes
from nonlocal_video.app.results.store import ResultGoneError, Results, ResultsFullError
from nonlocal_video.app.visits import How
from nonlocal_video.inference.explanation import Explanation
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.video.decode import VideoReader
from nonlocal_video.video.encode import write_video

MakeResults = Callable[..., Results]


@pytest.fixture
def clock() -> list[float]:
    return [1000.0]


@pytest.fixture
def make(clock: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeResults]:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    made: list[Results] = []

    def make(**how: Any) -> Results:
        made.append(Results(now=lambda: clock[0], **how))
        return made[-1]

    yield make
    for results in made:
        results.close()


def test_a_result_that_is_deleted_while_its_film_is_written_is_gone(
    make: MakeResults, explanation: Explanation, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = make()
    id = keep(results, explanation)
    folder = results.get(id).folder

    def write(path: Path, frames: Iterator[Any], *, fps: float) -> None:
        def and_delete() -> Iterator[Any]:
            yield from frames
            shutil.rmtree(folder)

        write_video(path, and_delete(), fps=fps)

    monkeypatch.setattr("nonlocal_video.app.results.files.write_video", write)
    (name,) = (file for file in results.get(id).files if file == "clip.mp4")
    with pytest.raises(ResultGoneError):
        results.file(id, name)


def keep(results: Results, explanation: Explanation) -> str:
    id = results.keep(explanation.prediction)
    results.add_maps(id, explanation)
    return id


def test_a_result_has_every_file_that_it_names(make: MakeResults, explanation: Explanation, tmp_path: Path) -> None:
    results = make()
    id = results.keep(explanation.prediction)
    assert len(id) >= 22, "128 bits"
    assert results.get(id).files == ["result.json"], "the scores are there before the maps"
    results.add_maps(id, explanation)
    kept = results.get(id)
    assert kept.maps == ("evidence", "attention")
    paths = {name: results.file(id, name) for name in kept.files}
    assert all(path.is_relative_to(tmp_path) for path in paths.values()), "the cleaner applies"
    row = json.loads(paths["result.json"].read_text("utf-8"))
    assert row == explanation.prediction.to_row() | {"path": "a.mp4"}
    with VideoReader() as reader:
        for name in ("clip.mp4", "evidence.mp4", "attention.mp4"):
            info = reader.probe(str(paths[name]))
            assert (info.codec, info.num_frames) == ("h264", len(explanation.frame_of_time))
    for name in ("evidence.gif", "attention.webp", "evidence.png", "thumbnail.jpg"):
        with Image.open(paths[name]) as image:
            assert f".{image.format.lower()}".replace("jpeg", "jpg") == paths[name].suffix
    with zipfile.ZipFile(paths["all.zip"]) as archive:
        assert archive.testzip() is None
        assert {*archive.namelist()} == {f"a {name}" for name in kept.files} - {"a all.zip", "a thumbnail.jpg"}


@pytest.mark.parametrize("name", ["../result.json", "maps.zip", "/etc/passwd", "evidence.avi", "", "part-clip.mp4"])
def test_other_files_are_not_there(make: MakeResults, explanation: Explanation, name: str) -> None:
    results = make()
    id = keep(results, explanation)
    with pytest.raises(ResultGoneError):
        results.file(id, name)


def test_a_result_ends_with_its_time_or_by_deletion_unless_it_is_saved(
    make: MakeResults, explanation: Explanation, clock: list[float], tmp_path: Path
) -> None:
    results = make(keep_seconds=60)
    passing, saved, deleted, swept = (keep(results, explanation) for _ in range(4))
    results.save(saved)
    results.save(saved)
    results.delete(deleted)
    assert [kept.id for kept in results.existing([saved, "x", deleted, passing])] == [saved, passing]
    clock[0] += 61
    for id in (passing, deleted):
        with pytest.raises(ResultGoneError):
            results.get(id)
    clean_up(tmp_path, set(), older_than_seconds=-1)
    clock[0] -= 61
    with pytest.raises(ResultGoneError):
        results.get(swept)  # the cleaner had it
    assert results.file(saved, "evidence.mp4").is_file()
    results.add_maps(deleted, explanation)  # a deletion while the maps are made
    assert len(results) == 1
    results.delete(saved)
    assert not any(path.is_file() for path in tmp_path.rglob("*"))
    assert keep(results, explanation), "after the cleaner has removed the empty folder"


def test_number_and_size_are_bounded_and_the_oldest_go_first(make: MakeResults, explanation: Explanation) -> None:
    results = make(max_results=4)
    ids = [results.keep(explanation.prediction) for _ in range(4)]
    results.save(ids[0])
    results.save(ids[1])
    with pytest.raises(ResultsFullError):
        results.save(ids[2])
    last = results.keep(explanation.prediction)
    assert [kept.id for kept in results.existing([*ids, last])] == [ids[0], ids[1], ids[3], last]

    one = make()
    id = keep(one, explanation)
    size = sum(path.stat().st_size for path in one.get(id).folder.iterdir())
    results = make(max_bytes=int(2.5 * size))
    ids = [keep(results, explanation) for _ in range(3)]
    assert [kept.id for kept in results.existing(ids)] == ids[1:]
    results.file(ids[2], "all.zip")
    assert [kept.id for kept in results.existing(ids)] == ids[2:], "files that are made later count"


def test_the_page_of_a_result(make: MakeResults, explanation: Explanation) -> None:
    app, results = fastapi.FastAPI(), make()
    add_result_routes(app, results)
    client = TestClient(app)
    prediction = replace(explanation.prediction, path='/secret/<b>&"clip.mp4')
    id = results.keep(prediction)
    assert "not ready yet" in client.get(f"/r/{id}").text
    results.add_maps(id, explanation)
    page = client.get(f"/r/{id}")
    assert page.status_code == 200
    assert "secret" not in page.text + json.dumps(dict(page.headers))
    assert "<b>" not in page.text
    assert page.headers["referrer-policy"] == "no-referrer"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for scored in prediction.top(5):
        assert scored.label in page.text
    named = {*re.findall(rf'"/r/{id}/([^"]+)"', page.text)}
    shown_by_the_player = {"clip.mp4", "thumbnail.jpg"}
    assert named == {*results.get(id).files} - shown_by_the_player, "every file has its link"
    assert all(client.get(f"/r/{id}/{name}").status_code == 200 for name in named)
    answer = client.get(f"/r/{id}/answer.json").json()
    assert (answer["result"], answer["top"][0][0], answer["name"]) == (id, prediction.top1.label, '<b>&"clip.mp4')
    assert answer["player"]["maps"]["evidence"] == packed(
        explanation.class_evidence(), legend=answer["player"]["maps"]["evidence"]["legend"], label=prediction.top1.label
    )
    assert answer["player"]["seconds"] == pytest.approx(explanation.seconds.tolist(), abs=1e-3)
    assert client.get(answer["player"]["file"]["url"]).status_code == 200
    part = client.get(f"/r/{id}/evidence.mp4", headers={"Range": "bytes=4-7"})
    assert (part.status_code, part.content) == (206, b"ftyp"), "a player can seek"
    asked = client.get("/r", params={"ids": f"{id},x"}).json()
    best = prediction.top1
    assert asked == [{"id": id, "name": '<b>&"clip.mp4', "label": best.label, "score": best.score}]

    assert client.post(f"/r/{id}/save").status_code == 204
    assert "unless you keep it" not in client.get(f"/r/{id}").text
    assert client.delete(f"/r/{id}").status_code == 204
    gone = client.get(f"/r/{id}")
    assert (gone.status_code, gone.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert GONE in gone.text
    for method, path in (("GET", f"/r/{id}/evidence.mp4"), ("DELETE", f"/r/{id}"), ("POST", f"/r/{id}/save")):
        answer = client.request(method, path)
        assert (answer.status_code, answer.json()["message"]) == (404, GONE)


def test_no_answer_of_a_result_names_a_path(make: MakeResults, explanation: Explanation, tmp_path: Path) -> None:
    """Neither the page, nor a download, its headers and its parts, nor what is said of a result that is gone."""
    app, results = fastapi.FastAPI(), make()
    add_result_routes(app, results)
    client = TestClient(app)
    id = keep(results, replace(explanation, prediction=replace(explanation.prediction, path="/secret/folder/a b.mp4")))
    names = [*results.get(id).files, "answer.json"]
    paths = [f"/r/{id}", f"/r?ids={id}", *(f"/r/{id}/{name}" for name in names)]
    others = [
        "..%2fresult.json",
        "%2e%2e",
        "maps.zip",
        "part-clip.mp4",
        "x" * 5000,
        "%00",
        "result.json%00",
        "a%0d%0ab",
    ]
    answers = [client.get(path) for path in paths]
    assert {answer.status_code for answer in answers} == {200}
    answers += [client.get(f"/r/{id}/{name}") for name in others]
    answers += [client.get(f"/r/{id}/clip.mp4", headers={"Range": each}) for each in ("bytes=9-", "bytes=x", "x")]
    with zipfile.ZipFile(io.BytesIO(client.get(f"/r/{id}/all.zip").content)) as archive:
        inside = [archive.read(name) for name in archive.namelist()]
        assert all(name.startswith("a b ") for name in archive.namelist())
    answers += [client.post(f"/r/{id}/save"), client.get(f"/r/{id}"), client.delete(f"/r/{id}"), client.get(f"/r/{id}")]
    answers += [client.get(path) for path in paths]
    told = [*inside, *(answer.content for answer in answers), *(str(answer.headers).encode() for answer in answers)]
    private = ["/secret", "folder", str(tmp_path), *(part for part in Path(tempfile.gettempdir()).parts if part != "/")]
    assert not [(word, one[:200]) for word in private for one in told if word.encode() in one]


def test_a_result_is_behind_the_login_and_other_sites_get_nothing(
    recognizer: Recognizer, explanation: Explanation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    app = create_app([recognizer], auth=("ann", "secret"))
    client = TestClient(app, base_url="http://127.0.0.1")
    id = app.state.results.keep(explanation.prediction)
    asked = [("GET", f"/r/{id}"), ("GET", f"/r/{id}/result.json"), ("GET", f"/r?ids={id}"), ("POST", f"/r/{id}/save")]
    for method, path in [*asked, ("DELETE", f"/r/{id}")]:
        assert client.request(method, path).status_code == 401
    browser = client.get(f"/r/{id}", headers={"Accept": "text/html,*/*"}, follow_redirects=False)
    assert (browser.status_code, browser.headers["location"]) == (303, f"/?result={id}"), "there is the sign-in"
    password = {"Authorization": f"Basic {base64.b64encode(b'ann:secret').decode()}"}
    foreign = {"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"}
    for method, path in [("POST", f"/r/{id}/save"), ("DELETE", f"/r/{id}")]:
        assert client.request(method, path, headers=password | foreign).status_code == 403
    assert client.get(f"/r/{id}", headers=password | {"Host": "evil.example"}).status_code == 403
    assert client.get(f"/r/{id}", headers=password).status_code == 200
    assert client.delete(f"/r/{id}", headers=password).status_code == 204


def test_an_answer_has_its_link_with_the_scores(make: MakeResults, recognizer: Recognizer, clip_folder: Path) -> None:
    results = make()
    recognition = Recognition({"tiny": recognizer}, results)
    recognition.begin("ann", clip_folder / "a.mp4", How("tiny", "3x1"), 1)
    first, last = recognition.run("ann")
    assert first["result"] == last["result"]
    kept = results.get(first["result"])
    assert [[one["label"], round(one["score"], 4)] for one in kept.row["top"]] == first["top"]
    deadline = time.monotonic() + 60
    while not results.get(kept.id).maps and time.monotonic() < deadline:
        time.sleep(0.05)
    assert results.get(kept.id).maps == ("evidence", "attention")
    assert results.get(kept.id).words == ""

    recognition.begin("ann", clip_folder / "a.mp4", How("tiny"), 2)
    run = recognition.run("ann")
    left = next(run)["result"]
    run.close()  # another clip has come
    assert "stopped" in results.get(left).words, "its page does not wait for ever"
