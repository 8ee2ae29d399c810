"""A reader in poor surroundings: no PATH, no temporary folder, no descriptors, threads or memory; wrong arguments."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import tempfile
import threading
from fractions import Fraction
from pathlib import Path
from typing import Any

import numbered_clips
import numpy as np
import pytest

from nonlocal_video.errors import UsageError, VideoError
from nonlocal_video.video import DecodeLimits, VideoReader

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="written for Linux")]

READ = (
    "import sys\n"
    "from nonlocal_video.video import VideoReader\n"
    "with VideoReader() as reader: frames = reader.read(sys.argv[1], [1.0])\n"
    "open(sys.argv[2], 'w').write(f'{frames.info.decoder} {len(frames.frames_thwc)}')\n"
    "if sys.stderr: print(*frames.info.notes, file=sys.stderr)\n"
)


def read_elsewhere(clip: Path, answer: Path, *, options: tuple[str, ...] = (), **how: Any) -> str:
    """Result of a Python of its own under other circumstances."""
    command = [sys.executable, *options, "-c", READ, str(clip), str(answer)]
    done = subprocess.run(command, capture_output="stderr" not in how, timeout=60, check=False, **how)
    assert done.returncode == 0, done.stderr
    if done.stderr:
        print(done.stderr.decode())  # shown by pytest where the answer is not the expected one: why decord was not used
    return answer.read_text()


@pytest.mark.parametrize(
    "environment",
    [
        {},  # nothing at all
        {"PATH": ""},
        {"PATH": os.defpath, "HOME": "/dev/null/home", "TMPDIR": "/dev/null/tmp"},
        {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONSAFEPATH": "1", "PYTHONNOUSERSITE": "1"},
    ],
)
def test_any_environment(clips: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    clip = tmp_path / "clé 動画.mp4"
    os.link(clips / "h264.mp4", clip)
    # decord takes no name that the locale cannot write; PyAV does.
    decoder = "pyav" if "LC_ALL" in environment else "decord"
    assert read_elsewhere(clip, tmp_path / "answer", env=environment) == f"{decoder} 1"


@pytest.mark.parametrize("options", [("-I",), ("-P",), ("-E", "-s"), ("-X", "utf8=1"), ("-O",)])
def test_any_interpreter_options(clips: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    """The child does not read either what its parent was told to leave alone."""
    (tmp_path / "sitecustomize.py").write_text("import os\nif os.environ.get('POISON'): os._exit(3)\n")
    environment = {"PATH": os.defpath, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}
    if options[0] in ("-I", "-E"):
        environment |= {"PYTHONPATH": str(tmp_path), "POISON": "1"}
    clip = tmp_path / "clé.mp4"
    os.link(clips / "h264.mp4", clip)
    assert read_elsewhere(clip, tmp_path / "answer", options=options, env=environment) == "decord 1"


def test_a_read_only_working_folder(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir(mode=0o555)
    assert read_elsewhere(clips / "h264.mp4", tmp_path / "answer", cwd=tmp_path / "here") == "decord 1"


@pytest.mark.skipif(sys.version_info[:3] == (3, 13, 0), reason="there even `import numpy` fails")
def test_a_working_folder_that_is_gone(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    answer = tmp_path / "answer"

    def leave() -> None:
        os.chdir(tmp_path / "here")
        os.rmdir(tmp_path / "here")

    # OpenCV leaves an empty entry, which stands for the working folder.
    environment = {**os.environ, "LD_LIBRARY_PATH": "/usr/lib:"}
    assert read_elsewhere(clips / "h264.mp4", answer, preexec_fn=leave, env=environment) == "decord 1"
    (tmp_path / "here").mkdir()
    script = READ.replace(
        "with VideoReader() as reader: frames = reader.read(sys.argv[1], [1.0])",
        "from nonlocal_video.errors import VideoError\n"
        "try: VideoReader().probe('relative.mp4')\n"
        "except VideoError as error: open(sys.argv[2], 'w').write(error.message); sys.exit()",
    )
    subprocess.run([sys.executable, "-c", script, "", str(answer)], preexec_fn=leave, check=True, timeout=60)
    assert answer.read_text() == "relative.mp4: the working folder was deleted; give the whole path."


def test_closed_standard_streams(clips: Path, tmp_path: Path) -> None:
    def close_all() -> None:
        for descriptor in range(3):
            os.close(descriptor)

    found = read_elsewhere(
        clips / "h264.mp4", tmp_path / "answer", preexec_fn=close_all, stdin=None, stdout=None, stderr=None
    )
    assert found == "decord 1"


def failure_of_probe(clip: Path) -> VideoError:
    with VideoReader() as reader, pytest.raises(VideoError) as caught:
        reader.probe(clip)
    assert "\n" not in caught.value.message
    return caught.value


def test_without_descriptors(clips: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(map(int, os.listdir("/proc/self/fd")))
    failures: list[VideoError] = []
    with VideoReader() as reader:
        try:
            for spare in range(14):
                # The numbers below may be free: take them, so that exactly `spare` are left.
                resource.setrlimit(resource.RLIMIT_NOFILE, (used + 1 + spare, hard))
                taken = []
                try:
                    while True:
                        taken.append(os.open(os.devnull, os.O_RDONLY))
                except OSError:
                    for descriptor in taken[len(taken) - spare :] if spare else ():
                        os.close(descriptor)
                    taken = taken[: len(taken) - spare]
                try:
                    reader.probe(clips / "h264.mp4")
                    break
                except VideoError as error:
                    failures.append(error)
                finally:
                    for descriptor in taken:
                        os.close(descriptor)
            assert 0 < spare < 13  # it failed with none, and a few are enough
            assert all(error.code == "internal" and "ulimit -n" in error.message for error in failures)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_without_threads_or_processes(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_thread(self: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        error = failure_of_probe(clips / "h264.mp4")
    assert (error.code, "can't start new thread" in error.message, "pids" in error.message) == ("internal", True, True)

    def no_process(number: int) -> Any:
        def refuse(*_: object, **__: object) -> None:
            raise OSError(number, os.strerror(number))

        return refuse

    for number, code in ((errno.EAGAIN, "internal"), (errno.ENOMEM, "out_of_memory"), (errno.EACCES, "internal")):
        with monkeypatch.context() as patch:
            patch.setattr(subprocess, "Popen", no_process(number))
            error = failure_of_probe(clips / "h264.mp4")
        assert error.code == code
        assert os.strerror(number) in error.message


def test_without_a_temporary_folder_where_one_is_needed(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A temporary folder is needed only where the system has no files in memory."""

    def none(*_: object, **__: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.setattr(tempfile, "TemporaryFile", none)
    assert "TMPDIR" in failure_of_probe(clips / "h264.mp4").message


def test_frames_that_have_no_room(clips: Path, reader: VideoReader, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = np.empty

    def full(shape: Any, *arguments: Any, **options: Any) -> Any:
        if isinstance(shape, tuple) and len(shape) == 4:
            raise MemoryError
        return empty(shape, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(np, "empty", full)
        with pytest.raises(VideoError, match=r"h264.mp4: 2 frames of .* GB") as caught:
            reader.read(clips / "h264.mp4", [0.0, 1.0])
        assert caught.value.code == "out_of_memory"
    assert len(reader.read(clips / "h264.mp4", [0.0, 1.0]).frames_thwc) == 2  # and the reader is free again
    with monkeypatch.context() as patch:
        patch.setattr("nonlocal_video.video._wire.json.loads", lambda _: (_ for _ in ()).throw(MemoryError()))
        for ask in (lambda: reader.probe(clips / "h264.mp4"), lambda: reader.read(clips / "h264.mp4", [0.0])):
            with pytest.raises(VideoError) as caught:
                ask()
            assert caught.value.code == "out_of_memory"
    assert reader.probe(clips / "h264.mp4").num_frames == numbered_clips.NUM_FRAMES


@pytest.mark.parametrize(
    "times",
    [None, "abc", ["1.0"], [None], [[0.0], [1.0, 2.0]], [1j], [True], 1.0, [float("nan")], [float("inf")], [10**400],
     [np.datetime64("2020-01-01")], {}, [object()], iter([1.0]), [], [[0.0]]],
)  # fmt: skip
def test_times_that_are_none(clips: Path, reader: VideoReader, times: Any) -> None:
    for ask in (reader.read, reader.stream):
        with pytest.raises(UsageError, match="times_seconds"):
            ask(clips / "h264.mp4", times)
    assert reader.probe(clips / "h264.mp4").num_frames == numbered_clips.NUM_FRAMES  # the reader is not held


@pytest.mark.parametrize("path", [None, 5, 1.5, [], object()])
def test_paths_that_are_none(reader: VideoReader, path: Any) -> None:
    for ask in (lambda: reader.probe(path), lambda: reader.read(path, [0.0]), lambda: reader.stream(path, [0.0])):
        with pytest.raises(UsageError, match="path"):
            ask()


def test_other_arguments_of_a_wrong_kind(clips: Path, reader: VideoReader) -> None:
    for chunk_frames in ("a", None, 1.5, 0, -1):
        with pytest.raises(UsageError, match="chunk_frames"):
            reader.stream(clips / "h264.mp4", [0.0], chunk_frames=chunk_frames)
    no_decoders: list[Any] = [None, 5, [], np.zeros(2)]
    for decoder in no_decoders:
        with pytest.raises(UsageError, match="decoder"):
            VideoReader(decoder=decoder)
    with pytest.raises(UsageError, match="limits"):
        VideoReader(limits={"timeout_seconds": 5})
    for value in ("a", None, True, float("nan"), 1.5):
        with pytest.raises(UsageError, match="max_pixels"):
            DecodeLimits(max_pixels=value)
    times: list[Any] = [Fraction(1, 2), np.float32(1.0)]
    with VideoReader(limits=DecodeLimits(memory_bytes=2e9, max_pixels=36e6)) as other:
        frames = other.read(clips / "h264.mp4", times)
    assert [numbered_clips.number_in(frame) for frame in frames.frames_thwc] == [12, 25]
