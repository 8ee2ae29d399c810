"""The server of the page: limits, login, health check, and clean shutdown."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

from nonlocal_video.errors import UsageError
from nonlocal_video.inference.load import load
from nonlocal_video.inference.precision import Precision
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.inference.runtimes.choice import RuntimeOption
from nonlocal_video.inference.runtimes.device import in_words
from nonlocal_video.samples import available_samples
from nonlocal_video.video.limits import DecodeLimits

from .application import DEFAULT_MAX_UPLOAD_MB, create_app
from .cleanup import KEEP_SECONDS, cleaning_up
from .graceful_shutdown import GracefulServer
from .login import read_tokens

LOOPBACK_OF = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Loopback address of a server that listens on all addresses."""


def serve(
    model: str | Sequence[str] = "default",
    *,
    device: str = "auto",
    runtime: RuntimeOption = "auto",
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
    allow_pull: bool = False,
) -> None:
    """Load models and serve the page until SIGINT or SIGTERM; requests in progress are then finished.

    Call this in the main thread.

    Args:
        model: Catalogue name, weights file, folder of a training run, or `package.module:function`; see `nlv.load`.
            Visitors choose among several.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        runtime: Runtime of the network; see `nlv.load`. OpenVINO is made ready before the page opens.
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
        allow_pull: Whether visitors may download the recommended published models.

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
        stack.enter_context(_uploads_in(folder))
        limits = DecodeLimits(max_bytes=max_upload_mb * 1024**2)
        recognizers = [
            stack.enter_context(load(name, device=device, runtime=runtime, precision=precision, limits=limits))
            for name in ([model] if isinstance(model, str) else model)
        ]
        for recognizer in recognizers:
            recognizer.prepare()
        app = create_app(
            recognizers,
            samples=available_samples(),
            allowed_hosts=allowed_hosts,
            auth=auth,
            tokens=tokens,
            max_upload_mb=max_upload_mb,
            keep_seconds=keep_seconds,
            folder_root=folder_root,
            allow_webhook=allow_webhook,
            allow_pull=allow_pull,
        )
        stack.enter_context(cleaning_up(Path(folder), keep_seconds))
        _announce(recognizers, host, listener.getsockname()[1], auth=auth)
        with suppress(KeyboardInterrupt):
            GracefulServer(app, on_signal=app.state.on_signal, on_deadline=app.state.on_deadline).run(
                sockets=[listener]
            )


@contextmanager
def _uploads_in(folder: str) -> Iterator[None]:
    """Let Gradio keep uploads in a folder, and as before at the end."""
    before = os.environ.get("GRADIO_TEMP_DIR")
    os.environ["GRADIO_TEMP_DIR"] = folder
    try:
        yield
    finally:
        if before is None:
            del os.environ["GRADIO_TEMP_DIR"]
        else:
            os.environ["GRADIO_TEMP_DIR"] = before


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise UsageError(f"cannot listen on {host}:{port}: {error}. Choose another --host or --port.") from error


def _announce(recognizers: Sequence[Recognizer], host: str, port: int, *, auth: tuple[str, str] | None) -> None:
    for recognizer in recognizers:
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
