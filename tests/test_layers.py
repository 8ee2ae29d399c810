"""One direction of imports: blocks <- models <- zoo; video <- inference; cli and app on top."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ALLOWED = {
    "errors": set(),
    "io": {"errors"},
    "paths": {"errors"},
    "frame_folders": {"errors"},
    "notebook": {"errors"},
    "blocks": {"errors"},
    "models": {"blocks", "io", "errors"},
    "zoo": {"models", "blocks", "io", "paths", "errors"},
    "video": {"frame_folders", "errors"},
    "annotations": {"video", "io", "errors"},
    "attention": {"notebook", "models", "blocks", "video", "io", "errors"},
    "inference": {
        "annotations",
        "notebook",
        "attention",
        "zoo",
        "models",
        "blocks",
        "video",
        "frame_folders",
        "io",
        "paths",
        "errors",
    },
    "features": {"datasets", "inference", "models", "video", "io", "errors"},
    "retrieval": {
        "attention",
        "notebook",
        "features",
        "inference",
        "blocks",
        "video",
        "frame_folders",
        "io",
        "paths",
        "errors",
    },
    "datasets": {"annotations", "inference", "models", "video", "frame_folders", "io", "errors"},
    "evaluation": {"zoo", "datasets", "inference", "models", "video", "io", "errors"},
    "training": {"datasets", "evaluation", "inference", "models", "blocks", "zoo", "video", "io", "errors"},
    "teaching": {
        "features",
        "training",
        "datasets",
        "evaluation",
        "inference",
        "models",
        "zoo",
        "video",
        "io",
        "errors",
    },
    "analysis": {"attention", "models", "blocks", "errors"},
    "benchmark": {"analysis", "inference", "zoo", "models", "blocks", "video", "errors"},
    "export": {"inference", "models", "blocks", "errors"},
    "samples": {"video", "paths", "errors"},
    "app": {
        "samples",
        "datasets",
        "features",
        "retrieval",
        "teaching",
        "inference",
        "attention",
        "zoo",
        "models",
        "video",
        "errors",
        "__init__",
    },
    "cli": {
        "analysis",
        "annotations",
        "app",
        "benchmark",
        "datasets",
        "evaluation",
        "export",
        "features",
        "retrieval",
        "training",
        "teaching",
        "samples",
        "inference",
        "attention",
        "zoo",
        "models",
        "blocks",
        "video",
        "frame_folders",
        "io",
        "errors",
        "__init__",
    },
}


def imported_parts(path: Path) -> set[str]:
    """The parts of the package that a file imports, anywhere in it, late imports included."""
    parts = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        else:
            continue
        for name in names:
            package, _, rest = name.partition(".")
            if package == "nonlocal_video":
                parts.add(rest.split(".")[0] or "__init__")
    return parts


def files_of(part: str) -> list[Path]:
    folder = ROOT / ("app" if part == "app" else f"nonlocal_video/{part}")
    return sorted(folder.rglob("*.py")) or [folder.with_suffix(".py")]


@pytest.mark.parametrize("part", sorted(ALLOWED))
def test_nothing_imports_upwards(part: str) -> None:
    for path in files_of(part):
        upwards = imported_parts(path) - ALLOWED[part] - {part}
        assert not upwards, f"{path.relative_to(ROOT)} imports {sorted(upwards)}"


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("nonlocal_video", *parts) if parts[0] == "app" else parts).removesuffix(".__init__")


def imported_modules(path: Path, known: set[str]) -> set[str]:
    """The modules of this project that a file imports when it runs, also inside of functions."""
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join(filter(None, (module_of(path).rpartition(".")[0], base)))
            found |= {name if (name := f"{base}.{alias.name}") in known else base for alias in node.names}
    return found & known - {module_of(path)}


def test_no_modules_import_each_other_in_a_circle() -> None:
    """An import inside of a function counts too: it would only hide the circle."""
    paths = {module_of(path): path for part in ALLOWED for path in files_of(part)}
    imports = {module: imported_modules(path, set(paths)) for module, path in paths.items()}
    while leaves := {module for module, imported in imports.items() if not imported & imports.keys()}:
        imports = {module: imported for module, imported in imports.items() if module not in leaves}
    circle = {module: sorted(imported & imports.keys()) for module, imported in imports.items()}
    assert not circle, circle


def test_every_part_has_its_place() -> None:
    parts = {path.stem for path in (ROOT / "nonlocal_video").iterdir() if path.suffix == ".py" or path.is_dir()}
    parts -= {"__init__", "__main__", "__pycache__", "py"}
    assert parts | {"app"} == set(ALLOWED)


def test_no_module_is_longer_than_450_lines() -> None:
    for path in [*ROOT.glob("*/**/*.py")]:
        if not path.relative_to(ROOT).parts[0].startswith(".venv"):
            assert len(path.read_text("utf-8").splitlines()) <= 450, path


def test_every_folder_of_tests_is_in_the_quick_half() -> None:
    """Some module of each is not slow as a whole."""
    paths = list((ROOT / "tests").rglob("test_*.py"))
    slow = re.compile(r"^pytestmark = .*\bslow\b", re.MULTILINE)
    quick = {path.parent for path in paths if not slow.search(path.read_text("utf-8"))}
    assert {path.parent for path in paths} == quick


def test_no_module_of_the_page_is_longer_than_200_lines() -> None:
    for path in sorted((ROOT / "app").rglob("*.py")):
        assert len(path.read_text("utf-8").splitlines()) <= 200, path
