"""One run over several devices of a machine: a process for each, which takes the next file whenever it has room.

The processes decode and answer as `folder.classify_files` does; this one hands out files, puts the outcomes back into
the order of the files, and writes. So the rows are those of one device, and a run may be resumed with another number.
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
from nonlocal_video.inference.precision import Precision
from nonlocal_video.inference.prediction import Failure, Outcome, Prediction
from nonlocal_video.inference.preprocessing import ClipRequest
from nonlocal_video.inference.runtimes.device import Runtime
from nonlocal_video.video.decode import DecodeLimits, DecoderChoice

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
    """What a process does with every file that it takes."""

    model: str
    device: str
    """As the process sees it: of several GPUs it sees its own alone."""
    runtime: Runtime
    precision: Precision
    decoder: DecoderChoice
    limits: DecodeLimits
    request: ClipRequest
    fast: bool
    workers: int
    batch_size: int | None
    num_threads: int | None
    """Of the network, on a CPU; None leaves them as they are."""


def classify_on_devices(
    recognizer: Recognizer,
    files: Iterable[str | Failure],
    request: ClipRequest,
    devices: Sequence[str],
    *,
    fast: bool = False,
    workers: int | None = None,
    batch_size: int | None = None,
) -> Generator[Outcome, None, None]:
    """An outcome for every file, in the order given, as they are done.

    Args:
        recognizer: Says which model, decoder, limits, runtime and precision; it answers nothing itself.
        files: May be endless. A failure among them is its own outcome.
        request: Spans and views, the same for all.
        devices: Names, one for each process; a name may come twice.
        fast: The model card's cheaper view.
        workers: Decoding processes beside each network; None shares out what suits one.
        batch_size: Views in one forward pass; None is as many as suit the device.

    Raises:
        UsageError: The model is not one that another process can load, or an argument has a value that is not allowed.
        DeviceError: A device has failed or its process has ended. Outcomes that there are have been given before.
    """
    if recognizer.weights is None:
        raise UsageError("devices needs a recogniser of nlv.load, whose weights every process loads from their file.")
    if os.name != "posix":
        raise UsageError("Several devices in one run take Linux or macOS; start a run for each, with --shard K/N.")
    processes: list[_Process] = []
    with contextlib.ExitStack() as stack:
        for name in devices:
            device = torch.device(name)
            share = max(1, min(default_workers(device), cores() // len(devices)))
            job = DeviceJob(
                model=str(recognizer.weights),
                device=device.type,
                runtime=recognizer.runtime,
                precision=recognizer.precision,
                decoder=recognizer.decoder,
                limits=recognizer.limits,
                request=request,
                fast=fast,
                workers=share if workers is None else workers,
                batch_size=batch_size,
                num_threads=max(1, torch.get_num_threads() // len(devices)) if device.type == "cpu" else None,
            )
            process = _Process(name, job)
            stack.callback(process.close)
            processes.append(process)
        yield from _in_order(processes, iter(files), recognizer)


def _in_order(
    processes: Sequence[_Process], files: Iterator[str | Failure], recognizer: Recognizer
) -> Generator[Outcome, None, None]:
    """Hand out files to whichever process asks, and give their outcomes in the order of the files."""
    done: dict[int, Outcome] = {}
    failure: Exception | None = None
    num_given = num_yielded = 0
    working = {process.connection: process for process in processes}
    while working:
        for ready in wait(list(working)):
            process = working[ready]  # type: ignore[index]
            try:
                kind, value = process.connection.recv()
            except (EOFError, OSError):
                kind, value = "ended", process.how_it_ended()
            if kind == "next":
                file = next(files, None) if failure is None else None
                while isinstance(file, Failure):  # nothing is left to do for it
                    done[num_given] = file
                    num_given += 1
                    file = next(files, None)
                if file is not None:
                    process.in_hand.append(num_given)
                    num_given += 1
                process.send(file)
            elif kind == "outcome":
                done[process.in_hand.pop(0)] = _of_parent(value, process.name, recognizer)
            else:
                del working[process.connection]
                if kind == "ended" and (process.in_hand or value is not None):
                    failure = failure or value or DeviceError("A process ended early.")
        while num_yielded in done:
            yield done.pop(num_yielded)
            num_yielded += 1
    for number in sorted(done):  # beyond a file that a failed device had in hand
        yield done[number]
    if failure is not None:
        raise failure


def _of_parent(outcome: Outcome, device: str, recognizer: Recognizer) -> Outcome:
    """The outcome with the device's own name; the labels, which all outcomes share, are kept once."""
    if isinstance(outcome, Prediction):
        return replace(outcome, device=device, labels=recognizer.card.labels)
    return outcome


class _Process:
    """A process with a network, and the files that it has taken.

    Attributes:
        name: Of its device.
        in_hand: Numbers of the files that it has taken and not answered, in that order.
    """

    def __init__(self, name: str, job: DeviceJob) -> None:
        self.name = name
        self.in_hand: list[int] = []
        self.connection, other = Pipe()
        with other, _beyond_standard_streams(other.fileno()) as descriptor:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _BOOT, str(descriptor), *map(os.path.abspath, sys.path)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # rows may be printed there, by this process alone
                pass_fds=(descriptor,),
                start_new_session=True,  # a Ctrl-C is this process's, which lets the others finish what they have
                env={**os.environ, **_visible(name)},
            )
        self.send(job)

    def send(self, message: Any) -> None:
        """Send a message; a process that has ended is noticed when it is listened to."""
        with contextlib.suppress(OSError):
            self.connection.send(message)

    def how_it_ended(self) -> Exception | None:
        """Return why its connection was closed: None if it was done."""
        try:
            status = self._process.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            status = None
        if status == 0:
            return None
        how = "does not answer" if status is None else f"was killed by signal {-status}" if status < 0 else "failed"
        return DeviceError(
            f"The process for {self.name} {how}. What was not done has no row. Start the same command with --resume; "
            f"if it fails again, `nonlocal-video doctor` says more, or take another --device."
        )

    def close(self) -> None:
        """End it with its decoding processes: it ends by itself once nobody listens."""
        self.connection.close()
        try:
            self._process.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def _beyond_standard_streams(descriptor: int) -> Iterator[int]:
    """Give a copy of a descriptor above 2, which a process has for itself."""
    import fcntl

    copy = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    try:
        yield copy
    finally:
        os.close(copy)


def _visible(name: str) -> dict[str, str]:
    """Environment in which a process sees its GPU alone: threads of its own would else use the first one, too."""
    device = torch.device(name)
    if device.type != "cuda":
        return {}
    visible = [part.strip() for part in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if part.strip()]
    index = device.index or 0
    return {"CUDA_VISIBLE_DEVICES": visible[index] if visible else str(index)}
