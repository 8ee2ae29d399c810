"""The documentation's sources: every page is in the navigation, every link and anchor leads somewhere."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import nonlocal_video as nlv
from nonlocal_video.video.info import VideoInfo
from nonlocal_video.video.sampling import plan_views

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
ELSEWHERE = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "weights/README.md")]
PAGES = [*sorted(DOCS.glob("*.md")), *ELSEWHERE]


class Loader(yaml.SafeLoader):
    """Reads mkdocs.yml, whose tags name Python objects."""


Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: None)
CONFIG = yaml.load((ROOT / "mkdocs.yml").read_text("utf-8"), Loader)


def leaves(navigation: Any) -> list[str]:
    """The files of a navigation, in its order."""
    if isinstance(navigation, str):
        return [navigation]
    inner = navigation.values() if isinstance(navigation, dict) else navigation
    return [leaf for part in inner for leaf in leaves(part)]


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    titles = re.findall(r"^#+ (.+)$", without_code(path.read_text("utf-8")), flags=re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", re.sub(r"\[(.*?)\]\(.*?\)", r"\1", title)).lower() for title in titles]
    return {title.replace(" ", "-") for title in plain}


@pytest.fixture(scope="module")
def site() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_site", DOCS / "site.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_page_is_in_the_navigation(site: ModuleType) -> None:
    listed = leaves(CONFIG["nav"])
    assert len(listed) == len(set(listed))
    pages = {path.name for path in DOCS.glob("*.md")} | set(site.PAGE_OF_FILE.values()) | {"api"}
    assert set(listed) | set(CONFIG.get("not_in_nav", "").split()) == pages
    assert [next(iter(section)) for section in CONFIG["nav"]] == ["Start", "Guides", "API", "Measured", "Develop"]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_anchors_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(path.read_text("utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = path.parent / name if name else path
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


@pytest.mark.parametrize("path", sorted(DOCS.glob("*.md")), ids=lambda path: path.name)
def test_lists_stand_apart_from_what_precedes_them(path: Path) -> None:
    """GitHub shows a list right below a paragraph; the site's Markdown makes it a part of the paragraph."""
    lines = without_code(path.read_text("utf-8")).splitlines()
    for before, line in pairwise(lines):
        if re.match(r"- |\d+\. ", line):
            assert not before.strip() or re.match(r"#|- |\d+\. | ", before), line


def test_the_api_reference_has_every_public_name_once(site: ModuleType) -> None:
    assert site.public_names() == sorted(set(nlv.__all__) - {"__version__"})
    pages = site.api_pages()
    directives = [name for _, text in pages.values() for name in re.findall(r"^::: nonlocal_video\.(\w+)", text, re.M)]
    assert sorted(directives) == site.public_names()
    linked = re.findall(r"\[nonlocal_video\.(\w+)\]", pages["api/index.md"][1])
    assert sorted(linked) == site.public_names()


def test_links_out_of_the_site_become_text(site: ModuleType) -> None:
    def linked(text: str, source: str) -> str:
        return site._with_links_of_the_site(text, source)

    assert linked("[train](docs/train.md#recipes)", "README.md") == "[train](train.md#recipes)"
    assert linked("![a dancer](docs/images/demo.webp)", "README.md") == "![a dancer](images/demo.webp)"
    assert linked("[card](../weights/README.md)", "docs/zoo.md") == "[card](model_card.md)"
    assert linked("[recipes](../weights/recipes)", "docs/train.md") == "recipes (`weights/recipes`)"
    assert linked("[paper](https://arxiv.org/abs/1)", "docs/a.md") == "[paper](https://arxiv.org/abs/1)"
    with pytest.raises(FileNotFoundError, match="nothing"):
        linked("[x](nothing.md)", "docs/train.md")


def test_a_single_view_does_not_import_pytorchvideo() -> None:
    """Several views do, as docs/pytorchvideo.md says."""
    code = (
        "import sys\n"
        "from nonlocal_video.video.info import VideoInfo\n"
        "from nonlocal_video.video.sampling import plan_views\n"
        "info = VideoInfo('mov', 'h264', 64, 48, 0, 250, 25.0, 0.0, 10.0, False, 'pyav')\n"
        "plan_views(info, num_frames=8, frames_per_second=25)\n"
        "sys.exit('pytorchvideo' in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    info = VideoInfo("mov", "h264", 64, 48, 0, 250, 25.0, 0.0, 10.0, False, "pyav")
    assert len(plan_views(info, num_frames=8, frames_per_second=25, num_clips=3)) == 3
    assert "pytorchvideo.data.clip_sampling" in sys.modules
