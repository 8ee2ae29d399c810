"""The ASGI application: the page at `/`, the HTTP API at `/v1`, results at `/r`, and who may ask for what."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import fastapi
from starlette.routing import Mount

from nonlocal_video import __version__
from nonlocal_video.errors import UsageError
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.samples import Sample

from .body_limit import BodyLimit
from .cleanup import KEEP_SECONDS
from .event_stream import STREAM, EventStreams
from .file_addresses import FileAddresses
from .graceful_shutdown import BEGIN
from .hosts import OwnHosts
from .internals import require, require_route
from .login import Login
from .texts import ENDING

DEFAULT_MAX_UPLOAD_MB = 500
MAX_FILES = 20
"""Maximum number of clips of the largest size in one upload of the page, which sends a folder's files together."""
MAX_SESSIONS = 500
"""Maximum number of sessions that Gradio remembers, including closed ones, at about 0.1 MB each."""
API = "The likeliest actions of a clip, where the network looked, and what happens when in a long video."
PROCESS_RECORDING = "/gradio_api/process_recording"
RELOAD, DEEP_LINK = "/gradio_api/dev/reload", "/gradio_api/deep_link"
NEEDED = (
    ("POST", PROCESS_RECORDING, "to keep FFmpeg from running on anything that is posted"),
    ("GET", RELOAD, "to close a route that looks for changes of the page all the time"),
    ("GET", DEEP_LINK, "to close a route that writes files"),
    ("POST", f"/gradio_api{BEGIN}", "to end no recognition half-way"),
    ("GET", STREAM, "to end no stream of answers too early"),
)
"""Routes of Gradio that this server blocks, counts or wraps."""


