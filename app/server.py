"""The server of the page: limits, login, health check, and clean shutdown."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

import fastapi
from starlette.routing import BaseRoute, Match, Mount

from nonlocal_video import __version__
from nonlocal_video.errors import UsageError
from nonlocal_video.inference.load import load
from nonlocal_video.inference.precision import Precision
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.inference.runtimes.device import Runtime, in_words
from nonlocal_video.samples import Sample, available_samples
from nonlocal_video.video.limits import DecodeLimits

from .body_limit import BodyLimit
from .cleanup import KEEP_SECONDS, cleaning_up
from .graceful_shutdown import BEGIN, GracefulServer
from .hosts import OwnHosts
from .internals import missing, require
from .login import Login, read_tokens

DEFAULT_MAX_UPLOAD_MB = 500
MAX_FILES = 20
"""Maximum number of clips of the largest size in one upload of the page, which sends a folder's files together."""
MAX_SESSIONS = 500
"""Maximum number of sessions that Gradio remembers, including closed ones, at about 0.1 MB each."""
API = "The likeliest actions of a clip, where the network looked, and what happens when in a long video."
PROCESS_RECORDING = "/gradio_api/process_recording"
LOOPBACK_OF = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Loopback address of a server that listens on all addresses."""


def serve(
    model: str = "default",
    *,
    device: str = "auto",
    runtime: Runtime = "torch",
    precision: Precision = "float32",
    host: str = "127.0.0.1",
    port: int = 7860,
    allowed_hosts: Sequence[str] = (),
    auth: tuple[str, str] | None = None,
    token_file: Path | None = None,
    max_upload_mb: int = DEFAULT_MAX_UPLOAD_MB,
    keep_seconds: float = KEEP_SECONDS,
    folder_root: Path | None = None,
    allow_webhook: Sequence[str] = (),
) -> None:
    """Load a model and serve the page until SIGINT or SIGTERM; requests in progress are then finished.

    Call this in the main thread.

    Args:
        model: Catalogue name, weights file, folder of a training run, or `package.module:function`; see `nlv.load`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        runtime: Runtime of folders, timelines and several views; maps, and so the answer for one view, use PyTorch.
        precision: Numeric precision of the network; see `nlv.load`.
        host: Address to listen on; 0.0.0.0 is every address of this machine.
        port: Port to listen on; 0 chooses a free one.
        allowed_hosts: Names of this server beside loopback names and IP addresses; others are refused.
        auth: User name and password; None requires no login.
        token_file: Text file with a token for programs on each line, in place of the password; needs `auth`.
        max_upload_mb: Maximum size of an upload, in MB.
        keep_seconds: Lifetime of uploads and results on the server.
        folder_root: Folder of the server that visitors may classify, with its subfolders; None offers none.
        allow_webhook: Hosts that programs may have told of the end of a job.

    Raises:
        UsageError: An argument is invalid, or the port is in use.
        ModelError: The model cannot be loaded.
    """
    if max_upload_mb < 1:
        raise UsageError(f"--max-upload-mb {max_upload_mb} should be at least 1.")
    if not keep_seconds > 0:
        raise UsageError(f"--keep-minutes {keep_seconds / 60:g} should be above 0.")
    if auth is not None and not all(auth):
        raise UsageError("--auth should be USER:PASS, neither of them empty.")
    if token_file is not None and auth is None:
        raise UsageError("--token-file needs --auth USER:PASS: without a password everybody may use the server anyway.")
    tokens = () if token_file is None else read_tokens(token_file)
    if folder_root is not None and not folder_root.is_dir():
        raise UsageError(f"--folder-root {str(folder_root)!r} should be a folder that exists.")
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    with ExitStack() as stack:
        # First, so that a port in use is reported before a model is loaded.
        listener = stack.enter_context(_listen(host, port))
        # Uvicorn re-raises the signal after its own shutdown: as an exception it unwinds this block.
        signal.signal(signal.SIGTERM, _exit)
        # Uploads are stored in a private folder, which is deleted at the end.
        folder = stack.enter_context(TemporaryDirectory(prefix="nonlocal-video-"))
        os.environ["GRADIO_TEMP_DIR"] = folder
        limits = DecodeLimits(max_bytes=max_upload_mb * 1024**2)
        recognizer = stack.enter_context(
            load(model, device=device, runtime=runtime, precision=precision, limits=limits)
        )
        app = create_app(
            [recognizer],
            samples=available_samples(),
            allowed_hosts=allowed_hosts,
            auth=auth,
            tokens=tokens,
            max_upload_mb=max_upload_mb,
            keep_seconds=keep_seconds,
            folder_root=folder_root,
            allow_webhook=allow_webhook,
        )
        stack.enter_context(cleaning_up(Path(folder), keep_seconds))
        _announce(recognizer, host, listener.getsockname()[1], auth=auth)
        with suppress(KeyboardInterrupt):
            GracefulServer(app, on_signal=app.state.on_signal, on_deadline=app.state.on_deadline).run(
                sockets=[listener]
            )


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
) -> fastapi.FastAPI:
    """Make the ASGI application: the page at `/`, the HTTP API at `/v1`, and the health check at `/healthz`."""
    # Gradio takes seconds to import, and creates its folder on import: `serve` sets its path first.
    import gradio as gr

    from .gradio_bounds import bound_sessions, keep_cleaning
    from .http_api import HttpApi, add_http_api
    from .jobs import Jobs
    from .live_routes import add_live_routes
    from .live_sessions import LiveSessions
    from .no_remote_fetch import forbid_remote_fetch
    from .page import MAX_WAITING, STYLE, build_page, theme
    from .turns import Turns

    forbid_remote_fetch()
    jobs = Jobs(max_waiting=MAX_WAITING, keep_seconds=keep_seconds)

    @asynccontextmanager
    async def lifespan(_: fastapi.FastAPI) -> AsyncIterator[None]:
        yield
        cameras.close()
        await jobs.close()

    app = fastapi.FastAPI(
        title="nonlocal-video", version=__version__, description=API, openapi_url=None, lifespan=lifespan
    )
    turns = Turns(MAX_WAITING, others=lambda: len(page._queue))
    app.state.on_signal, app.state.on_deadline = jobs.end, turns.end
    by_name = {recognizer.card.name: recognizer for recognizer in recognizers}
    names = list(by_name)
    cameras = LiveSessions(by_name, turns)

    # Not in a thread: those may all be busy with uploads.
    @app.get("/healthz")
    async def healthz(response: fastapi.Response) -> dict[str, object]:
        for recognizer in recognizers:
            if recognizer.failed is not None:
                response.status_code = fastapi.status.HTTP_503_SERVICE_UNAVAILABLE
                return {"status": "failed", "models": names, "error": str(recognizer.failed)}
        return {"status": "ok", "models": names}

    # Gradio's own route for screen recordings runs ffmpeg on any posted data.
    @app.post(PROCESS_RECORDING, include_in_schema=False)
    def process_recording() -> fastapi.Response:
        return fastapi.Response(status_code=404)

    # A copy in the upload folder would be deleted like an upload, while the page still offers it.
    gr.set_static_paths([str(sample.path) for sample in samples])
    page = build_page(
        recognizers, samples=samples, max_upload_mb=max_upload_mb, keep_seconds=keep_seconds, folder_root=folder_root
    )
    # Only on launched pages, Gradio checks that a file named by a client was uploaded, and a mounted page is not
    # launched: without this line, any file of the server could be read.
    require(page, "has_launched", library="gradio", purpose="to read uploads and no other file")
    page.has_launched = True
    bound_sessions(page, MAX_SESSIONS)
    keep_cleaning()
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
    gradio_app: Any
    (gradio_app,) = [route.app for route in mounted.routes if isinstance(route, Mount)]
    _require_routes(gradio_app.routes)
    if auth is not None:
        for name in ("tokens", "cookie_id"):
            require(gradio_app, name, library="gradio", purpose="to know who has signed in")
        mounted.add_middleware(Login, auth=auth, tokens=tuple(tokens), user_of=partial(_user_of, gradio_app))
    # The last one added is asked first: names and sites, then the size of the body, then who asks.
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


def _require_routes(routes: Sequence[BaseRoute]) -> None:
    """Check that Gradio's routes that this server blocks or counts still have the expected paths."""
    for path, purpose in (
        (PROCESS_RECORDING, "to keep FFmpeg from running on whatever is posted"),
        (f"/gradio_api{BEGIN}", "to end no recognition half-way"),
    ):
        posted = {"type": "http", "method": "POST", "path": path, "root_path": "", "headers": []}
        if all(route.matches(posted)[0] != Match.FULL for route in routes):
            raise missing(f"route {path}", library="gradio", purpose=purpose)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise UsageError(f"cannot listen on {host}:{port}: {error}. Choose another --host or --port.") from error


def _announce(recognizer: Recognizer, host: str, port: int, *, auth: tuple[str, str] | None) -> None:
    print(
        f"Model {recognizer.card.name} on {in_words(recognizer.device, recognizer.runtime, recognizer.precision)}",
        file=sys.stderr,
    )
    shown = LOOPBACK_OF.get(host, host)
    if ":" in shown:
        shown = f"[{shown}]"
    print(f"Page on http://{shown}:{port} (Ctrl-C ends it)", file=sys.stderr, flush=True)
    if host in LOOPBACK_OF and auth is None:
        print("Everybody who can reach this machine can use it; --auth USER:PASS asks for a password.", file=sys.stderr)


def _exit(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(0)
