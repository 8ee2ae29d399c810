"""docs/zoo.md says what the catalogue says."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

from nonlocal_video.zoo.catalogue import entries

ROOT = Path(__file__).resolve().parents[2]
DOCS = (ROOT / "docs" / "zoo.md").read_text("utf-8")


def test_the_table_is_the_catalogues() -> None:
    """After a change: python docs/make_zoo_table.py."""
    script = runpy.run_path(str(ROOT / "docs" / "make_zoo_table.py"))
    assert f"{script['BEGIN']}{script['table']()}\n{script['END']}" in DOCS


def test_names_in_the_text_exist() -> None:
    text = DOCS.split("<!-- table -->")[0] + (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    names = re.findall(r"[a-z0-9-]+-k\d00-(?:pyslowfast|caffe2|mmaction2|pytorchvideo|torchvision|kenshohara)", text)
    assert names
    assert not set(names) - set(entries())
