"""The decoding process: hangs, crashes, greed, forks, orphans; and that it keeps serving after all of them.

A module that calls itself decord, put before the real one on the search path which the child gets from us, does the
misbehaving.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numbered_clips
import numpy as np
import pytest

from nonlocal_video.errors import UsageError, VideoError
from nonlocal_video.video import DecodeLimits, VideoReader

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")

# A regular expression that never ends, with the interpreter's lock held all the time, as decord does it.
SPIN = "re.match(r'(a+)+$', 'a' * 64 + 'b')"


@pytest.fixture
def reader() -> Iterator[VideoReader]:
    """A reader for each test, with a process of its own."""
    with VideoReader() as reader:
        yield reader


@pytest.fixture
def fake_decord(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Put a decord on the child's path whose VideoReader runs the given statement."""

    def install(statement: str) -> None:
        folder = tmp_path / "fake"
        folder.mkdir()
        (folder / "decord.py").write_text(
            "import json, os, re, resource, signal, sys\n"
            "class DECORDError(Exception): pass\n"
            "class logging: INFO, set_level = 0, print\n"
            f"def VideoReader(path, num_threads): {statement}\n"
        )
        monkeypatch.syspath_prepend(str(folder))

    return install


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie, which waits for someone to notice, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(pid: int, seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while is_alive(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not is_alive(pid)


def child_of(reader: VideoReader) -> int:
    assert reader._process is not None
    return reader._process.pid


@pytest.mark.slow
@pytest.mark.parametrize(
    ("statement", "code", "reason"),
    [
        (SPIN, "timeout", "it hung"),
        ("os.abort()", "decoder_crashed", "it crashed"),
        ("os._exit(0)", "decoder_crashed", "it crashed"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "decoder_crashed", "it was killed from outside, SIGKILL"),
        ("os.kill(os.getpid(), signal.SIGTERM)", "decoder_crashed", "it was killed from outside, SIGTERM"),
        ("raise MemoryError", "out_of_memory", "it ran out of memory"),
        ("bytearray(1 << 45)", "out_of_memory", "it ran out of memory"),
        ("raise DECORDError('long dump of the file')", "corrupt", "it could not read the file exactly"),
        ("print('Error at MB: 177'); raise DECORDError", "corrupt", "it could not read the file exactly"),
    ],
)
def test_misbehaviour_has_a_code_and_pyav_takes_over(
    clips: Path, fake_decord, capfd: pytest.CaptureFixture[str], statement: str, code: str, reason: str
) -> None:
    fake_decord(statement)
    limits = DecodeLimits(timeout_seconds=3)
    with VideoReader(decoder="decord", limits=limits) as reader:  # no second try
        start = time.monotonic()
        with pytest.raises(VideoError) as caught:
            reader.read(clips / "h264.mp4", [0.0, 1.0])
        assert caught.value.code == code
        assert caught.value.message.startswith("h264.mp4: ")
        assert time.monotonic() - start < 10
        assert reader.probe(clips / "hevc.mp4").num_frames == numbered_clips.NUM_FRAMES  # it keeps serving
    with VideoReader(limits=limits) as reader:
        frames = reader.read(clips / "h264.mp4", [0.0, 1.0])
        assert [numbered_clips.number_in(frame) for frame in frames.frames_thwc] == [0, 25]
        assert frames.info.decoder == "pyav"
        assert any("decord was given up" in note and reason in note for note in frames.info.notes)
    assert capfd.readouterr() == ("", "")


def test_decord_may_fail_after_its_first_frames(clips: Path, fake_decord) -> None:
    """It hangs in the second chunk: what it gave before stays, PyAV gives the rest, nothing twice."""
    fake_decord(
        "return Half(path)\n"
        "import numpy\n"
        "class Half:\n"
        "    def __init__(self, path): self.calls = 0\n"
        f"    def __len__(self): return {numbered_clips.NUM_FRAMES}\n"
        "    def get_frame_timestamp(self, indices): return numpy.stack([indices / 25, indices / 25], 1)\n"
        "    def get_batch(self, indices):\n"
        "        self.indices = indices\n"
        "        return self\n"
        "    def asnumpy(self): return Frames(len(self.indices))\n"
        "class Frames:\n"
        f"    shape = (1, {numbered_clips.HEIGHT}, {numbered_clips.WIDTH}, 3)\n"
        "    def __init__(self, count): self.count = count\n"
        "    def __iter__(self):\n"
        f"        for _ in range(4): yield numpy.full((*self.shape[1:],), 7, numpy.uint8)\n"
        "        os.abort()\n"
    )
    with (
        VideoReader() as reader,
        reader.stream(clips / "h264.mp4", np.arange(10) / 25 + 0.01, chunk_frames=3) as stream,
    ):
        assert stream.info.decoder == "decord"
        frames = np.concatenate([chunk.frames_thwc for chunk in stream])
        assert stream.info.decoder == "pyav"
    assert (frames[:4] == 7).all()
    assert [numbered_clips.number_in(frame) for frame in frames[4:]] == [4, 5, 6, 7, 8, 9]


@linux_only
def test_the_child_limits_itself(clips: Path, fake_decord) -> None:
    names = ("AS", "CORE", "CPU", "FSIZE")
    limits = ", ".join(f"'{name}': resource.getrlimit(resource.RLIMIT_{name})[0]" for name in names)
    # What it prints goes to the parent's temporary file, the only one that it may write to.
    statement = f"print(json.dumps({{{limits}, 'alarm': signal.getitimer(signal.ITIMER_REAL)[0]}}), flush=True)"
    fake_decord(f"{statement}; raise DECORDError")
    limits_of_test = DecodeLimits(timeout_seconds=20, memory_bytes=3 << 30)
    with VideoReader(decoder="decord", limits=limits_of_test) as reader:
        with pytest.raises(VideoError):
            reader.read(clips / "h264.mp4", [0.0])
        assert reader._process is not None
        found = json.loads(os.pread(reader._process._printed.fileno(), 4096, 0).splitlines()[-1])
    assert (found["AS"], found["CORE"], found["FSIZE"]) == (3 << 30, 0, 1 << 20)
    assert 20 < found["alarm"] <= 30
    assert 20 < found["CPU"] < 200
    with VideoReader(decoder="pyav") as reader:
        reader.probe(clips / "h264.mp4")
        group = os.getpgid(child_of(reader))
        assert group == child_of(reader) != os.getpgid(0)


@pytest.mark.slow
@linux_only
def test_the_child_cannot_take_more_memory_than_allowed(clips: Path, tmp_path: Path) -> None:
    path = tmp_path / "large.mp4"
    source = ["-f", "lavfi", "-i", "color=red:s=10000x10000:r=1:d=1"]
    numbered_clips.ffmpeg(*source, "-c:v", "mjpeg", "-q:v", "31", "-pix_fmt", "yuvj444p", "-frames:v", "1", str(path))
    with VideoReader(limits=DecodeLimits(memory_bytes=1 << 30, max_pixels=1 << 27)) as reader:
        with pytest.raises(VideoError) as caught:
            reader.read(path, [0.0])
        assert caught.value.code == "out_of_memory"
        assert reader.probe(clips / "hevc.mp4").num_frames == numbered_clips.NUM_FRAMES


def test_one_child_serves_two_hundred_files(clips: Path) -> None:
    path, children = clips / "h264.mp4", []
    with VideoReader() as reader:
        for _ in range(201):
            reader.probe(path)
            reader.read(path, [0.0])
            children.append(child_of(reader))
    assert [children.count(child) for child in dict.fromkeys(children)] == [200, 1]


def test_one_child_serves_many_requests_and_is_renewed(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nonlocal_video.video.decode._MAX_REQUESTS_A_PROCESS", 5)
    children = []
    with VideoReader() as reader:
        for _ in range(12):
            reader.probe(clips / "h264.mp4")
            children.append(child_of(reader))
    assert [children.count(child) for child in dict.fromkeys(children)] == [5, 5, 2]
    assert all(wait_until_gone(child) for child in set(children))


@linux_only
def test_a_child_that_has_grown_is_renewed(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with VideoReader() as reader:
        reader.probe(clips / "h264.mp4")
        first = child_of(reader)
        assert reader._process is not None
        assert 10 << 20 < reader._process.resident_bytes() < 1 << 30
        reader.probe(clips / "h264.mp4")
        assert child_of(reader) == first
        monkeypatch.setattr("nonlocal_video.video.decode._REPLACED_ABOVE_BYTES", 1 << 20)
        reader.probe(clips / "h264.mp4")
        assert child_of(reader) != first
        assert wait_until_gone(first)


def test_errors_of_files_do_not_cost_the_child(clips: Path, tmp_path: Path, reader: VideoReader) -> None:
    reader.probe(clips / "h264.mp4")
    child = child_of(reader)
    for path in (tmp_path / "nothing.mp4", tmp_path):
        with pytest.raises(VideoError):
            reader.probe(path)
    with pytest.raises(UsageError):
        reader.read(clips / "h264.mp4", [99.0])
    assert reader.probe(clips / "h264.mp4").num_frames == numbered_clips.NUM_FRAMES
    assert child_of(reader) == child


def test_the_child_outlives_the_thread_that_asked_first(clips: Path, reader: VideoReader) -> None:
    thread = threading.Thread(target=reader.probe, args=(clips / "h264.mp4",))
    thread.start()
    thread.join()
    child = child_of(reader)
    time.sleep(0.1)
    assert is_alive(child)
    frames = reader.read(clips / "h264.mp4", [1.0])
    assert numbered_clips.number_in(frames.frames_thwc[0]) == 25
    assert child_of(reader) == child


def test_threads_take_turns(clips: Path, reader: VideoReader) -> None:
    names = ["h264.mp4", "hevc.mp4", "mpeg4.avi", "vp9.webm"] * 3
    numbers: dict[int, int] = {}

    def read(position: int) -> None:
        frames = reader.read(clips / names[position], [position / 25 + 0.01])
        numbers[position] = numbered_clips.number_in(frames.frames_thwc[0])

    threads = [threading.Thread(target=read, args=(position,)) for position in range(len(names))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert numbers == {position: position for position in range(len(names))}


def test_a_stream_holds_its_reader_until_it_is_closed(clips: Path, reader: VideoReader) -> None:
    stream = reader.stream(clips / "h264.mp4", [0.0, 1.0, 2.0], chunk_frames=1)
    next(stream)
    with pytest.raises(UsageError, match="open stream"):
        reader.probe(clips / "h264.mp4")
    stream.close()
    assert list(stream) == []
    assert reader.probe(clips / "h264.mp4").num_frames == numbered_clips.NUM_FRAMES
    stream = reader.stream(clips / "h264.mp4", [0.0, 1.0])
    assert len(list(stream)) == 1  # exhausted: the reader is free without a close
    assert reader.probe(clips / "h264.mp4").num_frames == numbered_clips.NUM_FRAMES
    reader.stream(clips / "h264.mp4", [0.0, 1.0])  # dropped
    assert reader.probe(clips / "h264.mp4").num_frames == numbered_clips.NUM_FRAMES


@pytest.mark.slow
def test_a_busy_caller_is_not_a_slow_decoder(clips: Path) -> None:
    """The child waits for a caller that takes its time, and the limit does not count that."""
    times = np.arange(numbered_clips.NUM_FRAMES) / 25 + 0.01
    with VideoReader(limits=DecodeLimits(timeout_seconds=1.0)) as reader:
        reader.probe(clips / "h264.mp4")
        count = 0
        for chunk in reader.stream(clips / "h264.mp4", times, chunk_frames=60):
            count += len(chunk.frames_thwc)
            time.sleep(1.2)
    assert count == numbered_clips.NUM_FRAMES


def test_closing_ends_the_child(clips: Path) -> None:
    reader = VideoReader()
    reader.probe(clips / "h264.mp4")
    child = child_of(reader)
    reader.close()
    assert not is_alive(child)
    reader.probe(clips / "h264.mp4")  # starts another
    child = child_of(reader)
    del reader
    assert wait_until_gone(child)


def test_a_program_that_forgets_to_close_ends_at_once(clips: Path) -> None:
    script = (
        "from nonlocal_video.video import VideoReader\n"
        f"reader = VideoReader(); stream = reader.stream({str(clips / 'h264.mp4')!r}, [0.0, 1.0], chunk_frames=1)\n"
        "next(stream)\n"
        "print(reader._process.pid)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, timeout=8)
    assert done.stderr == b""
    assert wait_until_gone(int(done.stdout))


@linux_only
@pytest.mark.parametrize("spins", [False, True])
def test_no_orphans(clips: Path, tmp_path: Path, spins: bool) -> None:
    """kill -9 of the parent ends the child, even one that spins with the interpreter's lock."""
    (tmp_path / "decord.py").write_text(
        "import re\nclass DECORDError(Exception): pass\nclass logging: INFO, set_level = 0, print\n"
        f"def VideoReader(*_, **__): {SPIN}\n"
    )
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from nonlocal_video.video import VideoReader\n"
        f"reader = VideoReader(); reader.probe({str(clips / 'h264.mp4')!r})\n"
        "print(reader._process.pid, flush=True)\n"
        + (f"reader.read({str(clips / 'h264.mp4')!r}, [0.0])\n" if spins else "import time; time.sleep(60)\n")
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        time.sleep(0.5)
        assert is_alive(child)
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
        assert wait_until_gone(child)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_gets_its_own_child(clips: Path) -> None:
    script = (
        "import os, sys, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "from nonlocal_video.video import VideoReader\n"
        f"path = {str(clips / 'h264.mp4')!r}\n"
        "reader = VideoReader(); reader.probe(path); mine = reader._process.pid\n"
        "pid = os.fork()\n"
        "if not pid:\n"
        "    frames = reader.read(path, [1.0])\n"
        "    ok = reader._process.pid != mine\n"
        "    reader.close()\n"
        "    os._exit(0 if ok else 1)\n"
        "status = os.waitpid(pid, 0)[1]\n"
        "reader.probe(path)\n"
        "assert reader._process.pid == mine, 'the fork disturbed its parent'\n"
        "sys.exit(status)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_what_a_start_up_file_prints_disturbs_nothing(clips: Path, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('welcome')\nimport sys\nprint('noise', file=sys.stderr)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with VideoReader() as reader:
        assert reader.probe(clips / "h264.mp4").num_frames == numbered_clips.NUM_FRAMES


def test_a_child_without_its_libraries_says_so(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "av.py").write_text("raise ImportError('libx is missing')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with VideoReader() as reader, pytest.raises(VideoError, match=r"libx is missing.*pip install av") as caught:
        reader.probe(clips / "h264.mp4")
    assert caught.value.code == "internal"


def test_nothing_heavy_is_imported_here() -> None:
    script = "import sys, nonlocal_video.video; print([m for m in ('av', 'decord', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout.strip() == b"[]"
