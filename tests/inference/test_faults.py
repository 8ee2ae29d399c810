"""A folder run through everything that ends runs: nothing is lost, nothing comes twice."""

from __future__ import annotations

import gc
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
import torch

from nonlocal_video.errors import VideoError
from nonlocal_video.inference.files import find_files
from nonlocal_video.inference.folder import classify_files
from nonlocal_video.inference.request import ClipRequest
from nonlocal_video.inference.results import ResultFile
from nonlocal_video.models.card import ModelCard
from nonlocal_video.models.checkpoint import load_checkpoint, save_checkpoint
from nonlocal_video.video.limits import DecodeLimits

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and limits")]
COPIES = 40


@pytest.fixture(scope="module")
def processes() -> Any:
    """Starts processes that have torch already: a run begins in a fraction of a second."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["nonlocal_video.cli.main", "nonlocal_video.inference.folder"])
    return context


@pytest.fixture(scope="module")
def many_clips(tmp_path_factory: pytest.TempPathFactory, clip_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("many")
    for number in range(COPIES):
        (folder / str(number % 5)).mkdir(exist_ok=True)
        source = "b/note.mp4" if number % 7 == 3 else "a.mp4"
        shutil.copy(clip_folder / source, folder / str(number % 5) / f"{number}.mp4")
    return folder


def run_verb(arguments: list[str], log: str, file_bytes: int | None = None) -> None:
    """Run `nonlocal-video ARGUMENTS` in a process of its own."""
    from nonlocal_video.cli.main import main

    output = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    if file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    torch.set_num_threads(1)
    sys.argv = ["nonlocal-video", *arguments]
    main()


class Runs:
    """Runs of `classify` on the same folder into the same output."""

    def __init__(self, context: Any, clips: Path, model: Path, output: Path) -> None:
        self.context, self.output, self.log = context, output, output.with_suffix(".log")
        self.arguments = ["classify", str(clips), "--model", str(model), "--device", "cpu", "--output", str(output)]

    def start(self, *more: str, file_bytes: int | None = None) -> Any:
        process = self.context.Process(
            target=run_verb, args=([*self.arguments, *more], str(self.log), file_bytes), daemon=False
        )
        process.start()
        return process

    def finish(self, *more: str) -> int:
        process = self.start(*more)
        process.join(120)
        assert process.exitcode is not None, self.log.read_text()
        return int(process.exitcode)

    def rows_so_far(self) -> int:
        journal = ResultFile.files_of(self.output)[1]
        return max(0, journal.read_bytes().count(b"\n") - 1) if journal.exists() else 0

    def wait_for_rows(self, number: int) -> None:
        deadline = time.monotonic() + 60
        while self.rows_so_far() < number:
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.002)

    def table(self) -> list[dict[str, Any]]:
        rows = pq.read_table(self.output).to_pylist()
        return [{name: value for name, value in row.items() if not name.startswith("seconds_")} for row in rows]


@pytest.fixture
def new_runs(processes: Any, many_clips: Path, tiny_model: Path, tmp_path: Path) -> Callable[[str], Runs]:
    return lambda name: Runs(processes, many_clips, tiny_model, tmp_path / name)


@pytest.fixture(scope="module")
def undisturbed(
    processes: Any, many_clips: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    runs = Runs(processes, many_clips, tiny_model, tmp_path_factory.mktemp("undisturbed") / "t.parquet")
    assert runs.finish() == 1  # some files are no videos
    table = runs.table()
    assert [row["path"] for row in table] == list(find_files([many_clips]))
    return table


def test_killed_again_and_again_and_resumed(new_runs: Callable[[str], Runs], undisturbed: list[dict[str, Any]]) -> None:
    runs = new_runs("killed.parquet")
    moments = random.Random(5)
    for part in range(4):
        process = runs.start(*(["--resume"] if part else []))
        runs.wait_for_rows(part * 8 + 2)
        time.sleep(moments.random() * 0.2)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert not runs.output.exists()
    before = runs.rows_so_far()
    assert before >= 20
    assert runs.finish("--resume") == 1
    assert runs.table() == undisturbed
    assert runs.finish("--resume") == 1  # nothing left to do, and some files are no videos still
    assert runs.table() == undisturbed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_finishes_what_is_in_hand(
    new_runs: Callable[[str], Runs], undisturbed: list[dict[str, Any]], number: signal.Signals
) -> None:
    runs = new_runs("stopped.parquet")
    process = runs.start("--workers", "2", "--batch-size", "3")
    runs.wait_for_rows(4)
    at_signal = runs.rows_so_far()
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == 130
    rows = runs.rows_so_far()
    assert at_signal < rows < COPIES  # what was in hand came, the rest did not
    said = runs.log.read_text()
    assert "Finishing the current step" in said
    assert f"{rows} rows were added to" in said
    assert "--resume continues" in said
    assert runs.finish("--resume") == 1
    assert [row["path"] for row in runs.table()] == [row["path"] for row in undisturbed]


def test_a_full_disk_keeps_the_rows_so_far(new_runs: Callable[[str], Runs], undisturbed: list[dict[str, Any]]) -> None:
    """The kernel refuses to let the journal grow, as it does when a disk is full."""
    runs = new_runs("full.parquet")
    process = runs.start(file_bytes=6000)
    process.join(60)
    assert process.exitcode == 1
    said = runs.log.read_text()
    assert "full.parquet.journal' cannot be written: File too large" in said
    assert "Traceback" not in said
    assert 2 < runs.rows_so_far() < COPIES
    assert runs.finish("--resume") == 1
    assert runs.table() == undisturbed


def test_a_killed_decoding_child_costs_one_row_at_most(new_runs: Callable[[str], Runs]) -> None:
    runs = new_runs("child.parquet")
    process = runs.start()
    runs.wait_for_rows(5)
    children = psutil.Process(process.pid).children()
    assert children
    for child in children:
        child.kill()
    process.join(120)
    assert process.exitcode == 1
    table = runs.table()
    assert len(table) == COPIES
    assert sum(row["error_code"] == "decoder_crashed" for row in table) <= len(children)


def test_other_weights_under_the_same_name_refuse_to_go_on(
    new_runs: Callable[[str], Runs], tiny_model: Path, tmp_path: Path
) -> None:
    runs = new_runs("weights.parquet")
    process = runs.start()
    runs.wait_for_rows(2)
    process.kill()
    process.join()
    network, card = load_checkpoint(tiny_model)
    with torch.no_grad():
        next(network.parameters()).mul_(1.01)
    save_checkpoint(tmp_path / "other.safetensors", network, card, dtype=torch.float32)
    runs.arguments[runs.arguments.index("--model") + 1] = str(tmp_path / "other.safetensors")
    assert runs.finish("--resume") == 2
    assert "begun with other settings: weights_sha256 was" in runs.log.read_text()


def test_shards_join_to_the_whole(new_runs: Callable[[str], Runs], undisturbed: list[dict[str, Any]]) -> None:
    rows: list[dict[str, Any]] = []
    for k in (1, 2, 3):
        part = new_runs(f"part{k}.parquet")
        assert part.finish("--shard", f"{k}/3") in (0, 1)
        rows += part.table()
    assert sorted(rows, key=lambda row: row["path"]) == sorted(undisturbed, key=lambda row: row["path"])


class _NoReader:
    """Stands in for the decoding child: what is measured is everything around it."""

    limits = DecodeLimits()

    def probe(self, path: str) -> None:
        raise VideoError("not_a_video", f"{path} is nothing.")

    def close(self) -> None:
        pass


class _NoNetwork:
    at_once = 1

    def __init__(self, card: ModelCard) -> None:
        self.card = card

    def new_reader(self) -> _NoReader:
        return _NoReader()

    def noting_failure(self) -> nullcontext[None]:
        return nullcontext()

    def predict(self, clips: list[Any], *, batch_size: int) -> list[Any]:
        assert not clips
        return []


def test_memory_does_not_grow_with_the_number_of_files(tiny_model: Path, tmp_path: Path) -> None:
    """10,000 names through queues, journal and table; ten times as many files cost no more memory."""
    names = (f"/nowhere/{'x' * 80}/{number}.mp4" for number in range(10_000))
    recognizer = _NoNetwork(load_checkpoint(tiny_model)[1])
    blocks = []
    with ResultFile(tmp_path / "t.csv", {}, top_k=5, resume=False) as results:
        outcomes = classify_files(recognizer, names, ClipRequest())
        for count, outcome in enumerate(outcomes, 1):
            results.append(outcome.path, outcome.to_row(5))
            if count in (1_000, 10_000):
                gc.collect()
                blocks.append(sys.getallocatedblocks())  # of every object, strings included
    assert count == 10_000
    assert blocks[1] < blocks[0] + 1_500  # a sixth of an object for each of the other 9,000
    with open(tmp_path / "t.csv", encoding="utf-8") as table:
        assert sum(1 for _ in table) == 10_001
