"""The README's commands and code do what they say."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands() -> list[str]:
    """The program's calls in the README, without their comments; the page has its own tests."""
    lines = [line.partition("#")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if line.startswith(".venv/bin/nonlocal-video")]


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the files that the README speaks of."""
    from nonlocal_video.video.encode import write_video

    (tmp_path / "FOLDER").mkdir()
    random = np.random.default_rng(0)
    for path in (tmp_path / "clip.mp4", tmp_path / "FOLDER" / "one.mp4"):
        write_video(path, (random.integers(0, 256, (120, 160, 3), np.uint8) for _ in range(70)), fps=25)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_commands_are_the_ones_this_test_knows() -> None:
    assert [command.split()[1] for command in commands()] == ["classify", "classify", "explain"]


@pytest.mark.slow
@pytest.mark.parametrize("command", commands())
def test_command_works(command: str, there: Path, run: Callable[..., Any]) -> None:
    done = run(*command.split()[1:])
    assert done.status == 0, done.err
    if "--output table.csv" in command:
        assert len((there / "table.csv").read_text().splitlines()) == 2
    if "explain" in command:
        assert (there / "explained" / "overlay.mp4").is_file()


def test_number_of_checkpoints_is_the_catalogues() -> None:
    from nonlocal_video.zoo.catalogue import entries

    with_weights = [row for row in entries().values() if row.download is not None]
    assert f"shows {len(with_weights)} [published checkpoints]" in README


@pytest.mark.slow
def test_python_code_works(there: Path) -> None:
    (code,) = blocks("python")
    exec(compile(code, "README.md", "exec"), {})
    assert (there / "overlay.mp4").is_file()


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in re.findall(r"`?make ([a-z]+)", README):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


@pytest.mark.parametrize("name", ["demo.webp", "visit.webp"])
def test_the_moving_pictures_move_and_are_small(name: str) -> None:
    assert f"(docs/images/{name})" in README
    path = ROOT / "docs" / "images" / name
    assert path.stat().st_size < 2_000_000
    with Image.open(path) as picture:
        num_frames = getattr(picture, "n_frames", 1)
        assert num_frames > 24
        first = np.asarray(picture.convert("RGB"), float)
        picture.seek(num_frames - 1)
        assert np.abs(np.asarray(picture.convert("RGB"), float) - first).mean() > 1


def test_extras_that_are_named_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    named = re.findall(r"nonlocal-video\[(\w+)\]", README)
    assert named
    assert set(named) <= set(extras)
