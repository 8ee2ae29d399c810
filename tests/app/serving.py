"""A real server for the tests: the program that users start, in a process of its own; or an application alone."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil
import uvicorn
from starlette.types import ASGIApp

START_WITHIN_SECONDS = 120
STOP_WITHIN_SECONDS = 30
CHILDREN_END_WITHIN_SECONDS = 30


@dataclass(frozen=True)
class Server:
    """A running server."""

    url: str
    process: subprocess.Popen[str]
    temporary: Path
    """Folder in which the server and its libraries may leave files."""


@contextmanager
def serving_here(app: ASGIApp) -> Iterator[str]:
    """An application on a free port, from a thread of this process, which has all libraries already; its address."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(STOP_WITHIN_SECONDS)


@contextmanager
def serving(folder: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> Iterator[Server]:
    """`nonlocal-video serve` on a free port, until the block ends.

    A tiny network would be compiled on a machine that is busy enough to make it slow, and its scores then differ from
    PyTorch's in the last digits.
    """
    if "--model" in arguments and "--runtime" not in arguments:
        arguments = (*arguments, "--runtime", "torch")
    process = subprocess.Popen(
        [sys.executable, "-m", "nonlocal_video", "serve", "--port", "0", "--device", "cpu", *arguments],
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder), **(environment or {})},
        stderr=subprocess.PIPE,
        text=True,
    )
    kill = threading.Timer(START_WITHIN_SECONDS, process.kill)
    kill.start()
    said: list[str] = []
    assert process.stderr is not None
    reader = threading.Thread(target=_pass_on, args=[process.stderr], daemon=True)
    try:
        for line in process.stderr:
            said.append(line)
            if found := re.search(r"http://\S+", line):
                break
        else:
            raise AssertionError(f"the server ended with {process.wait()}:\n{''.join(said)}")
        kill.cancel()
        reader.start()
        yield Server(found[0], process, folder)
    finally:
        kill.cancel()
        process.terminate()
        try:
            process.wait(STOP_WITHIN_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        if reader.ident is not None:  # started: the rest is printed while the test's standard error is still open
            reader.join(STOP_WITHIN_SECONDS)


def only_decoder(server: Server) -> psutil.Process:
    """The process that decodes clips for the server, once those that read the moments of long clips have ended."""
    deadline = time.monotonic() + CHILDREN_END_WITHIN_SECONDS
    while len(decoders := _decoders(server)) != 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    (decoder,) = decoders
    return decoder


def files_of(server: Server, ending: str) -> set[Path]:
    """Files of the server with this ending, whatever it deletes meanwhile (`rglob` fails at a folder that is gone)."""
    found = (Path(parent) / name for parent, _, names in os.walk(server.temporary) for name in names)
    return {path for path in found if path.name.endswith(ending)}


def _decoders(server: Server) -> list[psutil.Process]:
    """Children without the one that decodes cameras' pictures, which stays after the first camera."""
    found = []
    for child in psutil.Process(server.process.pid).children():
        with suppress(psutil.NoSuchProcess):
            if "_live_worker" not in " ".join(child.cmdline()):
                found.append(child)
    return found


def _pass_on(stream: IO[str]) -> None:
    """Pass the server's later output on to the test's; left unread it would fill the pipe."""
    with stream:
        sys.stderr.writelines(stream)
