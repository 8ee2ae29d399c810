"""No verb puts its output in the place of a file that is there, and none writes through a link."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

COMMANDS = {
    "classify": ("classify", "CLIP", "--model", "MODEL", "--output", "out.csv"),
    "timeline": ("timeline", "CLIP", "--model", "MODEL", "--output", "out.json", "--output", "out.csv"),
    "check": ("check", "LABELLED", "--model", "MODEL", "--output", "out.csv"),
    "attention": ("analyze", "attention", "CLIP", "--model", "MODEL", "--output", "out.csv"),
    "receptive field": ("analyze", "receptive-field", "--model", "MODEL", "--output", "out.png"),
    "export": ("export", "MODEL", "--format", "onnx", "--output", "out.onnx"),
    "convert": ("weights", "convert", "MODEL", "--output", "out.safetensors"),
    "export-state": ("weights", "export-state", "MODEL", "--layout", "pyslowfast", "--output", "out.pyth"),
    "benchmark model": ("benchmark", "model", "--output", "out.json"),
    "benchmark decode": ("benchmark", "decode", "CLIP", "--output", "out.json"),
    "benchmark ops": ("benchmark", "ops", "--quick", "--output", "out.json"),
    "benchmark pipeline": ("benchmark", "pipeline", "CLIP", "--output", "out.json"),
}


@pytest.mark.parametrize("verb", sorted(COMMANDS))
@pytest.mark.parametrize("kind", ["file", "link", "dangling link"])
def test_an_output_that_exists_is_refused_before_any_work(
    verb: str, kind: str, run: Callable[..., Any], tiny_model: Path, clip_folder: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    words = {"CLIP": clip_folder / "a.mp4", "MODEL": tiny_model, "LABELLED": clip_folder}
    name = Path(COMMANDS[verb][-1])
    if kind == "file":
        name.write_text("precious")
    else:
        name.symlink_to("elsewhere")
        if kind == "link":
            Path("elsewhere").write_text("precious")
    done = run(*(words.get(word, word) for word in COMMANDS[verb]))
    assert done.status == 2, done.err
    assert name.name in done.err
    assert ("exists" in done.err) or ("is a link" in done.err)
    if kind != "dangling link":
        assert name.read_text() == "precious"
    assert Path("elsewhere").exists() == (kind == "link")
    assert {path.name for path in tmp_path.iterdir()} <= {name.name, "elsewhere"}


def test_an_evaluation_replaces_no_report(
    run: Callable[..., Any], tiny_model: Path, clip_folder: Path, tmp_path: Path
) -> None:
    labelled = tmp_path / "list.csv"
    labelled.write_text(f"path,label\n{clip_folder / 'a.mp4'},action 1\n")
    (tmp_path / "out").mkdir()
    for name in ("summary.json", "predictions.csv", "confusion.csv", "confusion.png"):
        (tmp_path / "out" / name).write_text("precious")
        done = run("evaluate", labelled, "--model", tiny_model, "--output", tmp_path / "out")
        assert done.status == 2
        assert f"{name}' exists" in done.err
        assert (tmp_path / "out" / name).read_text() == "precious"
        (tmp_path / "out" / name).unlink()
    assert list((tmp_path / "out").iterdir()) == []
