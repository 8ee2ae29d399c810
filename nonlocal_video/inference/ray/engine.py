"""The folder run on Ray Data: decoding tasks, a pool of actors that hold the network, Parquet part files.

The stages are those of `nonlocal_video.inference.folder`, and so are the rows. Ray schedules them, moves clips between
machines, holds decoding back while the networks are busy, and starts again what died.
"""

from __future__ import annotations

import itertools
import json
import logging
import math
import os
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from nonlocal_video.errors import UsageError
from nonlocal_video.inference.folder import answer
from nonlocal_video.inference.load import load
from nonlocal_video.inference.precision import Precision, check_precision
from nonlocal_video.inference.preprocessing import ClipLoader, ClipRequest, LoadedClip
from nonlocal_video.inference.recognizer import Decoder
from nonlocal_video.inference.runtimes.device import Runtime, check_runtime
from nonlocal_video.models.card import InputSpec
from nonlocal_video.video.decode import DecodeLimits, VideoReader

if TYPE_CHECKING:
    import pyarrow
    import ray.data

_FILES_PER_TASK = 64
"""Through one decoding child, whose start costs a third of a second."""
_MAX_TASKS = 10_000
_BLOCK_BYTES = 32 * 1024**2
"""Size of a block of decoded clips, about three of 64 frames; the networks begin with the first block."""

FileTable = dict[str, np.ndarray[Any, np.dtype[np.object_]]]


