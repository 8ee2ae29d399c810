"""Files that a release rests on: versions that agree, licences that are packed, hooks that cannot change."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import yaml

import nonlocal_video as nlv

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def test_the_citation_names_this_version_and_licence() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == nlv.__version__
    assert citation["license"] == PROJECT["license"]
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert f"## {nlv.__version__}" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_the_notice_names_every_weights_file_and_label_list() -> None:
    notice = (ROOT / "NOTICE").read_text("utf-8")
    assert PROJECT["license-files"] == ["LICENSE", "NOTICE"]
    for path in (ROOT / "weights").glob("*"):
        if path.suffix in (".safetensors", ".txt"):
            assert path.name in notice


def test_hooks_of_others_are_pinned_to_a_commit() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"]
    revisions = [hook["rev"] for hook in hooks if hook["repo"] != "local"]
    assert revisions
    assert all(re.fullmatch(r"[0-9a-f]{40}", revision) for revision in revisions)


def test_supported_pythons_are_classified() -> None:
    minors = {int(found[1]) for one in PROJECT["classifiers"] if (found := re.search(r":: 3\.(\d+)$", one))}
    assert min(minors) == int(PROJECT["requires-python"].removeprefix(">=3."))
    assert f"Python 3.{min(minors)} to 3.{max(minors)}" in (ROOT / "README.md").read_text("utf-8")


def test_ci_takes_a_python_version() -> None:
    environment = os.environ | {"PYTHON_VERSION": "3.98"}
    for arguments, name in ((["3.99"], "python3.99"), ([], "python3.98")):
        done = subprocess.run(
            ["bash", ROOT / ".ci" / "run", *arguments], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert f"{name} is not on PATH" in done.stderr
