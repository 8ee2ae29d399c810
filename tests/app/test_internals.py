"""The server does not start where a release of a library has renamed what a protection relies on."""

from __future__ import annotations

from collections.abc import Callable

import gradio as gr
import pytest
import uvicorn
from gradio import processing_utils, queueing, route_utils

from nonlocal_video.app import application, no_remote_fetch
from nonlocal_video.app.application import create_app
from nonlocal_video.app.graceful_shutdown import GracefulServer
from nonlocal_video.errors import UsageError
from nonlocal_video.inference.recognizer import Recognizer


def without_the_guarded_get(patch: pytest.MonkeyPatch) -> None:
    patch.delattr(processing_utils, "async_ssrf_protected_get")


def with_a_download_of_its_own(patch: pytest.MonkeyPatch) -> None:
    """The name is there, and nothing goes through it any more."""

    async def download(url: str, cache_dir: str) -> str:
        return f"{cache_dir}/clip.mp4"

    patch.setattr(processing_utils, "async_ssrf_protected_download", download)


def with_a_download_that_waits(patch: pytest.MonkeyPatch) -> None:
    class Reading:
        def __await__(self):
            yield "waiting for a socket"

    async def download(url: str, cache_dir: str) -> str:
        await Reading()
        return ""

    patch.setattr(processing_utils, "async_ssrf_protected_download", download)


def without_the_mark_of_a_launched_page(patch: pytest.MonkeyPatch) -> None:
    class Page:
        state_session_capacity = 1

    patch.setattr("nonlocal_video.app.page.build_page", lambda *_, **__: Page())


def without_the_route(path: str) -> Callable[[pytest.MonkeyPatch], None]:
    """Rename a route that is needed."""
    once = tuple((method, f"{name}_once" if name == path else name, why) for method, name, why in application.NEEDED)
    assert once != application.NEEDED
    return lambda patch: patch.setattr(application, "NEEDED", once)


def without_the_cleaner(patch: pytest.MonkeyPatch) -> None:
    patch.delattr(route_utils, "delete_files_created_by_app")


def without_the_parser_of_uploads(patch: pytest.MonkeyPatch) -> None:
    patch.delattr(route_utils.GradioMultiPartParser, "on_headers_finished")


def without_the_check_of_names(patch: pytest.MonkeyPatch) -> None:
    patch.delattr(processing_utils, "check_all_files_in_cache")


def without_the_messages_of_visitors(patch: pytest.MonkeyPatch) -> None:
    patch.delattr(queueing, "AsyncQueue")


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        (without_the_cleaner, r"gradio \S+ has no gradio\.route_utils\.delete_files_created_by_app"),
        (without_the_parser_of_uploads, r"gradio \S+ has no GradioMultiPartParser\.on_headers_finished"),
        (without_the_check_of_names, r"gradio \S+ has no gradio\.processing_utils\.check_all_files_in_cache"),
        (without_the_messages_of_visitors, r"gradio \S+ has no gradio\.queueing\.AsyncQueue"),
        (without_the_guarded_get, r"gradio \S+ has no gradio\.processing_utils\.async_ssrf_protected_get"),
        (with_a_download_of_its_own, r"gradio \S+ has no one function for all downloads"),
        (with_a_download_that_waits, r"gradio \S+ has no one function for all downloads"),
        (without_the_mark_of_a_launched_page, r"gradio \S+ has no Page\.has_launched"),
        (
            without_the_route(application.PROCESS_RECORDING),
            r"gradio \S+ has no route /gradio_api/process_recording_once",
        ),
        (without_the_route(application.RELOAD), r"gradio \S+ has no route /gradio_api/dev/reload_once"),
        (without_the_route(application.DEEP_LINK), r"gradio \S+ has no route /gradio_api/deep_link_once"),
        (without_the_route(application.STREAM), r"gradio \S+ has no route /gradio_api/queue/data_once"),
    ],
)
def test_the_server_does_not_start_unprotected(
    change: Callable[[pytest.MonkeyPatch], None], missing: str, recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(monkeypatch)
    with pytest.raises(UsageError, match=missing + r".*does not start without.*pip install -c constraints\.txt"):
        create_app([recognizer])


def test_with_its_names_gradio_is_kept_from_fetching(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processing_utils, "async_ssrf_protected_get", processing_utils.async_ssrf_protected_get)
    no_remote_fetch.forbid_remote_fetch()
    with pytest.raises(gr.Error, match="fetches nothing from an address"):
        processing_utils.ssrf_protected_download("http://127.0.0.1:9/clip.mp4", "/nonexistent")


@pytest.mark.parametrize("name", ["shutdown", "should_exit", "force_exit"])
def test_without_a_way_to_end_gently_nothing_is_served(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "shutdown":
        monkeypatch.delattr(uvicorn.Server, name)
    else:
        begin = uvicorn.Server.__init__

        def init(self, config):
            begin(self, config)
            delattr(self, name)

        monkeypatch.setattr(uvicorn.Server, "__init__", init)

    async def app(scope, receive, send):
        raise AssertionError("never asked")

    with pytest.raises(UsageError, match=rf"uvicorn \S+ has no \w+\.{name}"):
        GracefulServer(app)
