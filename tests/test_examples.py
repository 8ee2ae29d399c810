"""The examples in docstrings run, and every public name of the packages below has one."""

from __future__ import annotations

import contextlib
import doctest
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import nonlocal_video as nlv
from nonlocal_video.models.inception3d import InceptionI3DConfig
from nonlocal_video.models.resnet3d import ResNet3DConfig
from nonlocal_video.video.encode import VideoWriter

PACKAGES = ("analysis", "attention", "blocks", "models", "video", "zoo")
PUBLIC = [name for name in nlv.__all__ if nlv._MODULE_OF_NAME.get(name, "").partition(".")[0] in PACKAGES]
MODULES = (
    "analysis.complexity",
    "analysis.formulas",
    "analysis.speed",
    "attention.contact_sheet",
    "attention.faithfulness",
    "blocks.schedule",
    "models.folding",
    "video.encode",
    "video.region",
    "video.sampling",
    "video.transforms",
)
"""Modules with examples besides those of public names."""


@pytest.fixture(scope="module")
def names(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Names that examples use without importing them, in a working directory with a clip."""
    folder = tmp_path_factory.mktemp("examples")
    with VideoWriter(folder / "clip.mp4", fps=25) as writer:
        for brightness in np.linspace(0, 255, 75):
            writer.write(np.full((240, 320, 3), brightness, np.uint8))
    with contextlib.chdir(folder), nlv.load(tiny_model, device="cpu") as recognizer:
        yield {
            **{name: getattr(nlv, name) for name in PUBLIC},
            "InceptionI3DConfig": InceptionI3DConfig,
            "ResNet3DConfig": ResNet3DConfig,
            "nlv": nlv,
            "nn": nn,
            "recognizer": recognizer,
            "torch": torch,
        }


def examples_of(subject: object, name: str, names: dict[str, Any]) -> list[doctest.DocTest]:
    return [test for test in doctest.DocTestFinder().find(subject, name, globs=names) if test.examples]


def run(tests: list[doctest.DocTest]) -> None:
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    report: list[str] = []
    for test in tests:
        torch.manual_seed(0)
        runner.run(test, out=report.append)
    assert not runner.failures, "".join(report)


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_have_an_example_that_runs(name: str, names: dict[str, Any]) -> None:
    tests = examples_of(getattr(nlv, name), name, names)
    assert tests, f"the docstring of {name} has no example"
    run(tests)


@pytest.mark.parametrize("module", MODULES)
def test_examples_of_modules_run(module: str, names: dict[str, Any]) -> None:
    subject = importlib.import_module(f"nonlocal_video.{module}")
    tests = examples_of(subject, module, names | vars(subject))
    assert tests, f"{module} has no example"
    run(tests)


def test_a_wrong_example_fails() -> None:
    def wrong() -> None:
        """Add numbers.

        >>> 1 + 1
        3
        """

    with pytest.raises(AssertionError, match="Expected"):
        run(examples_of(wrong, "wrong", {}))
