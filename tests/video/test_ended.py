"""Causes of a decoding process's end, and what that costs the file that it worked on and the next one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numbered_clips
import pytest

from nonlocal_video.errors import VideoError
from nonlocal_video.video import DecodeLimits, VideoReader, _ended
from nonlocal_video.video._ended import Ending, classify_ending
from nonlocal_video.video._messages import did_not_start, ended_error

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")


@pytest.fixture
def reader() -> Iterator[VideoReader]:
    """A reader for each test, with a process of its own."""
    with VideoReader() as reader:
        yield reader


def ending(returncode: int, printed: bytes = b"", **given: object) -> Ending:
    values: dict[str, object] = {"timed_out": False, "killed_by_us": False, "kills_before": 7, **given}
    return classify_ending(returncode, printed, **values)


def test_a_kill_is_the_kernels_only_where_the_kernel_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    counters = tmp_path / "vmstat"
    monkeypatch.setattr(_ended, "_VMSTAT", str(counters))
    counters.write_text("pgfault 12\noom_kill 7\n")
    assert ending(-signal.SIGKILL) == Ending("decoder_crashed", "SIGKILL")
    counters.write_text("pgfault 12\noom_kill 8\n")
    assert ending(-signal.SIGKILL) == Ending("out_of_memory", "SIGKILL")
    assert ending(-signal.SIGTERM) == Ending("decoder_crashed", "SIGTERM")  # which the kernel does not use
    counters.unlink()
    assert ending(-signal.SIGKILL) == Ending("decoder_crashed", "SIGKILL")
    assert ending(-signal.SIGKILL, kills_before=None) == Ending("decoder_crashed", "SIGKILL")


def test_other_ends() -> None:
    assert ending(-signal.SIGSEGV) == Ending("decoder_crashed")
    assert ending(1, b"Traceback ...\nMemoryError\n") == Ending("out_of_memory")
    assert ending(-signal.SIGABRT, b"terminate called after throwing std::bad_alloc") == Ending("out_of_memory")
    assert ending(-signal.SIGALRM) == ending(-signal.SIGXCPU) == Ending("timeout")
    assert ending(-signal.SIGKILL, timed_out=True, killed_by_us=True) == Ending("timeout")
    assert ending(-signal.SIGKILL, killed_by_us=True) == Ending("decoder_crashed")  # it sent nonsense
    assert ending(3) == Ending("decoder_crashed")


def test_the_words_tell_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = DecodeLimits()
    words = {
        Ending("decoder_crashed", "SIGTERM"): "killed from outside (SIGTERM)",
        Ending("decoder_crashed"): "crashed on it",
        Ending("out_of_memory", "SIGKILL"): "the machine or its container ran out of memory",
        Ending("out_of_memory"): "more than 4.0 GiB",
    }
    for how, sentence in words.items():
        error = ended_error(how, "/folder/clip.mp4", limits)
        assert error.code == how.cause
        assert error.message.startswith("clip.mp4: ")
        assert sentence in error.message
    monkeypatch.setattr(_ended, "_VMSTAT", "/nonexistent")
    assert "perhaps for lack of memory" in ended_error(Ending("decoder_crashed", "SIGKILL"), "clip.mp4", limits).message
    assert did_not_start(Ending("decoder_crashed"), "ImportError: libx").code == "internal"
    assert did_not_start(Ending("out_of_memory"), "MemoryError").code == "out_of_memory"
    assert "SIGTERM" in did_not_start(Ending("decoder_crashed", "SIGTERM"), "it printed nothing.").message


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.slow
def test_a_child_that_is_killed_at_work(clips: Path, tmp_path: Path, monkeypatch, number: signal.Signals) -> None:
    (tmp_path / "decord.py").write_text(
        "import time\nclass DECORDError(Exception): pass\nclass logging: INFO, set_level = 0, print\n"
        "def VideoReader(*_, **__): time.sleep(60)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with VideoReader(decoder="decord") as reader:
        reader.probe(clips / "h264.mp4")
        assert reader._process is not None
        killer = threading.Timer(0.5, os.kill, (reader._process.pid, number))
        killer.start()
        with pytest.raises(VideoError, match=rf"killed from outside \({number.name}\)") as caught:
            reader.read(clips / "h264.mp4", [0.0])
        assert caught.value.code == "decoder_crashed"
        assert reader.probe(clips / "h264.mp4").num_frames == numbered_clips.NUM_FRAMES


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
@pytest.mark.slow
def test_a_child_that_dies_idle_costs_the_next_file_nothing(clips: Path, reader, number: signal.Signals) -> None:
    for waits in (0.0, 0.3):  # it may be dead already, or be about to die
        reader.probe(clips / "h264.mp4")
        child = reader._process.pid
        os.kill(child, number)
        time.sleep(waits)
        frames = reader.read(clips / "h264.mp4", [1.0])
        assert numbered_clips.number_in(frames.frames_thwc[0]) == 25
        assert not any("given up" in note for note in frames.info.notes)
        assert reader._process.pid != child


def test_children_that_always_die_idle_are_given_up(clips: Path, tmp_path: Path, monkeypatch) -> None:
    started = VideoReader._child

    def start_and_kill(reader: VideoReader):
        process = started(reader)
        os.kill(process.pid, signal.SIGKILL)
        time.sleep(0.1)
        return process

    monkeypatch.setattr(VideoReader, "_child", start_and_kill)
    with VideoReader() as reader, pytest.raises(VideoError, match="in a row") as caught:
        reader.probe(clips / "h264.mp4")
    assert caught.value.code == "decoder_crashed"


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_the_kernel_counts_its_kills() -> None:
    with open("/proc/vmstat") as file:
        counted = dict(line.split() for line in file)
    if "oom_kill" not in counted:
        pytest.skip("this kernel does not count")
    assert _ended.kernel_kills() == int(subprocess.check_output(["grep", "oom_kill ", "/proc/vmstat"]).split()[1])
