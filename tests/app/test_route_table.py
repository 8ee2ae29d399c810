"""The guide to security lists every route with its rule, as the server answers."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import fastapi
import gradio
import pytest

from nonlocal_video.app.application import create_app
from nonlocal_video.inference.recognizer import Recognizer

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "security.md").read_text("utf-8")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("route_table", DOCS / "make_route_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def app(
    recognizer: Recognizer, script: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[fastapi.FastAPI]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
        yield create_app([recognizer], auth=script.AUTH, max_upload_mb=script.MAX_UPLOAD_MB)


def rows(text: str) -> set[str]:
    table = re.search(r"<!-- routes -->\n(.*?)<!-- /routes -->", text, re.DOTALL)
    assert table is not None
    return {line for line in table[1].splitlines() if line.startswith("| `")}


def test_the_table_is_what_the_server_answers(script: ModuleType, app: fastapi.FastAPI) -> None:
    with ThreadPoolExecutor(1) as pool:  # this thread may have the loop of the browser's tests
        found = rows(pool.submit(script.page_with_table, PAGE, app).result())
    listed = rows(PAGE)
    own = ("| `/v1/", "| `/r`", "| `/r/", "| `/live", "| `/folder/", "| `/healthz`", "| `/login`")
    assert {row for row in found if row.startswith(own)} == {row for row in listed if row.startswith(own)}
    if f"With Gradio {gradio.__version__}:" in PAGE:  # another release may have other routes
        assert found == listed
    assert len(listed) > 50


def test_little_is_open(script: ModuleType, app: fastapi.FastAPI) -> None:
    with ThreadPoolExecutor(1) as pool:
        rules = pool.submit(script.rules, app).result()
    without = {path for path, _, (session, _, _) in rules if session == "not needed"}
    assert without == {"/", "/healthz", "/favicon.ico", "/manifest.json", "/robots.txt"}
    changing = [site for _, methods, (_, site, _) in rules if not {"GET", "HEAD"} & {*methods}]
    assert set(changing) == {"refused"}


def test_the_page_has_the_parts_that_strangers_need_and_names_tests_that_exist() -> None:
    parts = {"Video files", "Who may do what", "Every route", "Behind a proxy with TLS", "FFmpeg 4.1 inside decord"}
    assert parts <= {*re.findall(r"^## (.+)", PAGE, re.MULTILINE)}
    for who in ("a stranger, with `--auth`", "a visitor: ", "a page of another site", "the sender of a video"):
        assert f"| {who}" in PAGE
    assert "docker.md#behind-tls" in PAGE
    attacks = PAGE.partition("## What was attacked, and what it gave")[2]
    rows = [row for row in attacks.splitlines() if row.startswith("| ") and "---" not in row and "| kind |" not in row]
    assert len(rows) > 20
    for row in rows:
        named = re.findall(r"`(tests/\w+/test_\w+\.py)`", row)
        assert named, row
        assert all((DOCS.parent / name).is_file() for name in named), row
