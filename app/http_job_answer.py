"""The answer with a job, whose result may be too large to be read for each who asks."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import BinaryIO

from fastapi.responses import JSONResponse, Response, StreamingResponse

from .jobs import Job

_PART_BYTES = 256 * 1024


def job_response(job: Job) -> Response:
    """Return a job as JSON, with its result as it lies on the disk.

    The features of 5,000 windows have 60 MB. Read, checked and written anew for each who asks, they would take seconds
    and several times their size in memory.
    """
    if job.result is None:
        return JSONResponse(job.without_result())
    file = job.result.open("rb")
    head, tail = json.dumps(job.without_result()).encode().removesuffix(b"null}"), b"}"
    size = len(head) + os.fstat(file.fileno()).st_size + len(tail)
    parts = _parts(head, file, tail)
    return StreamingResponse(parts, media_type="application/json", headers={"Content-Length": str(size)})


def _parts(head: bytes, file: BinaryIO, tail: bytes) -> Iterator[bytes]:
    with file:
        yield head
        while part := file.read(_PART_BYTES):
            yield part
    yield tail
