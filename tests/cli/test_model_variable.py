"""NONLOCAL_VIDEO_MODEL is the model that verbs take without --model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer
from typer.testing import CliRunner

from nonlocal_video.cli.main import app
from nonlocal_video.cli.options import MODEL_VARIABLE, default_model
from nonlocal_video.errors import ModelError, UsageError


def counted(*arguments: object, model: object) -> dict[str, object]:
    """Network that `analyze complexity` describes, with the variable set."""
    words = ["analyze", "complexity", "--json", *map(str, arguments)]
    done = CliRunner().invoke(app, words, env={MODEL_VARIABLE: str(model)}, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def verbs(group: click.Group, *above: str) -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from verbs(command, *above, name)
        else:
            yield " ".join((*above, name)), command


def test_every_verb_that_has_a_default_model_knows_it() -> None:
    with_default = {
        name: option.envvar
        for name, command in verbs(typer.main.get_command(app))
        for option in command.params
        if "--model" in option.opts and option.default == "default"
    }
    assert {"classify", "explain", "timeline", "evaluate", "check"} <= with_default.keys()
    assert set(with_default.values()) == {MODEL_VARIABLE}


def test_it_is_the_default_and_the_option_goes_before_it(tiny_model: Path, tmp_path: Path) -> None:
    absent = tmp_path / "absent.safetensors"
    assert counted(model=tiny_model) == counted("--model", tiny_model, model=absent)
    with pytest.raises(ModelError, match=r"absent\.safetensors"):
        counted(model=absent)


def test_it_is_no_second_network_beside_a_config(tiny_model: Path, tmp_path: Path) -> None:
    config = tmp_path / "network.json"
    config.write_text(json.dumps({"architecture": "resnet3d", "config": {"num_classes": 3, "width": 4}}))
    arguments = ("--config", config, "--input", "8,64,64")
    assert counted(*arguments, model=tiny_model) == counted(*arguments, model="")
    with pytest.raises(UsageError, match="are two networks"):
        counted(*arguments, "--model", "i3d-nl-k400", model=tiny_model)


@pytest.mark.parametrize(("value", "expected"), [(None, "default"), ("", "default"), ("mine", "mine")])
def test_an_empty_one_is_none(monkeypatch: pytest.MonkeyPatch, value: str | None, expected: str) -> None:
    monkeypatch.delenv(MODEL_VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(MODEL_VARIABLE, value)
    assert default_model() == expected


def test_an_empty_one_leaves_the_package_s_model() -> None:
    assert "inception" in str(counted(model="")["network"]).lower()
