"""Requests by chance, drawn from the API's own OpenAPI document: every answer is one that it names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import fastapi
import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nonlocal_video.app.http_api import HttpApi
from nonlocal_video.app.http_forms import ErrorBody, RowBody
from nonlocal_video.app.http_routes import add_http_api
from nonlocal_video.app.jobs import Jobs
from nonlocal_video.app.turns import Turns
from nonlocal_video.errors import ERROR_CODES, VideoError
from nonlocal_video.inference.prediction import Prediction, StageTimings
from nonlocal_video.inference.views import ViewCount
from nonlocal_video.video.info import VideoInfo
from nonlocal_video.video.region import Region

BODIES = {"RowBody": RowBody, "ErrorBody": ErrorBody}
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


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.slow
def test_every_answer_is_as_the_document_says(
    client: TestClient, document: dict[str, Any], data: st.DataObject
) -> None:
    form = document["components"]["schemas"]["ClassifyForm"]["properties"]
    names = st.one_of(st.sampled_from([name for name in form if name != "file"]), st.text(min_size=1, max_size=8))
    fields = data.draw(st.dictionaries(names, WORDS, max_size=3))
    file = data.draw(st.none() | st.tuples(st.text(max_size=300), st.binary(max_size=120)))
    files: list[Any] = [(name, (None, value)) for name, value in fields.items()]
    if file is not None:
        files.append(("file", file))
    response = client.post("/v1/classify", files=files or {"nothing": (None, "")})
    answers = document["paths"]["/v1/classify"]["post"]["responses"]
    assert response.status_code in {*map(int, answers), 400, 500}
    body = response.json()
    if str(response.status_code) in answers:
        schema = answers[str(response.status_code)]["content"]["application/json"]["schema"]
        name = schema["$ref"].rpartition("/")[2]
        assert {*body} == {*document["components"]["schemas"][name]["properties"]}
        BODIES[name].model_validate(body, strict=True)
    if response.status_code == 500:
        assert file is not None
        assert ERROR_CODES[file[1][0]] == "internal"
    if response.status_code != 200:
        assert list(body) == ["code", "message"]
        assert "nonlocal-video-clip-" not in body["message"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.text(max_size=40), method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"]))
def test_no_path_leads_elsewhere(client: TestClient, path: str, method: str) -> None:
    response = client.request(method, f"/v1/jobs/{quote(path, safe='')}")
    assert response.status_code in (404, 405, 415)
    assert list(response.json()) == ["code", "message"]
