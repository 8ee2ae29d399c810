"""Forms of the HTTP API with a field that is given twice."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastapi
import pytest
from fastapi.testclient import TestClient

from nonlocal_video.app.http_api import HttpApi
from nonlocal_video.app.http_routes import add_http_api
from nonlocal_video.app.jobs import Jobs
from nonlocal_video.app.turns import Turns
from nonlocal_video.inference.recognizer import Recognizer


@pytest.fixture(scope="module")
def client(recognizer: Recognizer, clip_folder: Path) -> Iterator[TestClient]:
    app, jobs = fastapi.FastAPI(), Jobs(max_waiting=3, keep_seconds=600)
    api = HttpApi({"tiny": recognizer}, Turns(2), jobs, max_upload_bytes=100_000, folder_root=clip_folder)
    add_http_api(app, api)
    with TestClient(app, base_url="http://127.0.0.1") as client:
        yield client
        client.portal.call(jobs.close)


def post(client: TestClient, route: str, clip: Path, **form: Any) -> Any:
    with clip.open("rb") as file:
        return client.post(f"/v1/{route}", files={"file": (clip.name, file)}, data=form)


@pytest.mark.parametrize("route", ["classify", "explain", "timeline", "features"])
@pytest.mark.parametrize("second", ["fast", "1x1"])
def test_a_field_that_is_given_twice_is_refused(client: TestClient, clip_folder: Path, route: str, second: str) -> None:
    """Otherwise the last one would win in silence."""
    response = post(client, route, clip_folder / "a.mp4", views=["1x1", second], region="0,0,1,1")
    assert (response.status_code, response.json()["code"]) == (422, "invalid_argument")
    assert response.json()["message"] == "views: given more than once; send each field once."


def test_a_word_in_place_of_the_clip_is_said_without_names_of_python(client: TestClient) -> None:
    response = client.post("/v1/classify", files={"file": (None, "clip.mp4")})
    assert (response.status_code, response.json()["code"]) == (422, "invalid_argument")
    assert response.json()["message"] == "file: should be the clip itself, with its name; for curl: -F file=@clip.mp4."


def test_a_clip_and_a_word_of_one_name_are_a_field_given_twice(client: TestClient, clip_folder: Path) -> None:
    response = post(client, "classify", clip_folder / "a.mp4", file="b/c.mp4", **{"x" * 3000: ["1", "2"]})
    assert response.status_code == 422
    assert response.json()["message"] == f"file, {'x' * 80}: given more than once; send each field once."


@pytest.mark.slow
def test_every_route_takes_a_file_of_the_offered_folder_and_a_part_of_the_picture(client: TestClient) -> None:
    form = {"path": (None, "b/c.mp4"), "region": (None, "0,0,0.5,1")}
    found = [client.post("/v1/classify", files=form).json()]
    found.append(client.post("/v1/explain", files=form).json()["prediction"])
    for route in ("timeline", "features"):
        job = client.post(f"/v1/{route}", files=form).json()
        while job["status"] in ("waiting", "running"):
            time.sleep(0.02)
            job = client.get(f"/v1/jobs/{job['id']}").json()
        assert (job["path"], job["status"]) == ("b/c.mp4", "done")
        found.append(job["result"])
    assert [answer["path"] for answer in found] == ["b/c.mp4"] * 4
    assert all("Only the region 0,0,0.5,1" in " ".join(answer["notes"]) for answer in found)
