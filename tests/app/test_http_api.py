"""The plain HTTP API: a clip in, an answer out."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastapi
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient
from pressing import choose

from nonlocal_video.app import http_jobs
from nonlocal_video.app.application import create_app
from nonlocal_video.app.http_api import HttpApi
from nonlocal_video.app.http_errors import STATUS_OF_CLIP_ERROR, api_error
from nonlocal_video.app.http_routes import add_http_api
from nonlocal_video.app.jobs import Jobs
from nonlocal_video.app.turns import Turns
from nonlocal_video.errors import ERROR_CODES, DeviceError, OutputError
from nonlocal_video.features.extract import extract_features
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.inference.timeline_files import to_json
from nonlocal_video.video.decode import VideoReader

ADDRESS = "http://127.0.0.1"
WITHIN_SECONDS = 60


@pytest.fixture(scope="module")
def told() -> list[tuple[str, Any]]:
    """Bodies that webhooks got."""
    return []


@pytest.fixture(scope="module")
def client(recognizer: Recognizer, clip_folder: Path, told: list[tuple[str, Any]]) -> Iterator[TestClient]:
    """The API alone, which offers a folder."""
    jobs = Jobs(max_waiting=3, keep_seconds=600, post=lambda *what: told.append(what))
    app = fastapi.FastAPI(openapi_url=None, title="nonlocal-video", version="0")
    api = HttpApi(
        {"tiny": recognizer},
        Turns(2),
        jobs,
        max_upload_bytes=100_000,
        folder_root=clip_folder,
        webhook_hosts=["hooks.example"],
    )
    add_http_api(app, api)
    with TestClient(app, base_url=ADDRESS) as client:
        yield client
        client.portal.call(jobs.close)


def post(client: TestClient, route: str, clip: Path, **form: Any) -> Any:
    with clip.open("rb") as file:
        return client.post(f"/v1/{route}", files={"file": (clip.name, file)}, data=form)


def ended(client: TestClient, job: dict[str, Any]) -> dict[str, Any]:
    deadline = time.monotonic() + WITHIN_SECONDS
    while job["status"] in ("waiting", "running") and time.monotonic() < deadline:
        time.sleep(0.02)
        job = client.get(f"/v1/jobs/{job['id']}").json()
    return job


def without_seconds(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "seconds"}


@pytest.mark.parametrize(
    ("form", "how"),
    [
        ({}, {}),
        ({"views": "3x1", "context": "none"}, {"views": "3x1"}),
        ({"views": "fast", "model": "tiny"}, {"fast": True}),
        ({"region": "0.25,0,1,0.75"}, {"region": "0.25,0,1,0.75"}),
    ],
)
def test_classify_answers_with_the_row_of_the_command_line(
    client: TestClient, recognizer: Recognizer, clip_folder: Path, form: dict[str, Any], how: dict[str, Any]
) -> None:
    response = post(client, "classify", clip_folder / "a.mp4", top_k=3, **form)
    expected = recognizer.classify(clip_folder / "a.mp4", **how).to_row(3) | {"path": "a.mp4"}
    assert response.status_code == 200
    assert list(response.json()) == list(expected)
    assert list(response.json()["seconds"]) == list(expected["seconds"])
    assert without_seconds(response.json()) == without_seconds(expected)


def test_a_file_of_the_offered_folder_is_named(client: TestClient, recognizer: Recognizer, clip_folder: Path) -> None:
    row = client.post("/v1/classify", files={"path": (None, "b/c.mp4")}).json()
    assert row["path"] == "b/c.mp4"
    assert row["top"] == recognizer.classify(clip_folder / "b" / "c.mp4").to_row()["top"]


@pytest.mark.parametrize(
    "path", ["../a.mp4", "/etc/passwd", "b/../../a.mp4", "b//c.mp4", "", ".", "b/", "a\0.mp4", "x" * 5000]
)
def test_no_other_path_is_read(client: TestClient, path: str) -> None:
    response = client.post("/v1/classify", files={"path": (None, path)})
    assert response.status_code == 422
    assert re.search("below the server's folder|either file", response.json()["message"])
    assert len(response.text) < 400


@pytest.mark.parametrize("path", ["no.mp4", "b", "b/c.mp4/x", "link.mp4", "linked/c.mp4"])
def test_what_is_no_file_of_the_folder_is_not_found(client: TestClient, clip_folder: Path, path: str) -> None:
    links = {"link.mp4": "a.mp4", "linked": "b"}
    for name, target in links.items():
        (clip_folder / name).symlink_to(target)
    try:
        response = client.post("/v1/classify", files={"path": (None, path)})
    finally:
        for name in links:
            (clip_folder / name).unlink()
    assert (response.status_code, response.json()["code"]) == (404, "not_found")


def test_errors_of_clips_have_their_status(client: TestClient, clip_folder: Path, tmp_path: Path) -> None:
    response = post(client, "classify", clip_folder / "b" / "note.mp4")
    assert (response.status_code, response.json()["code"]) == (415, "not_a_video")
    assert response.json()["message"].startswith("note.mp4: ")
    (tmp_path / "large.mp4").write_bytes(b"\0" * 100_001)
    response = post(client, "classify", tmp_path / "large.mp4")
    assert (response.status_code, response.json()["code"]) == (413, "too_large")
    assert {*STATUS_OF_CLIP_ERROR} == {*ERROR_CODES}


@pytest.mark.parametrize(
    ("route", "form", "message"),
    [
        ("classify", {"topk": "3"}, "topk: Extra inputs"),
        ("classify", {"top_k": "0"}, "top_k: Input should be greater than or equal to 1"),
        ("classify", {"views": "2x2"}, "should be CLIPSxCROPS"),
        ("classify", {"views": "999x3"}, "at most 30 in all"),
        ("classify", {"model": "other"}, "model = 'other' should be one of tiny"),
        ("classify", {"region": "left"}, "should be X0,Y0,X1,Y1"),
        ("classify", {"path": "a.mp4"}, "either file"),
        ("classify", {"context": "folder"}, "context: Input should be 'none'"),
        ("explain", {"query": "1,2"}, "query"),
        ("explain", {"query": "0.5,2,0"}, "fractions of the frame"),
        ("explain", {"label": "cooking", "method": "evidence"}, "cooking"),
        ("explain", {"layer": "layer9"}, "not a non-local block"),
        ("timeline", {"threshold": "2"}, "threshold = 2"),
        ("features", {"top_k": "5"}, "top_k"),
        ("timeline", {"stride_seconds": "-1"}, "stride_seconds: Input should be greater than 0"),
        ("timeline", {"webhook": "http://127.0.0.1/"}, "--allow-webhook HOST.*: hooks.example"),
        ("timeline", {"webhook": "file://hooks.example/x"}, "--allow-webhook"),
        ("timeline", {"webhook": "http://hooks.example@127.0.0.1/"}, "--allow-webhook"),
        ("timeline", {"webhook": "http://[hooks.example/"}, "--allow-webhook"),
    ],
)
def test_wrong_settings_are_said(
    client: TestClient, clip_folder: Path, route: str, form: dict[str, str], message: str
) -> None:
    response = post(client, route, clip_folder / "a.mp4", **form)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_argument")
    assert re.search(message, response.json()["message"])
    assert list(response.json()) == ["code", "message"]


@pytest.mark.parametrize(
    ("route", "field"),
    [
        *(("classify", field) for field in ("model", "region", "views")),
        *(("explain", field) for field in ("query", "label", "layer", "method")),
        ("timeline", "webhook"),
        ("classify", "x" * 3000),  # a field that does not exist
    ],
)
def test_long_settings_are_refused_and_not_repeated(
    client: TestClient, clip_folder: Path, route: str, field: str
) -> None:
    response = post(client, route, clip_folder / "a.mp4", **{field: "1," * 300_000})
    assert response.status_code == 422
    assert field[:20] in response.json()["message"]
    assert len(response.text) < 400


@pytest.mark.parametrize("name", ["x" * 300, "..", "a\0b"])
def test_a_name_that_no_file_can_have(client: TestClient, clip_folder: Path, name: str) -> None:
    body = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="' + name.encode() + b'"\r\n\r\n1\r\n--x--\r\n'
    )
    response = client.post("/v1/classify", content=body, headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert response.status_code in (400, 422)
    assert len(response.json()["message"]) < 200


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{}", "application/json", 415),
        (b"", "", 415),
        (b"rubbish", "multipart/form-data; boundary=x", 400),
        (b"rubbish", "multipart/form-data", 400),
        (b"--x\r\n\r\n", "multipart/form-data; boundary=x", 400),
        (b"--x--\r\n", "multipart/form-data; boundary=x", 422),
    ],
)
def test_a_body_that_is_no_form(client: TestClient, content: bytes, kind: str, status: int) -> None:
    response = client.post("/v1/classify", content=content, headers={"Content-Type": kind})
    assert response.status_code == status
    assert list(response.json()) == ["code", "message"]


def test_a_second_file_is_refused_before_it_is_kept(client: TestClient) -> None:
    files = [("file", ("a.mp4", b"1")), ("file", ("b.mp4", b"2"))]
    response = client.post("/v1/classify", files=files)
    assert (response.status_code, response.json()["code"]) == (400, "invalid_request")
    assert "Too many files" in response.json()["message"]


def test_a_full_disk_is_said(client: TestClient, clip_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nonlocal_video.app.received.shutil.copyfileobj", full)
    response = post(client, "classify", clip_folder / "a.mp4")
    assert (response.status_code, response.json()["code"]) == (503, "disk_full")
    assert response.headers["retry-after"] == "10"
    in_words = OutputError("'film.mp4' cannot be written")
    in_words.__cause__ = OSError(28, "No space left on device")
    assert (api_error(in_words).status, api_error(in_words).code) == (503, "disk_full")
    assert api_error(OutputError("'film.mp4' cannot be written")).code == "internal"


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (DeviceError("an illegal access at 0x7f"), 503, "device_failed"),
        (RuntimeError("/secret/path"), 500, "internal"),
    ],
)
def test_errors_inside_are_not_told(
    client: TestClient,
    recognizer: Recognizer,
    clip_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    status: int,
    code: str,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(recognizer, "classify", fail)
    response = post(client, "classify", clip_folder / "a.mp4")
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert str(error) not in response.text


def test_nothing_of_a_clip_is_left(
    client: TestClient, clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert post(client, "classify", clip_folder / "a.mp4").status_code == 200
    assert post(client, "classify", clip_folder / "b" / "note.mp4").status_code == 415
    assert list(tmp_path.iterdir()) == []


def test_explain_a_point(client: TestClient, recognizer: Recognizer, clip_folder: Path) -> None:
    explained = post(client, "explain", clip_folder / "a.mp4", query="0.9,0.5,0.25", top_k=2).json()
    expected = recognizer.explain(clip_folder / "a.mp4", query=(0.9, 0.5, 0.25))
    assert (explained["method"], explained["query"]) == ("query", {"seconds": 0.9, "x": 0.5, "y": 0.25})
    assert explained["entropy_nats"] == pytest.approx(expected.entropy_nats)
    assert [place["x"] for place in explained["strongest"]] == [place.x for place in expected.strongest(5)]
    assert (explained["prediction"]["path"], len(explained["prediction"]["top"])) == ("a.mp4", 2)


def test_explain_with_the_overlay(
    client: TestClient, recognizer: Recognizer, clip_folder: Path, tmp_path: Path
) -> None:
    response = post(client, "explain", clip_folder / "a.mp4", output="overlay", label="action 2")
    assert response.headers["content-type"] == "video/mp4"
    (tmp_path / "overlay.mp4").write_bytes(response.content)
    with VideoReader() as reader:
        seen = reader.probe(tmp_path / "overlay.mp4")
    assert (seen.codec, seen.num_frames) == ("h264", len(recognizer.explain(clip_folder / "a.mp4", label="action 2")))


def test_a_timeline_is_a_job_with_the_object_of_the_command_line(
    client: TestClient, recognizer: Recognizer, clip_folder: Path, told: list[tuple[str, Any]]
) -> None:
    how = {"window_seconds": 0.6, "stride_seconds": 0.4, "context": "none"}
    rule = {"threshold": 0.3, "min_seconds": 0.5, "top_k": 2}
    hook = "https://hooks.example/done"
    response = post(client, "timeline", clip_folder / "a.mp4", **how, **rule, webhook=hook)
    assert response.status_code == 202
    assert response.headers["location"] == f"/v1/jobs/{response.json()['id']}"
    job = ended(client, response.json())
    expected = to_json(recognizer.timeline(clip_folder / "a.mp4", **how), **rule) | {"path": "a.mp4"}
    assert (job["status"], job["error"], job["progress"]) == ("done", None, {"done": 5, "planned": 5})
    assert without_seconds(job["result"]) == without_seconds(expected)
    deadline = time.monotonic() + WITHIN_SECONDS
    while not told and time.monotonic() < deadline:
        time.sleep(0.02)
    assert told == [(hook, job)]


def test_features_are_a_job_with_the_rows_of_the_command_line(
    client: TestClient, recognizer: Recognizer, clip_folder: Path, tmp_path: Path
) -> None:
    extract_features(recognizer, clip_folder / "a.mp4", output=tmp_path / "t.parquet", stride_seconds=0.2)
    expected = [row | {"path": "a.mp4"} for row in pq.read_table(tmp_path / "t.parquet").to_pylist()]
    response = post(client, "features", clip_folder / "a.mp4", stride_seconds=0.2)
    assert response.status_code == 202
    job = ended(client, response.json())
    assert (job["kind"], job["status"], job["result"]["status"]) == ("features", "done", "ok")
    rows = job["result"]["rows"]
    assert [list(row) for row in rows] == [list(row) for row in expected]
    for row, wanted in zip(rows, expected, strict=True):
        assert row.pop("feature") == pytest.approx(wanted.pop("feature"), rel=1e-5, abs=1e-4)
        assert row == wanted
    assert job["progress"] == {"done": len(rows), "planned": len(rows)}
    failed = ended(client, post(client, "features", clip_folder / "b" / "note.mp4").json())
    assert (failed["status"], failed["error"]["code"]) == ("failed", "not_a_video")


def test_features_of_too_many_windows_are_refused(
    client: TestClient, clip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_jobs, "MAX_FEATURE_WINDOWS", 2)
    job = ended(client, post(client, "features", clip_folder / "a.mp4", stride_seconds=0.1).json())
    assert (job["status"], job["error"]["code"]) == ("failed", "too_long")
    assert "take a longer stride_seconds" in job["error"]["message"]


def test_a_timeline_that_cannot_begin_fails_with_a_reason(client: TestClient, clip_folder: Path) -> None:
    job = ended(client, post(client, "timeline", clip_folder / "b" / "note.mp4").json())
    assert (job["status"], job["error"]["code"], job["result"]) == ("failed", "not_a_video", None)
    assert job["error"]["message"].startswith("note.mp4: ")


def test_an_unknown_job(client: TestClient) -> None:
    for method in ("GET", "DELETE"):
        response = client.request(method, "/v1/jobs/..%2f..%2fetc%2fpasswd")
        assert response.status_code == 404
        response = client.request(method, "/v1/jobs/none")
        assert response.json()["code"] == "not_found"
        assert "forgotten 10 minutes after" in response.json()["message"]


def test_routes_that_are_not_there(client: TestClient) -> None:
    response = client.get("/v1/classify")
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    assert client.put("/v1/jobs/x").headers["allow"] == "DELETE, GET"
    response = client.get("/v1/nothing")
    assert (response.status_code, response.json()["code"]) == (404, "not_found")
    response = client.request("FOO", "/v1/jobs/x")
    assert (response.status_code, response.json()["code"]) == (405, "method_not_allowed")


def test_the_document_has_whole_paths_and_the_page_names_no_other_host(client: TestClient) -> None:
    document = client.get("/v1/openapi.json").json()
    assert {"/v1/classify", "/v1/explain", "/v1/timeline", "/v1/features", "/v1/jobs/{id}"} == {*document["paths"]}
    form = document["paths"]["/v1/classify"]["post"]["requestBody"]["content"]
    assert list(form) == ["multipart/form-data"]
    page = client.get("/v1/docs")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert not re.findall(r"https?://|<script|src=", page.text)
    for words in ("POST /v1/classify", "top_k", "region", "GET /v1/jobs/{id}", "503"):
        assert words in page.text


class Held:
    """A stand-in for a network that computes until it is let go."""

    def __init__(self, recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.began, self.go, self.calls = threading.Event(), threading.Event(), 0
        classify = recognizer.classify

        def held(*arguments: Any, **how: Any) -> Any:
            self.calls += 1
            self.began.set()
            assert self.go.wait(WITHIN_SECONDS)
            return classify(*arguments, **how)

        monkeypatch.setattr(recognizer, "classify", held)


def test_one_too_many_is_told_to_come_back(
    client: TestClient, recognizer: Recognizer, clip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(recognizer, monkeypatch)
    answers: list[Any] = []

    def ask() -> None:
        answers.append(post(client, "classify", clip_folder / "a.mp4"))

    threads = [threading.Thread(target=ask) for _ in range(4)]  # one runs, two wait
    for thread in threads:
        thread.start()
    assert held.began.wait(WITHIN_SECONDS)
    deadline = time.monotonic() + WITHIN_SECONDS
    while not answers and time.monotonic() < deadline:
        time.sleep(0.01)
    (refused,) = answers
    assert (refused.status_code, refused.json()["code"], refused.headers["retry-after"]) == (503, "busy", "10")
    held.go.set()
    for thread in threads:
        thread.join()
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 503]
    assert held.calls == 3


def test_those_who_wait_at_the_page_count(
    recognizer: Recognizer, clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    monkeypatch.setattr("gradio.queueing.Queue.__len__", lambda _: 32)
    response = post(TestClient(create_app([recognizer]), base_url=ADDRESS), "classify", clip_folder / "a.mp4")
    assert (response.status_code, response.json()["code"]) == (503, "busy")


def test_those_who_wait_here_count_at_the_page(
    recognizer: Recognizer, clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    with TestClient(create_app([recognizer]), base_url=ADDRESS) as client:
        event, _ = choose(client, clip_folder / "a.mp4")
        assert event["state"] == "waiting"
        monkeypatch.setattr(Turns, "waiting", property(lambda _: 31))  # and one at the page
        event, _ = choose(client, clip_folder / "a.mp4", session="another")
        assert "32 clips are waiting" in event["words"]


def test_the_server_has_it_beside_the_page(
    recognizer: Recognizer, clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    with TestClient(create_app([recognizer]), base_url=ADDRESS) as client:
        assert post(client, "classify", clip_folder / "a.mp4").json()["status"] == "ok"
        assert "offers no folder" in client.post("/v1/classify", files={"path": (None, "a")}).json()["message"]
        assert client.head("/healthz").status_code == 200, "as some monitors ask"
        assert {"/healthz", "/v1/classify"} <= {*client.get("/v1/openapi.json").json()["paths"]}
        assert "gradio" in client.get("/").text
        assert "ADDRESSv1/classify" in client.get("/config").text, "the API tab says so"
