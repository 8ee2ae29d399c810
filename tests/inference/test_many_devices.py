"""One run over several devices, here two processes on the CPU: the rows of one, whatever happens to a process."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import Any

import pytest
import torch

from nonlocal_video.errors import DeviceError, UsageError, VideoError
from nonlocal_video.inference.batch_run import BatchProgress
from nonlocal_video.inference.many_devices import _in_order, _Process, _visible
from nonlocal_video.inference.prediction import Failure
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.inference.runtimes.device import choose_devices

pytestmark = pytest.mark.slow

TWO = ["cpu", "cpu"]


@pytest.fixture(scope="module")
def folder(clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eleven clips and a file that is not a video."""
    folder = Path(shutil.copytree(clip_folder, tmp_path_factory.mktemp("many") / "clips"))
    for number in range(8):
        shutil.copy(folder / ("a.mp4" if number % 2 else "b/c.mp4"), folder / f"clip{number}.mp4")
    return folder


def rows_of(table: Path) -> list[dict[str, Any]]:
    return [json.loads(line) | {"seconds": None} for line in table.read_text().splitlines()]


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list[_Process]:
    """Those that are started meanwhile."""
    made: list[_Process] = []
    start = _Process.__init__

    def started(self: _Process, *arguments: Any) -> None:
        start(self, *arguments)
        made.append(self)

    monkeypatch.setattr(_Process, "__init__", started)
    return made


