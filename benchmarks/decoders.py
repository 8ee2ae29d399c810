"""Compare frames by decoder: ours beside plain decord, torchcodec and OpenCV, against the ffmpeg program.

    python benchmarks/decoders.py --write-docs

Makes the clips of the decoding tests, whose frames carry their own number in their pixels, and asks every library for
frames by its own means: ours and torchcodec also by time. Each library reads each clip in a process of its own, which
is killed after a while, since decord does not come back from some files. A library that is not installed is left out.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests" / "video"))

import numbered_clips  # noqa: E402 - found by the line above

LIMIT_SECONDS = 20
NUM_FRAMES = 19
SEED = 0
RESULTS = ROOT / "benchmarks" / "results" / "decoders.json"
DOCS = ROOT / "docs" / "decoding.md"
PACKAGES = {
    "ours": "nonlocal-video",
    "decord": "decord",
    "torchcodec": "torchcodec",
    "OpenCV": "opencv-python-headless",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write-docs", action="store_true", help="store the results and put the table into the docs")
    parser.add_argument("--read", nargs=3, metavar=("LIBRARY", "CLIP", "REQUEST"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read:
        library, clip, request = arguments.read
        print(json.dumps(READERS[library](clip, **json.loads(request))))
        return
    versions = {library: found for library, package in PACKAGES.items() if (found := _version(package))}
    rows = measure(list(versions))
    table = markdown(rows, versions)
    print(table)
    if arguments.write_docs:
        machine = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
        results = {"frames_asked_for": NUM_FRAMES, "versions": versions, "machine": machine, "clips": rows}
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        before, rest = DOCS.read_text(encoding="utf-8").split("<!-- table -->\n")
        after = rest.split("<!-- /table -->")[1]
        DOCS.write_text(f"{before}<!-- table -->\n{table}\n<!-- /table -->{after}", encoding="utf-8")


def measure(libraries: Sequence[str]) -> dict[str, dict[str, str]]:
    """Clip -> library -> what came of it."""
    rows: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        numbered_clips.make(Path(folder))
        for name in numbered_clips.ALL:
            path = Path(folder, name)
            reference = numbered_clips.reference(path)
            indices = np.random.default_rng(SEED).integers(0, len(reference.numbers), NUM_FRAMES).tolist()
            starts = reference.pts_seconds
            ends = np.append(starts[1:], starts[-1] + 0.002)
            request = {"indices": indices, "seconds": [float((starts[i] + ends[i]) / 2) for i in indices]}
            expected = [reference.numbers[index] for index in indices]
            rows[name] = {library: judge(library, path, request, expected) for library in libraries}
            print(name, rows[name], file=sys.stderr)
    return rows


def judge(library: str, path: Path, request: dict[str, list[Any]], expected: list[int]) -> str:
    """`exact`, the number of wrong frames, `sideways`, `error` or `hangs`."""
    command = [sys.executable, __file__, "--read", library, str(path), json.dumps(request)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return "hangs"
    if done.returncode:
        return "error"
    frames = json.loads(done.stdout.splitlines()[-1])
    wrong = sum(number != right for (number, _), right in zip(frames, expected, strict=True))
    if wrong:
        return f"{wrong} of {len(expected)} wrong"
    return "exact" if all(upright for _, upright in frames) else "wrong way up"


def _seen(frames: Sequence[Any]) -> list[tuple[int, bool]]:
    return [(numbered_clips.number_in(frame), bool(numbered_clips.is_upright_rgb(frame))) for frame in frames]


def read_with_ours(path: str, indices: list[int], seconds: list[float]) -> list[tuple[int, bool]]:
    from nonlocal_video.video import VideoReader

    with VideoReader() as reader:
        found = reader.read(path, seconds)
    return _seen(found.frames_thwc[found.frame_of_time])


def read_with_decord(path: str, indices: list[int], seconds: list[float]) -> list[tuple[int, bool]]:
    import decord

    return _seen(decord.VideoReader(path).get_batch(indices).asnumpy())


def read_with_torchcodec(path: str, indices: list[int], seconds: list[float]) -> list[tuple[int, bool]]:
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(path, dimension_order="NHWC", seek_mode="exact")
    return _seen(decoder.get_frames_at(indices).data.numpy())


def read_with_opencv(path: str, indices: list[int], seconds: list[float]) -> list[tuple[int, bool]]:
    import cv2

    capture = cv2.VideoCapture(path)
    frames = []
    for index in indices:
        capture.set(cv2.CAP_PROP_POS_FRAMES, index)
        is_read, frame = capture.read()
        if not is_read:
            raise RuntimeError(f"no frame {index}")
        frames.append(frame[..., ::-1])
    return _seen(frames)


READERS: dict[str, Callable[..., list[tuple[int, bool]]]] = {
    "ours": read_with_ours,
    "decord": read_with_decord,
    "torchcodec": read_with_torchcodec,
    "OpenCV": read_with_opencv,
}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def markdown(rows: dict[str, dict[str, str]], versions: dict[str, str]) -> str:
    """The table of the documentation."""
    head = " | ".join(f"{library} {number}" for library, number in versions.items())
    lines = [f"| clip | {head} |", "| --- |" + " --- |" * len(versions)]
    for name, row in rows.items():
        cells = (row[library] if row[library] == "exact" else f"**{row[library]}**" for library in versions)
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
