"""Features of many videos on Ray Data: a pool of actors, each with a network and its own decoding."""

from __future__ import annotations

import os
import pickle
from collections.abc import Generator, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nonlocal_video.errors import DeviceError, UsageError
from nonlocal_video.inference.feature_stream import stream_features
from nonlocal_video.inference.folder import as_video_error
from nonlocal_video.inference.load import load
from nonlocal_video.inference.options import RunOptions
from nonlocal_video.inference.ray.engine import (
    Cluster,
    FileTable,
    actor_resources,
    check_options,
    errors_of_devices,
    names_on_ray,
)
from nonlocal_video.inference.window_features import FeatureRequest, WindowFeatures

if TYPE_CHECKING:
    import pyarrow

    from nonlocal_video.inference.recognizer import Recognizer


@dataclass(frozen=True)
class _Job:
    """Job of an actor, the same for all files."""

    model: str
    options: RunOptions
    request: FeatureRequest
    batch_size: int | None
    workers: int


def features_on_ray(
    predictor: Recognizer,
    files: Iterable[str],
    request: FeatureRequest,
    cluster: Cluster,
    *,
    device: str = "auto",
    batch_size: int | None = None,
) -> Generator[tuple[str, WindowFeatures | Exception], None, None]:
    """Yield every file with its features or its error, in order, as `feature_stream.stream_features` does.

    Args:
        predictor: Gives the model and its options; it runs no clip itself.
        files: Paths or URLs that every machine of the cluster can read.
        request: What to compute of each.
        cluster: Cluster to run on; its `decoders` are those of each actor.
        device: `auto`, `cpu` or `cuda`, of the actors.
        batch_size: Windows in one forward pass; None is as many as suit the device.

    Raises:
        UsageError: Ray is not available, the model has no name, or the job needs a GPU and the cluster has none.
        DeviceError: The device of an actor has failed.
    """
    if predictor.source is None:
        raise UsageError(
            "engine = 'ray' needs a recognizer from nlv.load, as every process loads the model by its name."
        )
    options = replace(predictor.options, device=device)
    check_options(options)
    request.checked(predictor)
    dataset = names_on_ray(files, cluster)
    if dataset is None:
        return
    # The data set's own copy: today's context was copied when it was made, and is the caller's.
    dataset.context.execution_options.preserve_order = True
    job = _Job(predictor.source, options, request, batch_size, cluster.decoders or 1)
    found = dataset.map_batches(
        _Features, fn_constructor_args=(job,), batch_size=None, **actor_resources(options, cluster)
    )
    rows = iter(found.iter_rows())
    while True:
        with errors_of_devices():  # not around `yield`: errors of who asks for the rows are not Ray's
            row = next(rows, None)
        if row is None:
            return
        yield pickle.loads(row["found"])  # written by our own actors


class _Features:
    """Actor that holds the network, and decodes and computes the files of a task."""

    def __init__(self, job: _Job) -> None:
        self.job = job
        self.recognizer = load(job.model, **job.options.keywords())

    def __call__(self, files: FileTable) -> pyarrow.Table:
        import pyarrow as pa

        names = [os.fsdecode(name) for name in files["path"]]
        rows = []
        for path, found in stream_features(
            self.recognizer, names, self.job.request, workers=self.job.workers, batch_size=self.job.batch_size
        ):
            if isinstance(found, DeviceError):
                raise found
            kept = as_video_error(path, found) if isinstance(found, Exception) else found
            rows.append(pickle.dumps((path, kept)))
        return pa.table({"found": pa.array(rows, pa.large_binary())})
