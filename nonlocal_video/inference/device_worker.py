"""Worker process of `many_devices`: loads the model on its device and classifies files one by one. Not for users."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from multiprocessing.connection import Connection

import torch

from nonlocal_video.errors import NonlocalVideoError
from nonlocal_video.inference.folder import classify_files
from nonlocal_video.inference.load import load
from nonlocal_video.inference.many_devices import DeviceJob


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

    with load(job.model, **job.options.keywords()) as recognizer:
        outcomes = classify_files(
            recognizer,
            files(),
            job.request,
            workers=job.workers,
            batch_size=job.batch_size,
            device=recognizer.device,
        )
        with closing(outcomes):
            for outcome in outcomes:
                connection.send(("outcome", outcome))
    connection.send(("ended", None))
