"""Lines of the Makefile and .ci/run install versions that passed all tests, any PyTorch, and nothing malicious."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/usr/bin/env bash\n{text}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(("goal", "what"), [("", ["."]), ("-dev", [".", ".[dev]"]), ("-docs", [".", ".[docs]"])])
def test_make_installs_with_the_constraints(tmp_path: Path, goal: str, what: list[str]) -> None:
    command = ["make", "--dry-run", f"VENV={tmp_path}", f"{tmp_path}/.installed{goal}"]
    lines = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout.splitlines()
    installs = [line.replace('"', "").split() for line in lines if "pip install" in line]
    assert [line[-1] for line in installs] == what
    for line in installs:
        assert line[line.index("--constraint") + 1] == "constraints.txt"


def is_of_pytorch(name: str) -> bool:
    return name in ("torch", "torchvision", "triton") or name.startswith(("nvidia-", "cuda-"))


def test_the_constraints_leave_pytorch_open_and_fit_the_project() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if not line.startswith("#")]
    versions = {one.name: str(one.specifier).removeprefix("==") for one in map(Requirement, lines)}
    assert not any(map(is_of_pytorch, versions))
    wanted = [*PROJECT["dependencies"], *(text for extra in EXTRAS.values() for text in extra)]
    for one in map(Requirement, wanted):
        name = one.name.replace("_", "-").lower()
        if name != PROJECT["name"] and not is_of_pytorch(name):
            assert one.specifier.contains(versions[name]), name


def test_new_constraints_leave_pytorch_out(tmp_path: Path) -> None:
    """Run with a stub `uv` that prints the packages it was not told to leave out."""
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    names = "numpy torch torchvision triton nvidia-nccl-cu12 cuda-bindings"
    told = '[[ " $* " = *" --no-emit-package $name "* ]] || echo "$name==1"'
    script(tmp_path / ".venv" / "bin" / "uv", f"for name in {names}; do {told}; done")
    done = subprocess.run([tmp_path / ".ci" / "constraints"], capture_output=True, check=True, text=True)
    assert done.stdout.splitlines()[1:] == ["numpy==1"]


def test_malicious_releases_are_excluded() -> None:
    (lightning,) = [one for one in map(Requirement, EXTRAS["train"]) if one.name == "lightning"]
    assert [lightning.specifier.contains(f"2.6.{patch}") for patch in (1, 2, 3, 4)] == [True, False, False, True]


@pytest.mark.parametrize("newest_differ", [False, True])
@pytest.mark.parametrize("project_changed", [False, True])
def test_ci_tries_other_versions_only_where_they_are_others(
    tmp_path: Path, newest_differ: bool, project_changed: bool
) -> None:
    """Run in a small repository, with a stub `make` that records its goals."""
    top, programs = tmp_path / "top", tmp_path / "programs"
    script(top / ".ci" / "run", (ROOT / ".ci" / "run").read_text("utf-8"))
    script(top / ".ci" / "constraints", "echo numpy==2")
    (top / "constraints.txt").write_text("numpy==1\n" if newest_differ else "numpy==2\n")
    (top / "pyproject.toml").write_text("before")
    for name in ("python3", "ffmpeg", "chromium"):
        script(programs / name, "true")
    script(programs / "make", f'echo "$*" >> {tmp_path}/goals')
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(tmp_path), "BASE": "HEAD"}
    author = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    for words in (["init", "-q"], ["add", "."], [*author, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *words], cwd=top, env=environment, check=True)
    if project_changed:
        (top / "pyproject.toml").write_text("after")
    subprocess.run([top / ".ci" / "run"], env=environment, check=True, capture_output=True)
    expected = ["lint", "demo", "docs", "test"]
    expected += ["test-newest"] * newest_differ + ["test-lowest"] * project_changed
    assert (tmp_path / "goals").read_text().split() == expected


def lowest_versions() -> dict[str, str]:
    bounds = {}
    for one in map(Requirement, PROJECT["dependencies"]):
        bounds[one.name] = re.search(r">=([\d.]+)", str(one.specifier))[1]
    return bounds


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({}, ""),
        ({"torch": "99"}, ""),
        ({"safetensors": "0.8.0"}, "safetensors would be 0.8.0"),
        ({"huggingface_hub": "1.31.0", "rich": "15"}, "huggingface-hub would be 1.31.0"),
    ],
)
def test_the_lowest_run_has_the_lowest_versions(tmp_path: Path, changed: dict[str, str], sentence: str) -> None:
    versions = tmp_path / "versions.txt"
    versions.write_text("".join(f"{name}=={version}\n" for name, version in (lowest_versions() | changed).items()))
    command = [sys.executable, ROOT / ".ci" / "check_lowest.py", versions]
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    assert (done.returncode, done.stderr.startswith(sentence)) == (1 if sentence else 0, True)
    assert len(done.stderr.splitlines()) == len(changed.keys() - {"torch"})
