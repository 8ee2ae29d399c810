"""A folder run over several devices of one machine, with one process for each device.

The processes decode and classify as `folder.classify_files` does. This process distributes the files and yields the
outcomes in the order of the files, so the rows are those of a single device, and a run can be resumed with another
number of devices.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Pipe, wait
from typing import TYPE_CHECKING, Any

import torch

from nonlocal_video.errors import DeviceError, UsageError
from nonlocal_video.inference.feeding import cores, default_workers
from nonlocal_video.inference.options import RunOptions
from nonlocal_video.inference.prediction import Failure, Outcome, Prediction
from nonlocal_video.inference.predictor import Predictor
from nonlocal_video.inference.request import ClipRequest
from nonlocal_video.inference.window_features import FeatureRequest, WindowFeatures

if TYPE_CHECKING:
    from nonlocal_video.inference.recognizer import Recognizer

_EXIT_SECONDS = 20.0
_BOOT = """
import sys
sys.path[:] = sys.argv[2:]
from nonlocal_video.inference.device_worker import main
main(int(sys.argv[1]))
"""


@dataclass(frozen=True)
class DeviceJob:
    """Job of a worker process, the same for all files."""

    model: str
    """Model, as `load` takes it."""
    options: RunOptions
    """Options of the model; the device is the process's, which sees no other GPU than its own."""
    request: ClipRequest | FeatureRequest
    """Result to give of each file: its prediction, or the features of its windows."""
    workers: int
    batch_size: int | None
    num_threads: int | None
    """Number of threads of the network on a CPU; None leaves it unchanged."""


def classify_on_devices(
    predictor: Predictor,
    files: Iterable[str | Failure],
    request: ClipRequest,
    devices: Sequence[str],
    *,
    workers: int | None = None,
    batch_size: int | None = None,
) -> Generator[Outcome, None, None]:
    """Yield an outcome for every file, in order, as they are done.

    Args:
        predictor: Gives the model and its options; it runs no clip itself.
        files: Paths, possibly endless. A failure among them is its own outcome.
        request: How to look, the same for all files.
        devices: Name of the device of each process; a name may occur twice.
        workers: Number of decoding processes per device; None divides the default among the devices.
        batch_size: Views per forward pass; None is the default of the device.

    Raises:
        UsageError: Other processes cannot load the model, or an argument is invalid.
        DeviceError: A device failed or its process ended; finished outcomes have been yielded before.
    """
    yield from _on_devices(predictor, files, request, devices, workers=workers, batch_size=batch_size)


def features_on_devices(
    predictor: Recognizer,
    files: Iterable[str],
    request: FeatureRequest,
    devices: Sequence[str],
    *,
    workers: int | None = None,
    batch_size: int | None = None,
) -> Generator[tuple[str, WindowFeatures | Exception], None, None]:
    """Yield every file with its features or its error, in order, as `feature_stream.stream_features` does on one.

    Arguments and errors are those of `classify_on_devices`.
    """
    request.checked(predictor)
    yield from _on_devices(predictor, files, request, devices, workers=workers, batch_size=batch_size)


