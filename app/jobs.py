"""Long work of the HTTP API: jobs that a program starts, asks about, and may stop."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import anyio.to_thread

from .http_errors import ApiError, api_error, busy
from .webhooks import post_json

LOGGER = logging.getLogger(__name__)

MAX_JOBS = 200
"""Maximum number of remembered jobs, ended ones included."""
CLOSE_SECONDS = 1.0
"""Seconds to wait for a stopped job at the end; `end` waits longer."""
Status = Literal["waiting", "running", "done", "stopped", "failed"]
ENDED = ("done", "stopped", "failed")


@dataclass
class Job:
    """One piece of long work."""

    kind: str
    path: str
    """Name of the clip, as the program gave it."""
    webhook: str | None = None
    """Address that the ended job is posted to."""
    id: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    status: Status = "waiting"
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    done: int = 0
    """Number of finished steps."""
    planned: int | None = None
    """Number of all steps; None before it is known."""
    error: ApiError | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    """Set to stop the work after its current step."""
    result: Path | None = None
    """JSON file with the result."""

    def to_json(self) -> dict[str, Any]:
        """Return the job as the API shows it; its result is read from disk."""
        return self.without_result() | {"result": None if self.result is None else json.loads(self.result.read_bytes())}

    def without_result(self) -> dict[str, Any]:
        """Return the job as the API shows it, except for its result."""
        return {
            "id": self.id,
            "kind": self.kind,
            "path": self.path,
            "status": self.status,
            "created": self.created.isoformat(timespec="seconds"),
            "progress": {"done": self.done, "planned": self.planned},
            "error": None if self.error is None else {"code": self.error.code, "message": self.error.message},
            "result": None,
        }


class Jobs:
    """The jobs of one server; one runs at a time, and each is forgotten a while after it ended."""

    def __init__(
        self, *, max_waiting: int, keep_seconds: float, post: Callable[[str, Any], None] | None = None
    ) -> None:
        """Make an empty list.

        Args:
            max_waiting: Maximum number of jobs that wait.
            keep_seconds: Lifetime of a job after its end.
            post: Posts an object to a webhook; None does it by HTTP.
        """
        self._max_waiting, self._keep_seconds = max_waiting, keep_seconds
        self._post = post or post_json
        self._jobs: dict[str, Job] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Semaphore(1)
        self._folder: TemporaryDirectory[str] | None = None
        self._is_ending = False

    def start(
        self, job: Job, work: Callable[[Job], Mapping[str, Any]], *, cleanup: Callable[[], None] = lambda: None
    ) -> Job:
        """Queue a job; call this in the event loop.

        Args:
            job: New job.
            work: Does the work in a thread, counts its steps in the job, and returns the result. It ends early, with
                what there is, when `job.stop` is set.
            cleanup: Called at the end, however it ends; not called if the job is refused.

        Raises:
            ApiError: 503, busy; too many jobs wait, or the server is ending.
        """
        self.check_room()
        if len(self._jobs) >= MAX_JOBS:
            self._forget(next(old for old in self._jobs.values() if old.status in ENDED))
        self._jobs[job.id] = job
        task = asyncio.get_running_loop().create_task(self._run(job, work, cleanup))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return job

    def check_room(self) -> None:
        """Refuse one more if too many wait.

        Raises:
            ApiError: 503, busy.
        """
        if self._is_ending:
            raise busy("The server is ending.")
        waiting = sum(job.status == "waiting" for job in self._jobs.values())
        if waiting >= self._max_waiting:
            raise busy(f"{waiting} jobs are waiting, the most that this server lets; try again later.")

    def get(self, id: str) -> Job:
        """Return a job.

        Raises:
            ApiError: 404; it does not exist, or was forgotten.
        """
        if (job := self._jobs.get(id)) is None:
            minutes = self._keep_seconds / 60
            raise ApiError(
                404, "not_found", f"The job was not found; each is forgotten {minutes:g} minutes after its end."
            )
        return job

    async def end(self) -> None:
        """Stop all jobs, tell their webhooks, and wait for them; no more are accepted."""
        self._is_ending = True
        for job in self._jobs.values():
            job.stop.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def close(self) -> None:
        """Stop all jobs and delete the results; those that do not end soon are left to end with the process."""
        await asyncio.wait({asyncio.ensure_future(self.end())}, timeout=CLOSE_SECONDS)
        self._jobs.clear()
        if self._folder is not None:
            self._folder.cleanup()

    async def _run(self, job: Job, work: Callable[[Job], Mapping[str, Any]], cleanup: Callable[[], None]) -> None:
        try:
            async with self._turn:
                if job.stop.is_set():
                    job.status = "stopped"
                else:
                    job.status = "running"
                    job.result = await anyio.to_thread.run_sync(self._written, job, work, abandon_on_cancel=True)
                    job.status = "stopped" if job.stop.is_set() and job.done != job.planned else "done"
        except Exception as error:
            job.error, job.status = api_error(error), "failed"
        finally:
            cleanup()
            asyncio.get_running_loop().call_later(self._keep_seconds, self._forget, job)
        if job.webhook is not None:
            await anyio.to_thread.run_sync(self._tell, job)

    def _written(self, job: Job, work: Callable[[Job], Mapping[str, Any]]) -> Path:
        """Do the work and keep its result on disk: that of a long video has megabytes."""
        result = work(job)
        if self._folder is None:
            self._folder = TemporaryDirectory(prefix="nonlocal-video-jobs-")
        path = Path(self._folder.name) / f"{job.id}.json"
        path.write_text(json.dumps(result, allow_nan=False), "utf-8")
        return path

    def _tell(self, job: Job) -> None:
        assert job.webhook is not None
        try:
            self._post(job.webhook, job.to_json())
        except Exception as error:
            LOGGER.warning("the webhook of job %s was not told: %s", job.id, type(error).__name__)

    def _forget(self, job: Job) -> None:
        self._jobs.pop(job.id, None)
        if job.result is not None:
            job.result.unlink(missing_ok=True)
