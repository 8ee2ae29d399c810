"""Long work: what a program sees of its jobs, and that they stay bounded."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import fastapi
import pytest
from fastapi.testclient import TestClient

from nonlocal_video.app import jobs as jobs_module
from nonlocal_video.app.http_errors import ApiError
from nonlocal_video.app.http_forms import TimelineForm
from nonlocal_video.app.http_job_answer import job_response
from nonlocal_video.app.http_jobs import timeline_job
from nonlocal_video.app.jobs import Job, Jobs
from nonlocal_video.app.webhooks import post_json
from nonlocal_video.inference.recognizer import Recognizer

WITHIN_SECONDS = 30


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run in a thread of its own: this one may have the loop of the browser's tests."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, asyncio.wait_for(work, WITHIN_SECONDS)).result()


async def until(jobs: Jobs, job: Job, *statuses: str) -> None:
    while job.status not in statuses:
        await asyncio.sleep(0.005)


def test_a_stopped_job_keeps_what_there_is_and_those_after_it_begin() -> None:
    async def go() -> None:
        jobs = Jobs(max_waiting=5, keep_seconds=60)
        cleaned: list[str] = []

        def work(job: Job) -> dict[str, Any]:
            job.done, job.planned = 1, 3
            assert job.stop.wait(WITHIN_SECONDS)
            return {"windows": 1}

        first = jobs.start(Job("timeline", "a"), work, cleanup=lambda: cleaned.append("a"))
        second = jobs.start(Job("timeline", "b"), lambda job: {"windows": 3}, cleanup=lambda: cleaned.append("b"))
        await until(jobs, first, "running")
        assert (second.status, second.to_json()["progress"]) == ("waiting", {"done": 0, "planned": None})
        first.stop.set()
        await until(jobs, second, "done")
        assert (first.status, first.to_json()["result"]) == ("stopped", {"windows": 1})
        assert cleaned == ["a", "b"]
        await jobs.close()

    run(go())


def test_windows_are_counted_as_they_are_done(recognizer: Recognizer, clip_folder: Path) -> None:
    seen: list[tuple[int, int | None]] = []

    class Asked(threading.Event):
        """Asked after each window whether the work is to stop."""

        def is_set(self) -> bool:
            seen.append((job.done, job.planned))
            return super().is_set()

    job = Job("timeline", "a.mp4", stop=Asked())
    form = TimelineForm(window_seconds=0.6, stride_seconds=0.4)
    timeline_job(job, recognizer, clip_folder / "a.mp4", form)
    done = [number for number, _ in seen]
    assert len(done) > 1, "on the way, not at the end alone"
    assert done == sorted({*done})
    assert seen[-1] == (5, 5)
    assert {planned for _, planned in seen} == {5}


def test_at_the_end_those_that_wait_are_stopped_and_the_hosts_told() -> None:
    async def go() -> None:
        told: list[Any] = []
        jobs = Jobs(max_waiting=5, keep_seconds=60, post=lambda url, value: told.append((url, value["status"])))

        def work(job: Job) -> dict[str, Any]:
            assert job.stop.wait(WITHIN_SECONDS)
            return {}

        started = [jobs.start(Job("timeline", name, webhook=f"http://{name}/"), work) for name in "ab"]
        await until(jobs, started[0], "running")
        await jobs.end()
        assert sorted(told) == [("http://a/", "stopped"), ("http://b/", "stopped")]
        with pytest.raises(ApiError, match="The server is ending"):
            jobs.start(Job("timeline", "c"), work)
        files = [Path(job.result) for job in started if job.result]
        assert files
        await jobs.close()
        assert not any(file.exists() for file in files)

    run(go())


def test_a_bounded_number_waits_and_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_module, "MAX_JOBS", 3)

    async def go() -> None:
        jobs, go_on = Jobs(max_waiting=2, keep_seconds=60), threading.Event()

        def work(_: Job) -> dict[str, Any]:
            assert go_on.wait(WITHIN_SECONDS)
            return {}

        started = [jobs.start(Job("timeline", "a"), work)]
        await until(jobs, started[0], "running")
        started += [jobs.start(Job("timeline", name), work) for name in "bc"]
        with pytest.raises(ApiError, match="2 jobs are waiting") as refused:
            jobs.start(Job("timeline", "d"), work)
        assert (refused.value.status, refused.value.code) == (503, "busy")
        go_on.set()
        await until(jobs, started[-1], "done")
        assert started[0].result is not None
        jobs.start(Job("timeline", "e"), work)
        with pytest.raises(ApiError, match="The job was not found"):
            jobs.get(started[0].id)
        assert not started[0].result.exists(), "its file is gone with it"
        assert jobs.get(started[1].id) is started[1]
        await jobs.close()

    run(go())


def test_an_ended_job_is_forgotten_with_its_file() -> None:
    async def go() -> None:
        jobs = Jobs(max_waiting=1, keep_seconds=0.05)
        job = jobs.start(Job("timeline", "a"), lambda job: {"windows": 1})
        await until(jobs, job, "done")
        assert job.result is not None
        while job.result.exists():
            await asyncio.sleep(0.005)
        with pytest.raises(ApiError, match="The job was not found"):
            jobs.get(job.id)
        await jobs.close()

    run(go())


def test_a_webhook_that_fails_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def post(url: str, value: Any) -> None:
        raise OSError("nobody there")

    async def go() -> None:
        jobs = Jobs(max_waiting=1, keep_seconds=60, post=post)
        job = jobs.start(Job("timeline", "a", webhook="http://hooks.example/"), lambda job: {})
        await until(jobs, job, "done")
        await jobs.close()
        assert job.status == "done"

    run(go())
    assert "was not told: OSError" in caplog.text


def test_a_webhook_gets_json_and_leads_nowhere_else() -> None:
    received: list[tuple[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append((self.path, json.loads(body)))
            self.send_response(307)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        post_json(f"http://127.0.0.1:{server.server_port}/hook", {"status": "done"})
        server.shutdown()
        thread.join()
    assert received == [("/hook", {"status": "done"})]


def test_the_result_of_a_job_is_sent_as_it_lies_on_the_disk(tmp_path: Path) -> None:
    """A result of 5,000 windows has 60 MB: read and written anew for each who asks, it would stop the server."""
    path = tmp_path / "result.json"
    path.write_text('{"rows":   [1,2]}')
    job = Job("features", 'a "clip".mp4', status="done", done=2, planned=2, result=path)
    response = job_response(job)
    app = fastapi.FastAPI()
    app.add_api_route("/", lambda: response)
    answer = TestClient(app).get("/")
    assert '"rows":   [1,2]' in answer.text
    assert answer.json() == job.to_json()
    assert int(answer.headers["content-length"]) == len(answer.content)
    waiting = Job("timeline", "b.mp4")
    assert json.loads(bytes(job_response(waiting).body)) == waiting.to_json()