def _on_devices(
    predictor: Predictor,
    files: Iterable[str | Failure],
    request: ClipRequest | FeatureRequest,
    devices: Sequence[str],
    *,
    workers: int | None,
    batch_size: int | None,
) -> Generator[Any, None, None]:
    """Yield what the processes give of each file, in order."""
    if predictor.source is None:
        raise UsageError(
            "devices needs a recognizer from nlv.load, as every process loads the weights by the model's name."
        )
    if os.name != "posix":
        raise UsageError("Several devices in one run need Linux or macOS; start one run per device, with --shard K/N.")
    processes: list[_Process] = []
    with contextlib.ExitStack() as stack:
        for name in devices:
            device = torch.device(name)
            share = max(1, min(default_workers(device), cores() // len(devices)))
            job = DeviceJob(
                model=predictor.source,
                options=replace(predictor.options, device=device.type),
                request=request,
                workers=share if workers is None else workers,
                batch_size=batch_size,
                num_threads=max(1, torch.get_num_threads() // len(devices)) if device.type == "cpu" else None,
            )
            process = _Process(name, job)
            stack.callback(process.close)
            processes.append(process)
        yield from _in_order(processes, iter(files), predictor)


def _in_order(
    processes: Sequence[_Process], files: Iterator[str | Failure], predictor: Predictor
) -> Generator[Any, None, None]:
    """Send files to the processes on request, and yield the outcomes in the order of the files."""
    done: dict[int, Any] = {}
    failure: Exception | None = None
    num_given = num_yielded = 0
    working = {process.connection: process for process in processes}
    while working:
        for ready in wait(list(working)):
            process = working[ready]  # type: ignore[index]
            try:
                kind, value = process.connection.recv()
            except (EOFError, OSError):
                kind, value = "ended", process.exit_error()
            if kind == "next":
                file = next(files, None) if failure is None else None
                while isinstance(file, Failure):  # it is an outcome already
                    done[num_given] = file
                    num_given += 1
                    file = next(files, None)
                if file is not None:
                    process.in_progress.append(num_given)
                    num_given += 1
                process.send(file)
            elif kind == "outcome":
                done[process.in_progress.pop(0)] = _renamed(value, process.name, predictor)
            else:
                del working[process.connection]
                if kind == "ended" and (process.in_progress or value is not None):
                    failure = failure or value or DeviceError("A process ended early.")
        while num_yielded in done:
            yield done.pop(num_yielded)
            num_yielded += 1
    for number in sorted(done):  # after a file that a failed device did not finish
        yield done[number]
    if failure is not None:
        raise failure


def _renamed(outcome: Any, device: str, predictor: Predictor) -> Any:
    """Return a prediction with the real name of its device, and with labels shared by all; anything else as it is."""
    if isinstance(outcome, Prediction):
        return replace(outcome, device=device, labels=predictor.card.labels)
    return outcome


class _Process:
    """A worker process, with the files that it works on.

    Attributes:
        name: Name of its device.
        in_progress: Numbers of the files that were sent to it and have no outcome yet, in order.
    """

    def __init__(self, name: str, job: DeviceJob) -> None:
        self.name = name
        self.in_progress: list[int] = []
        self.connection, other = Pipe()
        with other, _above_standard_streams(other.fileno()) as descriptor:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _BOOT, str(descriptor), *map(os.path.abspath, sys.path)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # only the parent prints rows there
                pass_fds=(descriptor,),
                start_new_session=True,  # only the parent gets Ctrl-C, and lets workers finish their files
                env={**os.environ, **_visible(name)},
            )
        self.send(job)

    def send(self, message: Any) -> None:
        """Send a message; if the process has ended, receiving from it will show that."""
        with contextlib.suppress(OSError):
            self.connection.send(message)

    def exit_error(self) -> Exception | None:
        """Return why the process closed its connection; None if it had finished."""
        try:
            status = self._process.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            status = None
        if status == 0:
            return None
        how = "does not answer" if status is None else f"was killed by signal {-status}" if status < 0 else "failed"
        return DeviceError(
            f"The process for {self.name} {how}. If it fails again, run `nonlocal-video doctor` or use another "
            f"--device."
        )

    def close(self) -> None:
        """Close the connection, on which the process ends itself and its decoding processes; kill it if it does not."""
        self.connection.close()
        try:
            self._process.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def _above_standard_streams(descriptor: int) -> Iterator[int]:
    """Yield a copy of a descriptor with a number above 2."""
    import fcntl

    copy = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    try:
        yield copy
    finally:
        os.close(copy)


def _visible(name: str) -> dict[str, str]:
    """Return environment variables with which a process sees only its own GPU, and cannot allocate on the first one."""
    device = torch.device(name)
    if device.type != "cuda":
        return {}
    visible = [part.strip() for part in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if part.strip()]
    index = device.index or 0
    return {"CUDA_VISIBLE_DEVICES": visible[index] if visible else str(index)}
