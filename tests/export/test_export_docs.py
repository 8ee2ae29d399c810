"""The commands and the code of docs/export.md, run in their order on a small model."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nonlocal_video.inference.runtimes.openvino import import_openvino
from nonlocal_video.zoo.catalogue import load_network

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "export.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


def test_commands_and_code(
    run: Callable[..., Any],
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    shutil.copy(tiny_model, tmp_path / "runs" / "mine" / "best.safetensors")
    (tmp_path / "runs" / "mine" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    commands = [line.partition("#")[0] for block in blocks("sh") for line in block.splitlines()]
    assert len(commands) == 3
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "nonlocal-video"
        done = run(*arguments)
        assert (done.status, done.err) == (0, "")
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "mine.onnx", "mine.xml", "mine.bin", "mine.pt2"}

    import_openvino()  # first, so that no test reports to its makers
    network, card = load_network(tiny_model)
    names: dict[str, Any] = {}
    for code in blocks("python"):
        exec(compile(code, "docs/export.md", "exec"), names)
        assert names["card"]["labels"] == list(card.labels)
        with torch.no_grad():
            expected = network(torch.from_numpy(names["clip"]))
        np.testing.assert_allclose(np.asarray(names["logits"]), expected, rtol=1e-4)
    assert len(blocks("python")) == 3
    assert capsys.readouterr().out.strip() == card.labels[int(expected.argmax())]
