"""Folder runs on Ray Data: decoding tasks, a pool of actors with the network, Parquet part files.

Stages and rows are those of `nonlocal_video.inference.folder`. Ray schedules the stages, moves clips between machines,
limits decoding while the networks are busy, and restarts failed processes.
"""

from __future__ import annotations

import itertools
import json
import logging
import math
import os
import re
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from nonlocal_video.errors import DeviceError, UsageError
from nonlocal_video.inference.folder import answer
from nonlocal_video.inference.load import load
from nonlocal_video.inference.options import RunOptions
from nonlocal_video.inference.precision import check_precision
from nonlocal_video.inference.preprocessing import ClipLoader, LoadedClip
from nonlocal_video.inference.request import ClipRequest
from nonlocal_video.inference.runtimes.device import check_runtime
from nonlocal_video.models.card import InputSpec

if TYPE_CHECKING:
    import pyarrow
    import ray.data

_NO_RAY = "engine = 'ray' needs Ray Data: pip install 'nonlocal-video[ray]'"
_FILES_PER_TASK = 64
"""Files per decoding task; the start of its decoding process takes a third of a second."""
_MAX_TASKS = 10_000
_BLOCK_BYTES = 32 * 1024**2
"""Size of a block of decoded clips, about three of 64 frames; the networks start with the first block."""

FileTable = dict[str, np.ndarray[Any, np.dtype[np.object_]]]


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster, and the resources of each network on it."""

    address: str | None = None
    """Address of a running cluster, as `ray start` prints it, or `auto`; None starts Ray on this machine."""
    actors: int | None = None
    """Number of processes with a network; None is one per GPU of the cluster, or one without GPUs."""
    gpus_per_actor: float | None = None
    """GPUs per actor, may be fractional; None is 1 if the cluster has GPUs and the job uses them."""
    cpus_per_actor: float = 1.0
    """CPUs per actor, and threads of the network on a CPU."""
    decoders: int | None = None
    """Number of parallel decoding tasks; None is the number of free CPUs."""

    def __post_init__(self) -> None:
        if find_spec("ray") is None:  # said before an output is begun
            raise UsageError(_NO_RAY)
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
    """Job of a Ray run, the same for all files; it is sent to every process."""

    model: str
    """Catalogue name, or path of a weights file or `package.module:function` on every machine."""
    spec: InputSpec
    """Input of the network."""
    request: ClipRequest
    """Request, the same for all files."""
    options: RunOptions = field(default_factory=RunOptions)
    """Options of the model's run."""
    batch_size: int = 1
    top_k: int = 5

    def __post_init__(self) -> None:
        check_options(self.options)

    @property
    def uses_gpus(self) -> bool:
        """Whether the networks use GPUs if there are any."""
        return may_use_gpus(self.options)


def check_options(options: RunOptions) -> None:
    """Refuse options with which no process of a cluster can run a network.

    Raises:
        UsageError: The device is a single one, or runtime or precision do not run on it.
    """
    device, runtime = options.device, options.runtime
    check_runtime(runtime, device)
    check_precision(options.precision, device, runtime=runtime)
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(
            f"device = {device!r} with engine = 'ray': Ray assigns GPUs to the processes, and each sees "
            f"its own as the first. Use auto, cpu or cuda."
        )


def may_use_gpus(options: RunOptions) -> bool:
    """Return whether the networks use GPUs if there are any."""
    return options.device != "cpu" and options.runtime != "openvino"


