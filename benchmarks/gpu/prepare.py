"""`benchmarks/gpu.sh --prepare FOLDER`: the source tree and the wheels that a bare machine lacks, within a size."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
MEGABYTE = 1_000_000
DEFAULT_LIMIT_MB = 60.0
UNUSED = ("docs/images", "benchmarks/results")
"""Folders of the repository that the run on the machine does not need."""
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64",
             "manylinux2010_x86_64", "manylinux1_x86_64")  # fmt: skip


@dataclass(frozen=True)
class Wanted:
    """A group of packages that are of use only together, and what is left out without them."""

    packages: tuple[str, ...]
    without: str


# The most needed first. Machines that are made for PyTorch have NumPy, SciPy, torchvision, Lightning, pytest and more.
WANTED = (
    Wanted(("pydantic", "pydantic-core", "annotated-types", "typing-inspection", "platformdirs"), "nothing runs"),
    Wanted(("av",), "no video is decoded: clips are arrays of frames"),
    Wanted(("decord",), "PyAV decodes every video"),
)


def main() -> None:
    """Pack the tree and gather the wheels; the exit status is 1 if what nothing runs without does not fit."""
    parser = argparse.ArgumentParser(prog="gpu.sh --prepare", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--limit-mb", type=float, default=DEFAULT_LIMIT_MB, help="of the packed tree and the wheels together"
    )
    parser.add_argument("--python-version", default="3.12", help="of the bare machine")
    asked = parser.parse_args()
    if asked.folder.resolve() in (REPOSITORY.resolve(), *REPOSITORY.resolve().parents):
        parser.error(f"{asked.folder} holds the source tree; name a folder that does not.")
    wheels = asked.folder / "wheels"
    if wheels.exists():
        parser.error(f"{wheels} exists; name another folder, or delete it first.")
    wheels.mkdir(parents=True)
    tree = pack_tree(REPOSITORY, asked.folder / "tree.tar.gz")
    with tempfile.TemporaryDirectory() as name:
        groups = [
            (wanted, download(wanted.packages, Path(name) / str(number), asked.python_version))
            for number, wanted in enumerate(WANTED)
        ]
        taken, left_out = choose(groups, room=round(asked.limit_mb * MEGABYTE) - tree)
        for path in taken:
            shutil.copy(path, wheels)
    found = {
        "tree_mb": round(tree / MEGABYTE, 2),
        "wheels_mb": round(sum(path.stat().st_size for path in wheels.iterdir()) / MEGABYTE, 2),
        "limit_mb": asked.limit_mb,
        "wheels": sorted(path.name for path in wheels.iterdir()),
        "left_out": left_out,
    }
    (asked.folder / "prepared.json").write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))
    if any(entry["without"] == WANTED[0].without for entry in left_out):
        sys.exit(f"Not even {', '.join(WANTED[0].packages)} fit beside the tree: raise --limit-mb.")


def choose(groups: list[tuple[Wanted, list[Path]]], *, room: int) -> tuple[list[Path], list[dict[str, object]]]:
    """Return the wheels that fit, taken group by group, and what is left out with its size and consequence."""
    taken: list[Path] = []
    left_out: list[dict[str, object]] = []
    for wanted, paths in groups:
        size = sum(path.stat().st_size for path in paths)
        if size <= room:
            taken += paths
            room -= size
        else:
            megabytes = round(size / MEGABYTE, 2)
            left_out.append({"packages": wanted.packages, "megabytes": megabytes, "without": wanted.without})
    return taken, left_out


def download(packages: tuple[str, ...], folder: Path, python_version: str) -> list[Path]:
    """Fetch one wheel for each package, of the tested versions, for Linux on x86-64."""
    folder.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--dest", str(folder)]
    command += ["--no-deps", "--only-binary=:all:", "--implementation", "cp", "--python-version", python_version]
    for platform in PLATFORMS:
        command += ["--platform", platform]
    done = subprocess.run([*command, *map(tested_version, packages)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"pip could not fetch {', '.join(packages)}:\n{done.stderr.strip()[-1500:]}")
    return sorted(folder.glob("*.whl"))


def tested_version(package: str) -> str:
    """Return `package==version` as constraints.txt has it."""
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    for line in lines:
        found = re.match(rf"{re.escape(package)}==([^ ;]+)", line)
        if found:
            return f"{package}=={found[1]}"
    sys.exit(f"constraints.txt has no version of {package}.")


def pack_tree(repository: Path, archive: Path) -> int:
    """Pack the files that git has or would add, less `UNUSED` and the archive's folder; return the size in bytes."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=repository, capture_output=True, check=True,
    ).stdout  # fmt: skip
    left_out = {archive.parent.resolve(), *((repository / name).resolve() for name in UNUSED)}
    with tarfile.open(archive, "w:gz", compresslevel=6) as tar:
        for name in sorted({name.decode() for name in listed.split(b"\0") if name}):
            path = repository / name
            # A deleted file is still listed.
            if os.path.lexists(path) and not left_out.intersection(Path(os.path.abspath(path)).parents):
                tar.add(path, f"nonlocal-video/{name}", recursive=False)
    return archive.stat().st_size


if __name__ == "__main__":
    main()
