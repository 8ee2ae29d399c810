"""The API as programs use it, and what must not be had through it."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from serving import Server, files_of

from nonlocal_video.app.messages import GONE
from nonlocal_video.inference.prediction import SECONDS_FIELDS, VIDEO_FIELDS
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.inference.timeline_files import to_json
from nonlocal_video.video.decode import VideoReader

SECRET = "a secret of the server"


@pytest.fixture(scope="module")
def client(small_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with_files = tmp_path_factory.mktemp("downloads")
    client = Client(small_server.url, verbose=False, download_files=str(with_files), analytics_enabled=False)
    yield client
    client.close()


def test_endpoints_are_documented(client: Client) -> None:
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert list(endpoints) == ["/classify", "/explain", "/timeline"]
    names = {
        name: [given["parameter_name"] for given in endpoint["parameters"]] for name, endpoint in endpoints.items()
    }
    assert names["/classify"] == ["clip", "model", "views", "top_k", "region"]
    assert names["/explain"][:4] == ["clip", "model", "fast", "method"]
    assert names["/explain"][-1] == "region"
    assert names["/timeline"] == [
        "clip",
        "model",
        "fast",
        "window_seconds",
        "stride_seconds",
        "threshold",
        "min_seconds",
        "top_k",
        "region",
    ]
    for endpoint in endpoints.values():
        required = [given["parameter_name"] for given in endpoint["parameters"] if not given["parameter_has_default"]]
        assert required == ["clip"]
    assert all("clip" in endpoint["description"] for endpoint in endpoints.values())


@pytest.mark.slow
def test_a_region_can_be_looked_at_alone(client: Client, recognizer: Recognizer, clip_folder: Path) -> None:
    """The last argument of all three; callers that leave it out look at the whole picture."""
    clip, region = clip_folder / "a.mp4", "0.25,0,1,0.75"
    expected = recognizer.classify(clip, region=region).to_row(3)
    row = client.predict(handle_file(clip), top_k=3, region=region, api_name="/classify")
    assert (row["top"], row["notes"]) == (expected["top"], expected["notes"])
    explained, _ = client.predict(handle_file(clip), region=region, api_name="/explain")
    assert explained["prediction"]["notes"] == expected["notes"]
    assert all(place["x"] > 0.25 and place["y"] < 0.75 for place in explained["strongest"])
    timeline = client.predict(handle_file(clip), region=region, api_name="/timeline")
    assert timeline["notes"][-1] == expected["notes"][-1]
    with pytest.raises(AppError, match="should be X0,Y0,X1,Y1"):
        client.predict(handle_file(clip), region="left half", api_name="/classify")


def test_classify_gives_the_row_of_the_command_line(client: Client, recognizer: Recognizer, clip_folder: Path) -> None:
    row = client.predict(handle_file(clip_folder / "a.mp4"), top_k=3, api_name="/classify")
    expected = recognizer.classify(clip_folder / "a.mp4").to_row(3)
    assert row["file"] == "a.mp4"
    assert [scored["label"] for scored in row["top"]] == [scored["label"] for scored in expected["top"]]
    assert [scored["score"] for scored in row["top"]] == pytest.approx([scored["score"] for scored in expected["top"]])
    assert (row["status"], row["model"], row["error"]) == ("ok", "tiny", None)
    assert [*row][1:] == [*expected][1:], "all keys, and path is called file"
    assert row["video"] == {name: expected["video"][name] for name in VIDEO_FIELDS}
    assert list(row["seconds"]) == list(SECONDS_FIELDS)


def test_classify_views(client: Client, recognizer: Recognizer, clip_folder: Path) -> None:
    for views, how in (("fast", {"fast": True}), ("3x1", {"views": "3x1"})):
        row = client.predict(handle_file(clip_folder / "a.mp4"), views=views, api_name="/classify")
        best = recognizer.classify(clip_folder / "a.mp4", **how).top(1)[0]
        assert row["top"][0]["score"] == pytest.approx(best.score)


def test_a_bad_clip_is_a_row_with_an_error(client: Client, small_server: Server, clip_folder: Path) -> None:
    row = client.predict(handle_file(clip_folder / "b" / "note.mp4"), api_name="/classify")
    assert (row["status"], row["error"]["code"], row["top"]) == ("error", "not_a_video", [])
    assert str(small_server.temporary) not in json.dumps(row)


def test_explain_a_point(client: Client, recognizer: Recognizer, clip_folder: Path) -> None:
    explained, overlay = client.predict(
        handle_file(clip_folder / "a.mp4"), query_seconds=0.9, query_x=0.5, query_y=0.25, api_name="/explain"
    )
    expected = recognizer.explain(clip_folder / "a.mp4", query=(0.9, 0.5, 0.25))
    assert explained["method"] == "query"
    assert explained["query"] == {"seconds": 0.9, "x": 0.5, "y": 0.25}
    assert explained["entropy_nats"] == pytest.approx(expected.entropy_nats)
    assert [place["x"] for place in explained["strongest"]] == [place.x for place in expected.strongest(5)]
    assert explained["prediction"]["file"] == "a.mp4"
    with VideoReader() as reader:
        assert (reader.probe(overlay).codec, reader.probe(overlay).num_frames) == ("h264", len(expected))


def test_explain_the_evidence_for_a_label(client: Client, clip_folder: Path) -> None:
    explained, _ = client.predict(handle_file(clip_folder / "a.mp4"), label="action 2", api_name="/explain")
    assert (explained["method"], explained["entropy_nats"]) == ("evidence", None)


def test_timeline_is_the_json_of_the_command_line(client: Client, recognizer: Recognizer, clip_folder: Path) -> None:
    how = {"window_seconds": 0.6, "stride_seconds": 0.4}
    rule = {"threshold": 0.3, "min_seconds": 0.5, "top_k": 2}
    given = client.predict(handle_file(clip_folder / "a.mp4"), **how, **rule, api_name="/timeline")
    expected = to_json(recognizer.timeline(clip_folder / "a.mp4", **how), **rule)
    for row in (given, expected):
        del row["seconds"]
    assert given.pop("file") == "a.mp4"
    del expected["path"]
    assert json.loads(json.dumps(given)) == json.loads(json.dumps(expected))
    assert len(given["windows"]) == 5


@pytest.mark.parametrize(
    ("clip", "how", "message"),
    [
        ("a.mp4", {"threshold": 2.0}, "threshold = 2 should be from 0 to 1"),
        ("a.mp4", {"stride_seconds": 5.0}, "should not exceed the window"),
        ("b/note.mp4", {}, "^note.mp4: it is not a video"),
    ],
)
def test_a_timeline_that_cannot_begin_is_refused(
    client: Client, clip_folder: Path, clip: str, how: dict[str, Any], message: str
) -> None:
    with pytest.raises(AppError, match=message):
        client.predict(handle_file(clip_folder / clip), **how, api_name="/timeline")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"query_seconds": 1.0}, "all three"),
        ({"query_seconds": 1.0, "query_x": 2.0, "query_y": 0.0}, "fractions of the frame"),
        ({"method": "evidence", "label": "cooking"}, "not a class of model"),
        ({"layer": "layer9"}, "not a non-local block"),
        ({"method": "magic"}, "not in the list of choices"),
    ],
)
def test_wrong_arguments_are_said(client: Client, clip_folder: Path, how: dict[str, Any], message: str) -> None:
    with pytest.raises(AppError, match=message):
        client.predict(handle_file(clip_folder / "a.mp4"), **how, api_name="/explain")


def ask_for(small_server: Server, path: str, **how: Any) -> dict[str, Any]:
    """Name a path or an address in place of an upload, past `gradio_client`, which would upload it; what comes back."""
    given = {"path": path, "meta": {"_type": "gradio.FileData"}, **how}
    with httpx.Client(base_url=small_server.url, timeout=60) as http:
        listeners = http.get("/config").json()["dependencies"]
        (classify,) = [listener["id"] for listener in listeners if listener["api_name"] == "classify"]
        visitor = secrets.token_hex(8)
        body = {"data": [given, "tiny", "1x1", 5, ""], "fn_index": classify, "session_hash": visitor}
        assert http.post("/gradio_api/queue/join", json=body).status_code == 200
        with http.stream("GET", "/gradio_api/queue/data", params={"session_hash": visitor}) as stream:
            for line in stream.iter_lines():
                message = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
                if message.get("msg") == "process_completed":
                    return message
    raise AssertionError("there was no answer")


def test_a_raw_post_may_leave_out_what_has_a_default(small_server: Server, clip_folder: Path) -> None:
    """Pass values by name; Gradio wants a list of values whole."""
    with httpx.Client(base_url=small_server.url, timeout=60) as http:
        with (clip_folder / "a.mp4").open("rb") as file:
            (path,) = http.post("/gradio_api/upload", files={"files": ("a.mp4", file)}).json()
        clip = {"path": path, "meta": {"_type": "gradio.FileData"}}
        event = http.post("/gradio_api/call/v2/classify", json={"clip": clip, "top_k": 2}).json()["event_id"]
        answer = http.get(f"/gradio_api/call/classify/{event}").text
    (row,) = json.loads(answer.partition("event: complete\ndata: ")[2].splitlines()[0])
    assert (row["file"], row["status"], len(row["top"])) == ("a.mp4", "ok", 2)


@pytest.fixture(scope="module")
def uploads(client: Client, small_server: Server, clip_folder: Path) -> Path:
    """The server's upload folder, with a file and a link out of it; beside it are a clip and a text of the server's."""
    client.predict(handle_file(clip_folder / "a.mp4"), api_name="/classify")
    (folder,) = {
        small_server.temporary / file.relative_to(small_server.temporary).parts[0]
        for file in files_of(small_server, "a.mp4")
    }
    (small_server.temporary / "private.mp4").write_bytes((clip_folder / "a.mp4").read_bytes())
    (small_server.temporary / "private.txt").write_text(SECRET)
    for name in ("private.mp4", "private.txt"):
        (folder / name).symlink_to(small_server.temporary / name)
    return folder


FORMS = ["{private}", "file://{private}", "{uploads}/../{name}", "{uploads}/x/../../{name}", "{uploads}/{name}"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.slow
def test_no_file_outside_of_the_uploads_is_read(small_server: Server, uploads: Path, form: str) -> None:
    path = form.format(private=small_server.temporary / "private.mp4", uploads=uploads, name="private.mp4")
    ways: list[dict[str, Any]] = [
        {},
        {"is_stream": True},
        {"meta": None},
        {"meta": {}},
        {"url": f"{small_server.url}/gradio_api/file={path}"},
    ]
    for how in ways:
        answer = ask_for(small_server, path, **how)
        assert answer["success"] is False
        assert "action" not in json.dumps(answer)


@pytest.mark.parametrize("name", ["/etc/passwd", "a\0b", "x" * 300, "x" * 5000])
def test_a_name_of_what_was_never_sent_is_refused_in_a_sentence(small_server: Server, name: str) -> None:
    answer = ask_for(small_server, name)
    assert (answer["success"], answer["output"]["error"]) == (False, GONE)
    with httpx.Client(base_url=small_server.url, timeout=60) as http:
        (begin,) = [one for one in http.get("/config").json()["dependencies"] if one["api_name"] == "begin"]
        body = {"data": [None] * len(begin["inputs"]), "fn_index": begin["id"], "session_hash": "never-sent"}
        said = http.post("/gradio_api/run/predict", json=body | {"event_data": {"path": name, "choice": 1}})
    assert said.json()["error"] == GONE


def test_what_was_uploaded_is_read(small_server: Server, uploads: Path) -> None:
    """The check of the check above: a right path gives an answer."""
    clip = next(uploads.rglob("a.mp4"))
    answer = ask_for(small_server, str(clip))
    assert (answer["success"], answer["output"]["data"][0]["status"]) == (True, "ok")


@pytest.mark.parametrize("form", FORMS)
def test_no_file_outside_of_the_uploads_is_served(small_server: Server, uploads: Path, form: str) -> None:
    path = form.format(private=small_server.temporary / "private.txt", uploads=uploads, name="private.txt")
    for route in ("/gradio_api/file=", "/gradio_api/stream/"):
        answer = httpx.get(f"{small_server.url}{route}{path}", timeout=60)
        assert answer.status_code >= 400
        assert SECRET not in answer.text


@pytest.mark.slow
@pytest.mark.parametrize("how", [{}, {"is_stream": True}, {"meta": None}])
def test_the_server_fetches_nothing_from_an_address(small_server: Server, how: dict[str, Any]) -> None:
    answer = ask_for(small_server, "https://example.org/from-afar.mp4", **how)
    assert answer["success"] is False
    assert not list(small_server.temporary.rglob("from-afar.mp4"))
    if not how:
        assert "fetches nothing from an address" in answer["output"]["error"]
