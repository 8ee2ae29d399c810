"""Programs get what the command line and Python say of a model, key by key: a taught one says more."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastapi
import numpy as np
import pyarrow.parquet as pq
import pytest
from colour_clips import COLOURS, write_colour
from fastapi.testclient import TestClient

from nonlocal_video.app.http_api import HttpApi
from nonlocal_video.app.http_routes import add_http_api
from nonlocal_video.app.jobs import Jobs
from nonlocal_video.app.turns import Turns
from nonlocal_video.features.extract import extract_features
from nonlocal_video.inference.load import load
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.inference.timeline_files import to_json
from nonlocal_video.teaching.api import teach

pytestmark = pytest.mark.slow

WITHIN_SECONDS = 60
UNKNOWN = {"red.mp4": False, "yellow.mp4": True}
"""Clips, and whether they are unlike all that the model was taught."""


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("asked")
    write_colour(folder / "red.mp4", COLOURS["red"], 99)
    write_colour(folder / "yellow.mp4", (255, 255, 0), 7)
    return folder


@pytest.fixture(scope="module")
def taught(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recognizer]:
    """A model that was taught three colours by four clips each."""
    examples = tmp_path_factory.mktemp("examples")
    for number, (label, colour) in enumerate(COLOURS.items()):
        for clip in range(4):
            write_colour(examples / label / f"{clip}.mp4", colour, 10 * number + clip)
    run = teach(examples, output=tmp_path_factory.mktemp("runs") / "colours", model=tiny_model, device="cpu")
    with load(run.path, device="cpu") as recognizer:
        yield recognizer


@pytest.fixture(scope="module")
def client(taught: Recognizer, recognizer: Recognizer) -> Iterator[TestClient]:
    """The API alone, with a taught model and one that is not."""
    app, jobs = fastapi.FastAPI(), Jobs(max_waiting=3, keep_seconds=600)
    models = {"taught": taught, "tiny": recognizer}
    add_http_api(app, HttpApi(models, Turns(2), jobs, max_upload_bytes=100_000))
    with TestClient(app) as client:
        yield client
        client.portal.call(jobs.close)


def post(client: TestClient, route: str, clip: Path, **form: Any) -> dict[str, Any]:
    with clip.open("rb") as file:
        answer = client.post(f"/v1/{route}", files={"file": (clip.name, file)}, data=form)
    assert answer.status_code in (200, 202), answer.text
    return dict(answer.json())


def result(client: TestClient, job: dict[str, Any]) -> dict[str, Any]:
    deadline = time.monotonic() + WITHIN_SECONDS
    while job["status"] in ("waiting", "running") and time.monotonic() < deadline:
        time.sleep(0.02)
        job = client.get(f"/v1/jobs/{job['id']}").json()
    assert job["status"] == "done"
    return dict(job["result"])


def as_json(row: dict[str, Any], name: str) -> str:
    """Text, which has the order of the keys too; the seconds differ from run to run, and their keys do not."""
    return json.dumps({**row, "path": name, "seconds": list(row["seconds"])})


@pytest.mark.parametrize("name", UNKNOWN)
@pytest.mark.parametrize("model", ["taught", "tiny"])
def test_a_row_has_all_that_its_prediction_says(
    client: TestClient, taught: Recognizer, recognizer: Recognizer, clips: Path, model: str, name: str
) -> None:
    expected = (taught if model == "taught" else recognizer).classify(clips / name).to_row(3)
    assert expected.get("unknown") is (UNKNOWN[name] if model == "taught" else None)
    assert as_json(post(client, "classify", clips / name, model=model, top_k=3), name) == as_json(expected, name)
    explained = post(client, "explain", clips / name, model=model, top_k=3)
    assert as_json(explained["prediction"], name) == as_json(expected, name)


def test_the_windows_of_a_timeline_have_it_too(client: TestClient, taught: Recognizer, clips: Path) -> None:
    expected = to_json(taught.timeline(clips / "yellow.mp4", context="nonlocal"))
    assert {window["unknown"] for window in expected["windows"]} == {True}
    found = result(client, post(client, "timeline", clips / "yellow.mp4", model="taught"))
    assert as_json(found, "yellow.mp4") == as_json(expected, "yellow.mp4")


def test_the_features_of_a_taught_model_have_the_columns_of_its_table(
    client: TestClient, taught: Recognizer, clips: Path, tmp_path: Path
) -> None:
    extract_features(taught, clips / "red.mp4", output=tmp_path / "t.parquet")
    rows = result(client, post(client, "features", clips / "red.mp4", model="taught"))["rows"]
    for row, wanted in zip(rows, pq.read_table(tmp_path / "t.parquet").to_pylist(), strict=True):
        assert list(row) == list(wanted)
        np.testing.assert_allclose(row.pop("feature"), wanted.pop("feature"), rtol=1e-5, atol=1e-4)
        assert row == wanted | {"path": "red.mp4"}


def test_the_document_names_every_key_of_a_row(client: TestClient, taught: Recognizer, clips: Path) -> None:
    schemas = client.get("/v1/openapi.json").json()["components"]["schemas"]
    row = taught.classify(clips / "red.mp4").to_row(1)
    for body, part in (("RowBody", row), ("VideoBody", row["video"]), ("TimingsBody", row["seconds"])):
        assert list(schemas[body]["properties"]) == list(part)
        assert {*schemas[body]["required"]} == {*part} - {"unknown"}
    assert list(schemas["ScoredBody"]["properties"]) == list(row["top"][0])
