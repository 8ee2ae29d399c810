"""NONLOCAL_VIDEO_MODEL is the model that verbs take without --model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer

from nonlocal_video.cli.main import app
from nonlocal_video.cli.options import MODEL_VARIABLE, default_model


def run(*arguments: object, model: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "nonlocal_video", *map(str, arguments)],
        env={**os.environ, MODEL_VARIABLE: str(model)}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def verbs(group: click.Group, *above: str) -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from verbs(command, *above, name)  # type: ignore[arg-type]
        else:
            yield " ".join((*above, name)), command


def test_every_verb_that_has_a_default_model_knows_it() -> None:
    with_default = {
        name: option.envvar
        for name, command in verbs(typer.main.get_command(app))  # type: ignore[arg-type]
        for option in command.params
        if "--model" in option.opts and option.default == "default"
    }
    assert {"classify", "explain", "timeline", "evaluate", "serve", "check"} <= with_default.keys()
    assert set(with_default.values()) == {MODEL_VARIABLE}


def test_it_is_the_default_and_the_option_goes_before_it(tiny_model: Path, tmp_path: Path) -> None:
    done = run("analyze", "complexity", "--json", model=tiny_model)
    assert done.returncode == 0, done.stderr
    own = json.loads(done.stdout)
    named = run("analyze", "complexity", "--json", "--model", tiny_model, model=tmp_path / "absent.safetensors")
    assert json.loads(named.stdout) == own
    missing = run("analyze", "complexity", model=tmp_path / "absent.safetensors")
    assert missing.returncode == 2
    assert "absent.safetensors" in missing.stderr


def test_it_is_no_second_network_beside_a_config(tiny_model: Path, tmp_path: Path) -> None:
    config = tmp_path / "network.json"
    config.write_text(json.dumps({"architecture": "resnet3d", "config": {"num_classes": 3, "width": 4}}))
    arguments = ("analyze", "complexity", "--config", config, "--input", "8,64,64", "--json")
    done = run(*arguments, model=tiny_model)
    assert done.returncode == 0, done.stderr
    both = run(*arguments, "--model", "i3d-nl-k400", model=tiny_model)
    assert both.returncode == 2
    assert "are two networks" in both.stderr


@pytest.mark.parametrize(("value", "expected"), [(None, "default"), ("", "default"), ("mine", "mine")])
def test_an_empty_one_is_none(monkeypatch: pytest.MonkeyPatch, value: str | None, expected: str) -> None:
    monkeypatch.delenv(MODEL_VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(MODEL_VARIABLE, value)
    assert default_model() == expected


def test_an_empty_one_leaves_the_package_s_model() -> None:
    done = run("analyze", "complexity", "--json", model="")
    assert done.returncode == 0, done.stderr
    assert "inception" in json.loads(done.stdout)["network"].lower()