def test_rows_are_those_of_one_device(
    recognizer: Recognizer,
    folder: Path,
    tmp_path: Path,
    processes: list[_Process],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken: dict[str, list[Any]] = {}
    send = _Process.send

    def sent(self: _Process, message: Any) -> None:
        taken.setdefault(str(id(self)), []).append(message)
        send(self, message)

    monkeypatch.setattr(_Process, "send", sent)
    one = recognizer.classify_folder(folder, output=tmp_path / "one.jsonl")
    many = recognizer.classify_folder(folder, output=tmp_path / "two.jsonl", devices=TWO, workers=1)
    assert many.counts == one.counts == {"ok": 11, "not_a_video": 1}
    assert rows_of(tmp_path / "two.jsonl") == rows_of(tmp_path / "one.jsonl")
    given = [message for messages in taken.values() for message in messages if isinstance(message, str)]
    assert sorted(given) == sorted(row["path"] for row in rows_of(tmp_path / "one.jsonl"))
    assert len(taken) == len(processes) == 2
    assert all(process._process.returncode == 0 for process in processes)


def test_a_killed_process_ends_the_run_and_resume_does_the_rest(
    recognizer: Recognizer, folder: Path, tmp_path: Path, processes: list[_Process]
) -> None:
    table, seen = tmp_path / "rows.jsonl", []

    def kill(progress: BatchProgress) -> None:
        seen.append(progress.row["path"])
        for process in processes:  # whichever had a file in hand loses it
            if process._process.poll() is None:
                os.kill(process._process.pid, signal.SIGKILL)

    with pytest.raises(DeviceError, match=r"The process for cpu was killed by signal 9\. If it fails again, "):
        recognizer.classify_folder(folder, output=table, devices=TWO, workers=1, on_progress=kill)
    assert 1 <= len(seen) < 12
    assert all(process._process.poll() is not None for process in processes)
    result = recognizer.classify_folder(folder, output=table, resume=True)
    assert result.done_before.total() == len(seen)
    assert (result.counts + result.done_before) == {"ok": 11, "not_a_video": 1}
    assert len({row["path"] for row in rows_of(table)}) == 12


class Scripted:
    """Stands for a process: a thread that takes files and does with each what a function says."""

    def __init__(self, name: str, answer: Callable[[str, int], Any]) -> None:
        self.name, self.in_progress, self.took = name, list[int](), list[str]()
        self.connection, self._other = Pipe()
        self._answer = answer
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def send(self, message: Any) -> None:
        self.connection.send(message)

    def exit_error(self) -> Exception | None:
        return DeviceError(f"The process for {self.name} was killed.")

    def _work(self) -> None:
        with self._other as connection:
            while True:
                connection.send(("next", None))
                file = connection.recv()
                if file is None:
                    connection.send(("ended", None))
                    return
                self.took.append(file)
                outcome = self._answer(file, len(self.took))
                if outcome is None:
                    return  # as if it was killed
                if isinstance(outcome, Exception):
                    connection.send(("ended", outcome))
                    return
                connection.send(("outcome", outcome))


def answered(file: str, _number: int) -> Failure:
    return Failure(file, "tiny", VideoError("corrupt", "It is broken."))


def in_order(processes: list[Any], files: list[Any], recognizer: Recognizer) -> tuple[list[str], Exception | None]:
    """Paths of the outcomes, and what was raised after them."""
    found = []
    try:
        for outcome in _in_order(processes, iter(files), recognizer):
            found.append(outcome.path)
    except Exception as error:
        return found, error
    return found, None


def test_outcomes_come_in_the_order_of_the_files(recognizer: Recognizer) -> None:
    def slowly(file: str, number: int) -> Failure:
        time.sleep(0.05)
        return answered(file, number)

    processes = [Scripted("cuda:0", slowly), Scripted("cuda:1", answered)]
    files: list[Any] = [f"{number:02}.mp4" for number in range(20)]
    files[7] = answered(files[7], 0)  # refused before it was read: no process is asked
    found, error = in_order(processes, files, recognizer)
    assert (found, error) == ([f"{number:02}.mp4" for number in range(20)], None)
    assert len(processes[1].took) > len(processes[0].took) > 0
    assert "07.mp4" not in processes[0].took + processes[1].took


@pytest.mark.parametrize("how", ["killed", "failed"])
def test_of_a_failed_device_only_its_own_file_is_missing(how: str, recognizer: Recognizer) -> None:
    failed = threading.Event()

    def fail(file: str, number: int) -> Any:
        if number < 3:
            return answered(file, number)
        failed.set()
        return None if how == "killed" else DeviceError("The device cuda:0 failed: Xid 79.")

    def wait_for_it(file: str, number: int) -> Any:
        if number == 2:
            failed.wait(10)
            time.sleep(0.2)
        return answered(file, number)

    processes = [Scripted("cuda:0", fail), Scripted("cuda:1", wait_for_it)]
    files = [f"{number:02}.mp4" for number in range(50)]
    found, error = in_order(processes, files, recognizer)
    assert isinstance(error, DeviceError)
    assert str(error) == (
        "The process for cuda:0 was killed." if how == "killed" else "The device cuda:0 failed: Xid 79."
    )
    lost = processes[0].took[2]
    assert sorted([*found, lost]) == sorted(processes[0].took + processes[1].took)
    assert lost not in found
    assert len(found) < 10  # nothing more was begun


def test_a_network_without_a_file_is_refused(recognizer: Recognizer, folder: Path) -> None:
    bare = Recognizer(recognizer.network, recognizer.card, device="cpu")
    with pytest.raises(UsageError, match="as every process loads the weights"):
        bare.classify_folder(folder, devices=TWO)


@pytest.fixture
def three_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _index: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_90"])


@pytest.mark.usefixtures("three_gpus")
def test_cuda_all_is_every_gpu() -> None:
    assert choose_devices("cuda:all") == ["cuda:0", "cuda:1", "cuda:2"]
    assert choose_devices("cuda:1") == ["cuda:1"]
    assert choose_devices("cpu") == ["cpu"]


@pytest.mark.usefixtures("three_gpus")
def test_one_gpu_that_cannot_be_used_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (5, 2) if index == 2 else (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _index: "Quadro M4000")
    with pytest.raises(UsageError, match=r"device = 'cuda:2', but Quadro M4000 has compute capability 5\.2"):
        choose_devices("cuda:all")


def test_cuda_all_without_a_gpu_is_refused(run: Callable[..., Any], clip_folder: Path, tiny_model: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    for verb in ("classify", "evaluate"):
        done = run(verb, clip_folder, "--model", tiny_model, "--device", "cuda:all")
        assert done.status == 2
        assert "Use --device auto or cpu" in " ".join(done.err.split()) or verb == "evaluate"


@pytest.mark.parametrize("verb", ["timeline", "explain", "serve"])
def test_verbs_for_one_clip_refuse_all_gpus(
    verb: str, run: Callable[..., Any], clip_folder: Path, tiny_model: Path
) -> None:
    arguments = ["--port", 0] if verb == "serve" else [clip_folder / "a.mp4"]
    done = run(verb, *arguments, "--model", tiny_model, "--device", "cuda:all")
    assert done.status == 2
    assert "as in classify and evaluate. Here, use auto, cpu, cuda or cuda:N." in " ".join(done.err.split())


@pytest.mark.parametrize(
    ("before", "name", "seen"),
    [(None, "cuda:1", "1"), ("3,5", "cuda:1", "5"), ("GPU-ab, GPU-cd", "cuda:0", "GPU-ab"), ("2", "cpu", None)],
)
def test_a_process_sees_its_own_gpu_alone(
    before: str | None, name: str, seen: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if before is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", before)
    assert _visible(name).get("CUDA_VISIBLE_DEVICES") == seen
