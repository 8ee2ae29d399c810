"""Check that resolved versions are the lowest that pyproject.toml allows: `.ci/check_lowest.py VERSIONS`.

A requirement of another package may raise a version above its bound, which would then stand there untested.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
FROM_VENV = {"torch", "torchvision"}
"""Those that `.ci/environment` takes from .venv."""


def raised(versions: str) -> list[str]:
    """Return a sentence for each runtime dependency that is above its bound, or is not there.

    Args:
        versions: Lines `name==version`.
    """
    found = {}
    for line in versions.splitlines():
        name, mark, version = line.partition("==")
        if mark:
            found[canonicalize_name(name)] = Version(version.split(";")[0].strip())
    sentences = []
    for text in tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]:
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        if name in FROM_VENV or (requirement.marker and not requirement.marker.evaluate()):
            continue
        bound = next(Version(one.version) for one in requirement.specifier if one.operator == ">=")
        if found.get(name) != bound:
            sentences.append(f"{name} would be {found.get(name, 'missing')}: {text!r} allows less, untested.")
    return sentences


if __name__ == "__main__":
    sys.exit("\n".join(raised(Path(sys.argv[1]).read_text("utf-8"))) or None)
