"""Hooks of the documentation's site: `make docs` (mkdocs.yml).

The site's home is README.md, and its API reference is made of the package's public names. Links that lead from docs/
to another file of the repository lead to its page where it has one, and are plain text elsewhere.
"""

from __future__ import annotations

import ast
import json
import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
PAGE_OF_FILE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changes.md",
    "CONTRIBUTING.md": "contributing.md",
    "weights/README.md": "model_card.md",
    "docs/images/README.md": "footage.md",
    "docs/notebook.ipynb": "notebook.md",
}
"""Pages of the site that are made of files of the repository."""
API_SECTIONS = {
    "Recognise": (
        "load", "Recognizer", "Prediction", "Failure", "Timeline", "Explanation", "AttentionMaps", "QueryPoint",
        "list_models", "pull", "build", "search", "ModelCard", "InputSpec", "VideoReader",
    ),
    "Features": ("extract_features", "extract_arrays", "read_features", "WindowFeatures", "FeatureTable"),
    "Train and evaluate": ("train", "evaluate", "teach"),
    "Blocks": (
        "NonLocalBlock", "VideoNonLocalBlock", "NonLocalConfig", "insert_nonlocal", "remove_nonlocal",
        "memory_efficient", "sparse_attention", "factorized_attention",
    ),
    "Networks": ("Video3DResNet", "InceptionI3D", "NonLocalNet"),
    "Analyse": ("NonLocalAnalyzer", "NonLocalOptimizer"),
    "Errors": ("NonlocalVideoError", "UsageError", "VideoError", "ModelError"),
}  # fmt: skip
"""Order of the API reference. A public name that is in none of these comes last, under "More"."""

_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the pages of the API reference in the navigation."""
    assert config.nav is not None
    for entry in config.nav:
        if entry.get("API") == "api":
            entry["API"] = [{title: page} for page, (title, _) in api_pages().items()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not files of docs/."""
    from mkdocs.structure.files import File  # late: the tests read this module without mkdocs

    for source, page in PAGE_OF_FILE.items():
        text = (ROOT / source).read_text("utf-8")
        if source.endswith(".ipynb"):
            text = notebook_page(json.loads(text))
            existing = files.get_file_from_path("notebook.ipynb")
            assert existing is not None  # stays in the site, to be downloaded
        files.append(File.generated(config, page, content=text))
    for page, (_, text) in api_pages().items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Lead the links of a page to the site's pages."""
    of_page = {page: source for source, page in PAGE_OF_FILE.items()}
    source = of_page.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    parts = re.split(r"(^```.*?^```)", markdown, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("```") else _with_links_of_the_site(part, source) for part in parts)


def _with_links_of_the_site(text: str, source: str) -> str:
    def link(found: re.Match[str]) -> str:
        mark, words, address = found.groups()
        words = _with_links_of_the_site(words, source)
        path, hash_, anchor = address.partition("#")
        if not path or re.match(r"[a-z]+:", path):
            return f"{mark}[{words}]({address})"
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        if not (ROOT / target).exists():
            raise FileNotFoundError(f"{source} links to {address}, which is not there.")
        if target in PAGE_OF_FILE:
            return f"{mark}[{words}]({PAGE_OF_FILE[target]}{hash_}{anchor})"
        if target.startswith("docs/"):
            return f"{mark}[{words}]({target.removeprefix('docs/')}{hash_}{anchor})"
        return words if target in words else f"{words} (`{target}`)"

    return _LINK.sub(link, text)


def notebook_page(notebook: dict[str, Any]) -> str:
    """The cells of a notebook as Markdown, without outputs."""
    cells = []
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        cells.append(f"```python\n{text}\n```" if cell["cell_type"] == "code" else text)
    return "\n\n".join(cells)


def public_names() -> list[str]:
    """The names of `nonlocal_video.__all__`, read without importing the package."""
    tree = ast.parse((ROOT / "nonlocal_video" / "__init__.py").read_text("utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "_MODULE_OF_NAME":
            return sorted(ast.literal_eval(node.value))
    raise LookupError("nonlocal_video/__init__.py has no _MODULE_OF_NAME.")


def api_pages() -> dict[str, tuple[str, str]]:
    """The API reference: page -> its title, and its text with a directive of mkdocstrings for every public name."""
    names = public_names()
    listed = [name for section in API_SECTIONS.values() for name in section]
    sections = {**API_SECTIONS, "More": tuple(name for name in names if name not in listed)}
    index = [
        "# API reference",
        "Every name here is imported from `nonlocal_video`. `import nonlocal_video as nlv` loads no PyTorch until a "
        "name is used. Times are the player's seconds, positions are fractions of the picture's width and height, and "
        "shapes are written (N, C, T, H, W).",
    ]
    pages = {}
    for title, members in sections.items():
        present = [name for name in members if name in names]
        if present:
            page = f"api/{title.lower().replace(' ', '_')}.md"
            directives = [f"::: nonlocal_video.{name}" for name in present]
            pages[page] = title, "\n\n".join([f"# {title}", *directives]) + "\n"
            index.append(f"## {title}")
            index.append("\n".join(f"- [`{name}`][nonlocal_video.{name}]" for name in present))
    return {"api/index.md": ("Overview", "\n\n".join(index) + "\n"), **pages}