@dataclass(frozen=True)
class Cluster:
    """Which machines, and how much of them one network gets."""

    address: str | None = None
    """Address of a running cluster, as `ray start` prints it, or `auto`; None starts Ray on this machine."""
    actors: int | None = None
    """Processes that hold a network; None is one for each GPU of the cluster, or one where there is none."""
    gpus_per_actor: float | None = None
    """A fraction lets several share a GPU; None is 1 where the cluster has GPUs and the job takes them."""
    cpus_per_actor: float = 1.0
    """Also the network's threads on a CPU."""
    decoders: int | None = None
    """Decoding tasks at a time; None is as many as there are free CPUs."""

    def __post_init__(self) -> None:
        for name in ("actors", "decoders"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise UsageError(f"{name} = {number} should be at least 1.")
        if self.gpus_per_actor is not None and self.gpus_per_actor < 0:
            raise UsageError(f"gpus_per_actor = {self.gpus_per_actor} should be at least 0.")
        if not self.cpus_per_actor > 0:
            raise UsageError(f"cpus_per_actor = {self.cpus_per_actor} should be above 0.")


@dataclass(frozen=True)
class ClusterJob:
    """What is done with each file; it travels to every process of the run."""

    model: str
    """A catalogue name or a weights file that every machine sees under this name."""
    spec: InputSpec
    request: ClipRequest
    device: str = "auto"
    runtime: Runtime = "torch"
    precision: Precision = "float32"
    decoder: Decoder = "auto"
    limits: DecodeLimits = field(default_factory=DecodeLimits)
    batch_size: int = 1
    top_k: int = 5

    def __post_init__(self) -> None:
        check_runtime(self.runtime, self.device)
        check_precision(self.precision, self.device, runtime=self.runtime)
        if self.device not in ("auto", "cpu", "cuda"):
            raise UsageError(
                f"device = {self.device!r} with engine = 'ray': Ray gives every process a GPU of its own, which "
                f"it sees as the first one. Take auto, cpu or cuda."
            )

    @property
    def takes_gpus(self) -> bool:
        """Whether the networks run on GPUs where there are any."""
        return self.device != "cpu" and self.runtime != "openvino"


def connect(cluster: Cluster) -> None:
    """Joins the cluster, or starts Ray on this machine; does nothing if that was done already.

    Raises:
        UsageError: Ray is not installed, or nothing answers at the address.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UsageError("--engine ray needs Ray Data: pip install 'nonlocal-video[ray]'") from error
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = _BLOCK_BYTES
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    if ray.is_initialized():
        return
    # Without these Ray writes its own progress and addresses over our output.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
    if cluster.address is None:
        ray.init(include_dashboard=False, **quiet)
        return
    host, _, port = cluster.address.rpartition(":")
    try:
        if host and port.isdecimal():  # Ray itself tries for minutes
            socket.create_connection((host.rpartition("/")[2], int(port)), timeout=10).close()
        ray.init(address=cluster.address, **quiet)
    except OSError as error:
        raise UsageError(
            f"ray-address = {cluster.address!r}: no cluster answers there, or not to us ({error}). One that was "
            f"started with a token wants the same here (RAY_AUTH_TOKEN), or RAY_AUTH_MODE=disabled on both sides."
        ) from error


def classify_on_ray(files: Iterable[str], job: ClusterJob, cluster: Cluster) -> ray.data.Dataset | None:
    """A data set with one column, `row`: for every file, in no order, what `classify --json` prints of it.

    None if there are no files.

    Nothing runs before the data set is iterated over or written. Names are collected first (100 bytes each), clips
    and rows flow.
    """
    import pyarrow as pa

    connect(cluster)
    import ray

    names = pa.chunked_array([], pa.binary())
    iterator = iter(files)
    while chunk := [os.fsencode(name) for name in itertools.islice(iterator, 10_000)]:
        names = pa.chunked_array([*names.chunks, pa.array(chunk, pa.binary())])
    if not len(names):
        return None
    resources = ray.cluster_resources()
    gpus = resources.get("GPU", 0.0) if job.takes_gpus else 0.0
    if not gpus and (job.device == "cuda" or job.precision == "tf32" or cluster.gpus_per_actor):
        asked = "device = 'cuda'" if job.device == "cuda" else "precision = 'tf32'"
        if cluster.gpus_per_actor:
            asked = f"gpus_per_actor = {cluster.gpus_per_actor:g}"
        why = "the cluster has no GPU" if job.takes_gpus else f"the networks run on the CPU (device {job.device!r})"
        raise UsageError(f"{asked}, but {why}: they would wait for ever. Leave it out, or add a machine with GPUs.")
    gpus_per_actor = cluster.gpus_per_actor if cluster.gpus_per_actor is not None else float(gpus > 0)
    actors = cluster.actors or max(1, int(gpus / gpus_per_actor) if gpus_per_actor else 1)
    # Enough tasks for every CPU; not so small that the start of a decoding child shows; not more than Ray likes.
    tasks = max(math.ceil(len(names) / _FILES_PER_TASK), min(len(names), 2 * int(resources.get("CPU", 1))))
    dataset = ray.data.from_arrow(pa.table({"path": names}), override_num_blocks=min(tasks, _MAX_TASKS))
    decoded = dataset.map_batches(
        _load_clips,
        fn_args=(job,),
        batch_size=None,
        num_cpus=1,
        # What libraries leak goes with the process. That it differs from the actors' arguments also keeps Ray from
        # fusing the two stages into one that decodes and computes by turns.
        max_calls=100,
        compute=ray.data.TaskPoolStrategy(size=cluster.decoders) if cluster.decoders else None,
    )
    return decoded.map_batches(
        _Network,
        fn_constructor_args=(job,),
        batch_size=job.batch_size,
        num_cpus=cluster.cpus_per_actor,
        num_gpus=gpus_per_actor or None,
        compute=ray.data.ActorPoolStrategy(size=actors),
    )


def _load_clips(files: FileTable, job: ClusterJob) -> Iterator[FileTable]:
    """A task: decodes some files in a child process, one row after the other."""
    with VideoReader(decoder=job.decoder, limits=job.limits) as reader:
        loader = ClipLoader(reader)
        for name in files["path"]:
            clip: LoadedClip | Exception
            try:
                clip = loader.load(os.fsdecode(name), job.spec, job.request, originals=None)
            except Exception as error:  # it becomes the file's row
                clip = error
            yield {"path": _objects([name]), "clip": _objects([clip])}


class _Network:
    """An actor: holds the network and turns clips into rows."""

    def __init__(self, job: ClusterJob) -> None:
        self.job = job
        self.recognizer = load(
            job.model,
            device=job.device,
            runtime=job.runtime,
            precision=job.precision,
            decoder=job.decoder,
            limits=job.limits,
        )

    def __call__(self, clips: FileTable) -> pyarrow.Table:
        import pyarrow as pa

        group = [(os.fsdecode(path), clip) for path, clip in zip(clips["path"], clips["clip"], strict=True)]
        outcomes = answer(self.recognizer, group, self.job.batch_size)
        return pa.table({"row": [json.dumps(outcome.to_row(self.job.top_k)) for outcome in outcomes]})


def _objects(values: list[Any]) -> np.ndarray[Any, np.dtype[np.object_]]:
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column
