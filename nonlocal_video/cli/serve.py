"""`nonlocal-video serve`: the web page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nonlocal_video.cli import options
from nonlocal_video.errors import UsageError


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 accepts other machines.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 chooses a free one.")] = 7860,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            envvar="NONLOCAL_VIDEO_ALLOWED_HOST",
            help="Name of this server beside localhost and IP addresses; may be repeated (default: none).",
        ),
    ] = None,
    auth: Annotated[str | None, typer.Option(help="USER:PASS required to open the page (default: no login).")] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="File with a token for programs on each line (default: none); needs --auth.")
    ] = None,
    max_upload_mb: Annotated[int, typer.Option(min=1, help="Maximum size of an upload, in megabytes.")] = 500,
    keep_minutes: Annotated[float, typer.Option(help="Minutes after which uploads and results are deleted.")] = 60,
    folder_root: Annotated[
        Path | None,
        typer.Option(help="Folder of this machine that visitors may classify, with its subfolders (default: none)."),
    ] = None,
    allow_webhook: Annotated[
        list[str] | None,
        typer.Option(help="Host that programs may have told of the end of a job; may be repeated (default: none)."),
    ] = None,
    allow_pull: Annotated[
        bool, typer.Option("--allow-pull", help="Let visitors download the recommended published models.")
    ] = False,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Catalogue name, .safetensors file of this project, folder of a training run, or "
            "package.module:function; several, to choose from, if repeated. The first is shown first (default: "
            "$NONLOCAL_VIDEO_MODEL, or the one in the package)."
        ),
    ] = None,
    device: options.Device = "auto",
    runtime: options.Runtime = options.RuntimeChoice.auto,
    precision: options.Precision = options.PrecisionChoice.float32,
) -> None:
    """Start the web page: upload a clip, see its actions and where the network looked."""
    user_and_password = None
    if auth is not None:
        user, colon, password = auth.partition(":")
        if not (user and colon and password):
            raise UsageError("auth should be USER:PASS.")
        user_and_password = (user, password)

    from nonlocal_video.app import serve as serve_page

    serve_page(
        model=model or [options.default_model()],
        device=device,
        runtime=runtime.value,
        precision=precision.value,
        host=host,
        port=port,
        allowed_hosts=allowed_host or (),
        auth=user_and_password,
        token_file=token_file,
        max_upload_mb=max_upload_mb,
        keep_seconds=60 * keep_minutes,
        folder_root=folder_root,
        allow_webhook=allow_webhook or (),
        allow_pull=allow_pull,
    )
