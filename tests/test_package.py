"""The wheel that a user installs holds everything, the weights included, and runs away from the checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but the installed wheel in it."""
    folder = tmp_path_factory.mktemp("wheel")
    # From a copy of what git would hand out, so that nothing untracked or already built slips in or is left behind.
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.split(b"\0")
    source = folder / "source"
    for name in filter(None, names):
        if (ROOT / os.fsdecode(name)).is_file():
            target = source / os.fsdecode(name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / os.fsdecode(name), target)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, source],
        check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = folder.glob("*.whl")
    target = folder / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", target, wheel],
        check=True, capture_output=True,
    )  # fmt: skip
    return target


def test_only_one_package_lands_in_the_environment(installed: Path) -> None:
    top = {path.name for path in installed.iterdir()}
    assert {name for name in top if not name.endswith(".dist-info")} == {"nonlocal_video", "bin"}
    for name in ("py.typed", "app/page.py", "weights/i3d-nl-k400.safetensors", "weights/kinetics400.txt"):
        assert (installed / "nonlocal_video" / name).is_file(), name


def test_every_file_of_the_packages_is_installed(installed: Path) -> None:
    """A package that is missing from the list in pyproject.toml is missed by no test that runs in a checkout."""
    source = installed.parent / "source"
    for folder, inside in (("nonlocal_video", ""), ("app", "app"), ("weights", "weights")):
        files = {path.relative_to(source / folder) for path in (source / folder).rglob("*") if path.is_file()}
        missing = {file for file in files if not (installed / "nonlocal_video" / inside / file).is_file()}
        assert missing == {file for file in files if file.parts[0] == "recipes"}  # as docs/train.md says


def test_every_verb_and_the_page_are_importable(installed: Path, tmp_path: Path) -> None:
    code = """
import importlib, pkgutil, nonlocal_video
names = [module.name for module in pkgutil.walk_packages(nonlocal_video.__path__, "nonlocal_video.")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
print(nonlocal_video.__file__, len(names))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(installed)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    file, number = done.stdout.split()[-2:]
    assert Path(file).is_relative_to(installed)
    assert int(number) > 300


def test_it_classifies_with_the_embedded_default_from_anywhere(
    installed: Path, clip_folder: Path, tmp_path: Path
) -> None:
    environment = os.environ | {"PYTHONPATH": str(installed)}
    where = subprocess.run(
        [sys.executable, "-c", "import nonlocal_video.weights as w; print(w.__file__)"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert Path(where.stdout.strip()).is_relative_to(installed)
    done = subprocess.run(
        [sys.executable, installed / "bin" / "nonlocal-video", "classify", clip_folder / "a.mp4", "--fast", "--json"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    assert row["model"] == "i3d-nl-k400"
    labels = (installed / "nonlocal_video" / "weights" / "kinetics400.txt").read_text("utf-8").splitlines()
    assert labels[row["top"][0]["index"]] == row["top"][0]["label"]


def test_the_wheel_is_no_larger_than_its_weights_need(installed: Path) -> None:
    (wheel,) = installed.parent.glob("*.whl")
    weights = sum(
        info.file_size for info in zipfile.ZipFile(wheel).infolist() if info.filename.endswith(".safetensors")
    )
    assert wheel.stat().st_size < weights + 2**20