def connect(cluster: Cluster) -> None:
    """Connect to the cluster, or start Ray on this machine, unless that was done before.

    Raises:
        UsageError: Ray is not installed, or the cluster does not respond.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UsageError(_NO_RAY) from error
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = _BLOCK_BYTES
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    if ray.is_initialized():
        return
    # Without these, Ray prints its progress and addresses into our output.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
    if cluster.address is None:
        ray.init(include_dashboard=False, **quiet)
        return
    host, _, port = cluster.address.rpartition(":")
    try:
        if host and port.isdecimal():  # Ray itself retries for minutes
            socket.create_connection((host.rpartition("/")[2], int(port)), timeout=10).close()
        ray.init(address=cluster.address, **quiet)
    except OSError as error:
        raise UsageError(
            f"ray-address = {cluster.address!r}: no cluster responds, or it rejects the connection ({error}). A "
            f"cluster started with a token needs the same token here (RAY_AUTH_TOKEN), or RAY_AUTH_MODE=disabled on "
            f"both sides."
        ) from error


def classify_on_ray(files: Iterable[str], job: ClusterJob, cluster: Cluster) -> ray.data.Dataset | None:
    """Return a data set with one column, `row`: the row of `classify --json` for every file, in any order.

    Nothing runs before the data set is iterated over or written. File names are collected first (100 bytes each); clips
    and rows are streamed.

    Args:
        files: Paths or URLs.
        job: What to do with each file.
        cluster: Cluster to run on.

    Returns:
        The data set, or None if there are no files.

    Raises:
        UsageError: Ray is not available, or the job needs a GPU and the cluster has none.
    """
    dataset = names_on_ray(files, cluster)
    if dataset is None:
        return None
    import ray

    decoded = dataset.map_batches(
        _load_clips,
        fn_args=(job,),
        batch_size=None,
        num_cpus=1,
        # Ending processes frees what libraries leak. Arguments that differ from the actors' also keep Ray from fusing
        # the two stages into one that alternates between decoding and the network.
        max_calls=100,
        compute=ray.data.TaskPoolStrategy(size=cluster.decoders) if cluster.decoders else None,
    )
    return decoded.map_batches(
        _Network, fn_constructor_args=(job,), batch_size=job.batch_size, **actor_resources(job.options, cluster)
    )


def names_on_ray(files: Iterable[str], cluster: Cluster) -> ray.data.Dataset | None:
    """Return a data set with one column, `path`, as bytes, divided into tasks; None if there are no files.

    Raises:
        UsageError: Ray is not available.
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
    # Enough tasks for every CPU, large enough to amortise the start of a decoding process, not too many for Ray.
    cpus = int(ray.cluster_resources().get("CPU", 1))
    tasks = max(math.ceil(len(names) / _FILES_PER_TASK), min(len(names), 2 * cpus))
    return ray.data.from_arrow(pa.table({"path": names}), override_num_blocks=min(tasks, _MAX_TASKS))


@contextmanager
def errors_of_devices() -> Iterator[None]:
    """Raise the error of a device that failed in a process of Ray as itself, without Ray's words and traces around it.

    Raises:
        DeviceError: As the process raised it.
    """
    from ray.exceptions import RayTaskError

    try:
        yield
    except RayTaskError as error:
        # Ray hands over an exception of its own, and of the one in the process only the trace, as text.
        found = re.search(rf"^{re.escape(DeviceError.__module__)}\.DeviceError: (.+)$", str(error), re.MULTILINE)
        if found is None:
            raise
        raise DeviceError(found[1]) from None


def actor_resources(options: RunOptions, cluster: Cluster) -> dict[str, Any]:
    """Return the arguments of `map_batches` by which each network gets its CPUs and GPUs.

    Raises:
        UsageError: The networks need a GPU and the cluster has none.
    """
    import ray

    uses_gpus = may_use_gpus(options)
    gpus = ray.cluster_resources().get("GPU", 0.0) if uses_gpus else 0.0
    if not gpus and (options.device == "cuda" or options.precision == "tf32" or cluster.gpus_per_actor):
        requirement = "device = 'cuda'" if options.device == "cuda" else "precision = 'tf32'"
        if cluster.gpus_per_actor:
            requirement = f"gpus_per_actor = {cluster.gpus_per_actor:g}"
        why = "the cluster has no GPU" if uses_gpus else f"the networks run on the CPU (device {options.device!r})"
        raise UsageError(f"{requirement}, but {why}: it would wait forever. Omit it, or add a machine with GPUs.")
    gpus_per_actor = cluster.gpus_per_actor if cluster.gpus_per_actor is not None else float(gpus > 0)
    actors = cluster.actors or max(1, int(gpus / gpus_per_actor) if gpus_per_actor else 1)
    return {
        "num_cpus": cluster.cpus_per_actor,
        "num_gpus": gpus_per_actor or None,
        "compute": ray.data.ActorPoolStrategy(size=actors),
    }


def _load_clips(files: FileTable, job: ClusterJob) -> Iterator[FileTable]:
    """Task that decodes some files in a child process, one row after the other."""
    with job.options.new_reader() as reader:
        loader = ClipLoader(reader)
        for name in files["path"]:
            clip: LoadedClip | Exception
            try:
                clip = loader.load(os.fsdecode(name), job.spec, job.request, originals=None)
            except Exception as error:  # it becomes the file's row
                clip = error
            yield {"path": _objects([name]), "clip": _objects([clip])}


class _Network:
    """Actor that holds the network and turns clips into rows."""

    def __init__(self, job: ClusterJob) -> None:
        self.job = job
        self.recognizer = load(job.model, **job.options.keywords())

    def __call__(self, clips: FileTable) -> pyarrow.Table:
        import pyarrow as pa

        group = [(os.fsdecode(path), clip) for path, clip in zip(clips["path"], clips["clip"], strict=True)]
        outcomes = answer(self.recognizer, group, self.job.batch_size)
        return pa.table({"row": [json.dumps(outcome.to_row(self.job.top_k)) for outcome in outcomes]})


def _objects(values: list[Any]) -> np.ndarray[Any, np.dtype[np.object_]]:
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column
