"""Requests by chance, drawn from the API's own OpenAPI document: every answer is one that it names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import fastapi
import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nonlocal_video.app.http_api import HttpApi
from nonlocal_video.app.http_forms import ErrorBody, JobBody, RowBody
from nonlocal_video.app.http_routes import add_http_api
from nonlocal_video.app.jobs import Jobs
from nonlocal_video.app.turns import Turns
from nonlocal_video.errors import ERROR_CODES, VideoError
from nonlocal_video.inference.prediction import Prediction, StageTimings
from nonlocal_video.inference.views import ViewCount
from nonlocal_video.video.info import VideoInfo
from nonlocal_video.video.region import Region

BODIES = {"RowBody": RowBody, "JobBody": JobBody, "ErrorBody": ErrorBody}
INFO = VideoInfo(
    container="mp4", codec="h264", width=4, height=3, rotation_degrees=0, num_frames=5, fps=10.0, start_seconds=0.0,
    duration_seconds=0.5, has_edit_list=False, decoder="pyav",
)  # fmt: skip
WORDS = st.one_of(
    st.sampled_from(["", "1x1", "fast", "10x3", "31x1", "0,0,1,1", "0.5,0,1,1", "1,1,0,0", "nan,0,1,1", "5", "-1",
                     "1e999", "a.mp4", "../a.mp4", "/", "stub", "none", "nonlocal", "true", "http://127.0.0.1/"]),
    st.text(max_size=30),
    st.integers(-10, 10**6).map(str),
    st.floats().map(str),
)  # fmt: skip


class Stub:
    """A recognizer that checks its settings as the real one, and answers by the clip's first byte."""

    def classify(self, path: Path, *, views: str = "1x1", fast: bool = False, region: str | None = None) -> Prediction:
        ViewCount.parse(views)
        Region.parse(region)
        first = path.read_bytes()[:1]
        if first and first[0] < len(ERROR_CODES):
            raise VideoError(ERROR_CODES[first[0]], f"{path}: it is broken")
        return Prediction(
            path=str(path), model="stub", labels=("a", "b"), scores=np.array([0.25, 0.75]), video=INFO, views=(),
            num_crops=1, num_frames=1, crop=1, device="cpu", timings=StageTimings(0.0, 0.0, 0.0),
        )  # fmt: skip

    def explain_all(
        self, path: Path, *, fast: bool, around_seconds: float | None, region: str | None
    ) -> SimpleNamespace:
        prediction = self.classify(path, fast=fast, region=region)
        return SimpleNamespace(prediction=prediction, maps=lambda **_: Maps())


class Maps:
    """An explanation's fields, without a network."""

    method = layer = quantity = "stub"
    seconds = (0.0,)
    query = entropy_nats = maximum_entropy_nats = temporal_spread_seconds = None

    def strongest(self, _: int) -> tuple[()]:
        return ()

    def save_overlay(self, path: Path) -> Path:
        path.write_bytes(b"video")
        return path


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    app = fastapi.FastAPI(openapi_url=None)
    stub: Any = Stub()
    jobs = Jobs(max_waiting=1, keep_seconds=60)
    add_http_api(app, HttpApi({"stub": stub}, Turns(5), jobs, max_upload_bytes=100))
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=True) as client:
        yield client


@pytest.fixture(scope="module")
def document(client: TestClient) -> dict[str, Any]:
    document: dict[str, Any] = client.get("/v1/openapi.json").json()
    return document


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.slow
def test_every_answer_is_as_the_document_says(
    client: TestClient, document: dict[str, Any], data: st.DataObject
) -> None:
    """A request of each operation in turn; a job is asked for by the address that the last one had."""
    job = "none"
    for path, method, operation in operations(document):
        files: list[Any] = []
        file = None
        if "requestBody" in operation:
            form = form_of(document, operation)
            names = st.one_of(
                st.sampled_from([name for name in form if name != "file"]), st.text(min_size=1, max_size=8)
            )
            fields = data.draw(st.dictionaries(names, WORDS, max_size=3))
            file = data.draw(st.none() | st.tuples(st.text(max_size=300), st.binary(max_size=120)))
            files = [(name, (None, value)) for name, value in fields.items()]
            if file is not None:
                files.append(("file", file))
            files = files or [("nothing", (None, ""))]
        address = path.replace("{id}", quote(data.draw(st.just(job) | st.text(min_size=1, max_size=20)), safe=""))
        response = client.request(method, address, files=files or None)
        if response.status_code == 202:
            job = response.json()["id"]
        assert str(response.status_code) in operation["responses"], (path, response.text)
        if response.status_code == 500:
            assert file is not None
            assert ERROR_CODES[file[1][0]] == "internal"
        check_body(document, operation, response)


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Path, method and description of each, those that make jobs before those that ask for them."""
    paths = document["paths"].items()
    found = [(path, method, operation) for path, methods in paths for method, operation in methods.items()]
    return sorted(found, key=lambda one: "{" in one[0])


def form_of(document: dict[str, Any], operation: dict[str, Any]) -> dict[str, Any]:
    schema = operation["requestBody"]["content"]["multipart/form-data"]["schema"]
    return dict(document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]["properties"])


def check_body(document: dict[str, Any], operation: dict[str, Any], response: Any) -> None:
    if response.status_code >= 400:
        assert list(response.json()) == ["code", "message"]
        assert "nonlocal-video-clip-" not in response.json()["message"]
    schema = operation["responses"][str(response.status_code)]["content"]["application/json"]["schema"]
    if "$ref" not in schema:  # an explanation, or its video
        assert response.headers["content-type"] in ("application/json", "video/mp4")
        return
    name = schema["$ref"].rpartition("/")[2]
    described = document["components"]["schemas"][name]
    assert {*described["required"]} <= {*response.json()} <= {*described["properties"]}
    BODIES[name].model_validate(response.json(), strict=True)


def test_the_document_names_the_statuses_of_the_doors(document: dict[str, Any]) -> None:
    """Those that come before a handler is asked: of names and sites, passwords, bodies, and what went wrong inside."""
    for path, _, operation in operations(document):
        doors = {"401", "403", "404", "413", "429", "500", "503"}
        doors |= {"400", "408", "415"} if "requestBody" in operation else set()
        assert doors <= {*operation["responses"]}, path


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.text(max_size=40), method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"]))
def test_no_path_leads_elsewhere(client: TestClient, path: str, method: str) -> None:
    response = client.request(method, f"/v1/jobs/{quote(path, safe='')}")
    assert response.status_code in (404, 405, 415)
    assert list(response.json()) == ["code", "message"]
