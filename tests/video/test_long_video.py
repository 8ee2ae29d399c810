"""Long videos, and many videos, in memory that does not grow."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numbered_clips
import numpy as np
import pytest

from nonlocal_video.video import VideoReader
from nonlocal_video.video._decord import MAX_FRAMES

pytestmark = pytest.mark.slow

NUM_FRAMES = 10_000

STREAM = """
import json, sys
from pathlib import Path
from nonlocal_video.video import VideoReader

def peak_mebibytes(pid="self"):
    return int(Path(f"/proc/{pid}/status").read_text().split("VmHWM:")[1].split()[0]) / 1024

with VideoReader(decoder=sys.argv[2]) as reader:
    count = int(sys.argv[3])
    with reader.stream(sys.argv[1], [(i + 0.5) / 25 for i in range(count)]) as stream:
        chunks = iter(stream)
        seen = len(next(chunks).frames_thwc)
        before = peak_mebibytes(), peak_mebibytes(reader._process.pid)
        for chunk in chunks:
            assert len(chunk.frames_thwc) <= 16
            seen += len(chunk.frames_thwc)
    after = peak_mebibytes(), peak_mebibytes(reader._process.pid)
    print(json.dumps({"seen": seen, "before": before, "after": after, "decoder": stream.info.decoder}))
"""


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    source = ["-f", "lavfi", "-i", f"testsrc=s=64x64:r=25:d={NUM_FRAMES // 25}"]
    numbered_clips.ffmpeg(*source, "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", str(path))
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_length(long_clip: Path) -> None:
    """All frames together would be 123 MB, in both processes."""
    command = [sys.executable, "-c", STREAM, str(long_clip), "auto", str(NUM_FRAMES)]
    found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert found["seen"] == NUM_FRAMES
    assert found["decoder"] == "pyav"
    assert found["after"][0] - found["before"][0] < 20, "the parent's memory grew"
    assert found["after"][1] - found["before"][1] < 20, "the child's memory grew"


def test_only_short_requests_are_decords(long_clip: Path) -> None:
    """Behind a slow consumer decord decodes ahead without a bound; both give the same frames."""
    with VideoReader() as reader, VideoReader(decoder="decord") as forced:
        for count, decoder in ((MAX_FRAMES, "decord"), (MAX_FRAMES + 1, "pyav")):
            times = [(i + 0.5) / 25 for i in range(count)]
            found, wanted = reader.read(long_clip, times), forced.read(long_clip, times)
            assert (found.info.decoder, wanted.info.decoder) == (decoder, "decord")
            assert np.array_equal(found.frames_thwc, wanted.frames_thwc)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_files(clips: Path) -> None:
    script = (
        "import json, sys\n"
        "from pathlib import Path\n"
        "from nonlocal_video.video import VideoReader\n"
        "sizes = []\n"
        "with VideoReader() as reader:\n"
        "    for i in range(150):\n"
        "        reader.read(sys.argv[1 + i % (len(sys.argv) - 1)], [0.0, 1.0, 2.0])\n"
        "        status = Path(f'/proc/{reader._process.pid}/status').read_text()\n"
        "        sizes.append((reader._process.pid, int(status.split('VmRSS:')[1].split()[0]) / 1024))\n"
        "print(json.dumps(sizes))\n"
    )
    names = ["h264.mp4", "hevc.mp4", "mpeg4.avi", "vp9.webm", "h264.ts", "animation.gif"]
    command = [sys.executable, "-c", script, *(str(clips / name) for name in names)]
    sizes = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert len({pid for pid, _ in sizes}) == 1
    assert sizes[-1][1] - sizes[30][1] < 20, "MiB leaked in 120 files"
