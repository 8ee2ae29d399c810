"""`train --list-settings`: every setting that the program takes, and only those."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from nonlocal_video.blocks.schedule import ProgressiveSchedule
from nonlocal_video.training.augment import Augmentation
from nonlocal_video.training.config import TrainConfig, make_config
from nonlocal_video.training.distillation.objective import DistillConfig
from nonlocal_video.training.settings_list import list_settings

GROUPS = {"": TrainConfig, "augmentation.": Augmentation, "progressive.": ProgressiveSchedule}
GROUPS |= {"distillation.": DistillConfig}


def test_all_settings_are_listed_with_a_meaning() -> None:
    listed = {one.name: one for one in list_settings()}
    assert set(listed) == {prefix + one.name for prefix, kind in GROUPS.items() for one in fields(kind)}
    assert all(re.fullmatch(r"[A-Z`(].*\.", one.meaning) for one in listed.values())


@pytest.mark.parametrize("prefix", GROUPS)
def test_defaults_are_those_of_the_program(prefix: str) -> None:
    made: Any = GROUPS[prefix]()
    for one in list_settings():
        group, _, name = one.name.rpartition(".")
        if f"{group}." * bool(group) == prefix and not is_dataclass(getattr(made, name)):
            default = yaml.safe_load(one.default.replace("none", "null"))
            expected = getattr(made, name)
            if isinstance(expected, tuple):
                expected = [pytest.approx(part, rel=1e-3) if isinstance(part, float) else part for part in expected]
            assert default == expected, one.name


def test_types_say_what_is_taken() -> None:
    types = {one.name: one.type for one in list_settings()}
    values: dict[str, Any] = {"true | false": True, "integer": 3, "number": 0.5, "none": None}
    for name, kind in types.items():
        for choice in kind.split(" | "):
            if "." not in name and choice in values and name not in ("progressive", "distillation", "teacher_views"):
                make_config({name: values[choice]})
    assert types["precision"] == "32-true | bf16-mixed | 16-mixed"
    assert types["distillation.layers"] == "[[text, text], ...]"


def test_the_command_needs_nothing_else(run: Callable[..., Any], tmp_path: Path) -> None:
    done = run("train", "--list-settings")
    assert done.status == 0
    names = [line.split()[0] for line in done.out.splitlines()[1:] if line and not line.startswith((" ", "A line"))]
    assert names == [one.name for one in list_settings()]
    assert "--list-settings" in run("train", "--help").out
