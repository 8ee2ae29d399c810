"""Worker process of `many_devices`: loads the model on its device and works on files one by one. Not for users."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import closing
from multiprocessing.connection import Connection
from typing import Any

import torch

from nonlocal_video.errors import DeviceError, NonlocalVideoError
from nonlocal_video.inference.feature_stream import stream_features
from nonlocal_video.inference.folder import as_video_error, classify_files
from nonlocal_video.inference.load import load
from nonlocal_video.inference.many_devices import DeviceJob
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.inference.request import ClipRequest


def main(descriptor: int) -> None:
    """Classify files for the process at the other end of a connection until it has no more, or is gone.

    Args:
        descriptor: File descriptor of the connection.
    """
    connection = Connection(descriptor)
    with connection:
        try:
            _serve(connection, connection.recv())
        except (EOFError, BrokenPipeError, ConnectionResetError):
            os._exit(0)  # the run has ended; decoding processes end with their parent
        except NonlocalVideoError as error:
            connection.send(("ended", error))


def _serve(connection: Connection, job: DeviceJob) -> None:
    if job.num_threads is not None:
        torch.set_num_threads(job.num_threads)

    def files() -> Iterator[str]:
        while True:
            connection.send(("next", None))
            file = connection.recv()
            if file is None:
                return
            yield file

    with load(job.model, **job.options.keywords()) as recognizer, closing(_outcomes(recognizer, files(), job)) as found:
        for outcome in found:
            connection.send(("outcome", outcome))
    connection.send(("ended", None))


def _outcomes(recognizer: Recognizer, files: Iterator[str], job: DeviceJob) -> Generator[Any, None, None]:
    """Yield what the job asks of each file, in order."""
    workers, batch_size = job.workers, job.batch_size
    if isinstance(job.request, ClipRequest):
        yield from classify_files(
            recognizer, files, job.request, workers=workers, batch_size=batch_size, device=recognizer.device
        )
        return
    for path, found in stream_features(recognizer, files, job.request, workers=workers, batch_size=batch_size):
        if isinstance(found, DeviceError):
            raise found
        # Other exceptions may not survive the way to another process.
        yield path, as_video_error(path, found) if isinstance(found, Exception) else found