def create_app(
    recognizers: Sequence[Recognizer],
    *,
    samples: Sequence[Sample] = (),
    allowed_hosts: Sequence[str] = (),
    auth: tuple[str, str] | None = None,
    tokens: Sequence[str] = (),
    max_upload_mb: int = DEFAULT_MAX_UPLOAD_MB,
    keep_seconds: float = KEEP_SECONDS,
    folder_root: Path | None = None,
    allow_webhook: Sequence[str] = (),
    allow_pull: bool = False,
) -> fastapi.FastAPI:
    """Make the ASGI application: the page at `/`, the HTTP API at `/v1`, and the health check at `/healthz`.

    Raises:
        UsageError: Two models have the same name.
    """
    # Gradio takes seconds to import, and creates its folder on import: `serve` sets its path first.
    import gradio as gr
    from gradio.utils import get_upload_folder

    from .callbacks.folder_rows import FolderRows
    from .folder_routes import add_folder_routes
    from .gradio_bounds import bound_sessions, end_all, keep_cleaning, take_uploads_alone
    from .http_api import HttpApi
    from .http_routes import add_http_api
    from .jobs import Jobs
    from .live_routes import add_live_routes
    from .live_sessions import LiveSessions
    from .no_remote_fetch import forbid_remote_fetch
    from .page import MAX_WAITING, STYLE, build_page, theme
    from .results.routes import add_result_routes
    from .results.store import Results
    from .turns import Turns

    forbid_remote_fetch()
    jobs = Jobs(max_waiting=MAX_WAITING, keep_seconds=keep_seconds)
    results = Results(keep_seconds=keep_seconds)
    rows = FolderRows(results)

    @asynccontextmanager
    async def lifespan(_: fastapi.FastAPI) -> AsyncIterator[None]:
        yield
        cameras.close()
        await jobs.close()
        results.close()

    app = fastapi.FastAPI(
        title="nonlocal-video", version=__version__, description=API, openapi_url=None, lifespan=lifespan
    )
    turns = Turns(MAX_WAITING, others=lambda: len(page._queue))

    def on_deadline() -> None:
        turns.end()
        end_all(page, ENDING)

    app.state.on_signal, app.state.on_deadline, app.state.results = jobs.end, on_deadline, results
    names = [recognizer.card.name for recognizer in recognizers]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise UsageError(f"Two models are called {', '.join(sorted(repeated))}; visitors choose by name, so give one.")
    by_name = dict(zip(names, recognizers, strict=True))
    cameras = LiveSessions(by_name, turns)

    # Not in a thread: those may all be busy with uploads.
    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz")
    async def healthz(response: fastapi.Response) -> dict[str, object]:
        for recognizer in recognizers:
            if recognizer.failed is not None:
                response.status_code = fastapi.status.HTTP_503_SERVICE_UNAVAILABLE
                return {"status": "failed", "models": names, "error": str(recognizer.failed)}
        return {"status": "ok", "models": names}

    # Not used by this page: one runs ffmpeg on what is posted, one looks for changes all the time, one writes files.
    async def not_offered() -> fastapi.Response:
        return fastapi.Response(status_code=404)

    app.add_api_route(PROCESS_RECORDING, not_offered, methods=["POST"], include_in_schema=False)
    for path in (RELOAD, DEEP_LINK):
        app.add_api_route(path, not_offered, include_in_schema=False)

    # A copy in the upload folder would be deleted like an upload, while the page still offers it.
    gr.set_static_paths([str(sample.path) for sample in samples])
    page = build_page(
        recognizers,
        results=results,
        rows=rows,
        samples=samples,
        max_upload_mb=max_upload_mb,
        keep_seconds=keep_seconds,
        folder_root=folder_root,
        allow_pull=allow_pull,
        others=lambda: turns.waiting,
    )
    # Only on launched pages, Gradio checks that a file named by a client was uploaded, and a mounted page is not
    # launched: without this line, any file of the server could be read.
    require(page, "has_launched", library="gradio", purpose="to read uploads and no other file")
    page.has_launched = True
    keep_cleaning()
    take_uploads_alone()
    add_http_api(
        app,
        HttpApi(
            by_name,
            turns,
            jobs,
            max_upload_bytes=max_upload_mb * 1024**2,
            folder_root=folder_root,
            webhook_hosts=allow_webhook,
        ),
    )
    add_live_routes(app, cameras)
    add_result_routes(app, results)
    add_folder_routes(app, rows)
    mounted = gr.mount_gradio_app(
        app,
        page,
        path="/",
        auth=auth,
        max_file_size=max_upload_mb * 1024**2,
        theme=theme(),
        css_paths=STYLE,
        footer_links=[],
        run_history=False,
        show_error=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
    )
    gradio_app: Any = next(route.app for route in mounted.routes if isinstance(route, Mount))
    for method, path, purpose in NEEDED:
        require_route(gradio_app.routes, method, path, library="gradio", purpose=purpose)
    bound_sessions(gradio_app, MAX_SESSIONS)
    mounted.add_middleware(EventStreams, under_way=page._queue.pending_event_ids_session)
    mounted.add_middleware(FileAddresses, folders=[Path(get_upload_folder()), *(clip.path.parent for clip in samples)])
    if auth is not None:
        for name in ("tokens", "cookie_id"):
            require(gradio_app, name, library="gradio", purpose="to know who has signed in")
        mounted.add_middleware(Login, auth=auth, tokens=tuple(tokens), user_of=partial(_user_of, gradio_app))
    # The last one added is asked first.
    mounted.add_middleware(BodyLimit, max_upload_bytes=max_upload_mb * 1024**2, max_files=MAX_FILES)
    mounted.add_middleware(OwnHosts, allowed=allowed_hosts)
    return mounted


def _user_of(gradio_app: Any, cookies: Mapping[str, str]) -> str | None:
    """Return who has signed in at Gradio's own page."""
    for name in ("access-token", "access-token-unsecure"):
        user: str | None = gradio_app.tokens.get(cookies.get(f"{name}-{gradio_app.cookie_id}"))
        if user is not None:
            return user
    return None
