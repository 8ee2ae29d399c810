"""The recipes in weights/recipes can be used, and the small ones are what was measured."""

from __future__ import annotations

import importlib.util
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch

from nonlocal_video.datasets.manifest import Manifest
from nonlocal_video.models.card import InputSpec, ModelCard
from nonlocal_video.models.checkpoint import build_network, read_card
from nonlocal_video.models.resnet3d import Video3DResNet
from nonlocal_video.training.config import TrainConfig, make_config, read_recipe
from nonlocal_video.training.distillation.alignment import same_span
from nonlocal_video.training.freezing import Gates
from nonlocal_video.training.initialization import read_new_model
from nonlocal_video.zoo.catalogue import find

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "weights" / "recipes").glob("*.yaml"))
NEW = "kinetics400_from_default"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_its_settings_are_allowed(path: Path) -> None:
    values = read_recipe(path)
    model = values.pop("model", None)
    config = make_config(values)
    assert (model is not None, config.stage == "all") == (path.stem == NEW, path.stem == NEW)


def test_the_new_network_fits_its_teacher_and_its_schedule() -> None:
    values = read_recipe(ROOT / "weights" / "recipes" / f"{NEW}.yaml")
    model = read_new_model(values.pop("model"), NEW)
    config = make_config(values)
    assert config.distillation is not None
    teacher = read_card(find(config.distillation.teacher))
    assert same_span(model.input, teacher.input)
    arguments = {**model.config, "num_classes": len(teacher.labels)}
    with torch.device("meta"):
        student = build_network(ModelCard("student", model.architecture, arguments, model.input, teacher.labels))
        of_teacher = dict(build_network(teacher).named_modules())
        assert isinstance(student, Video3DResNet)
        positions = positions_after(student, ("layer3", "layer4"), model.input)
    Gates(student, config.progressive)
    assert len(student.nonlocal_layers()) == 2
    assert positions == {"layer3": (8, 7, 7), "layer4": (4, 4, 4)}
    for ours, theirs in config.distillation.layers:
        student.get_submodule(ours)
        assert theirs in of_teacher


def positions_after(network: Video3DResNet, layers: tuple[str, ...], spec: InputSpec) -> dict[str, tuple[int, ...]]:
    found = {}
    for name in layers:
        features = network.eval().forward_to(name, torch.empty(1, 3, spec.num_frames, spec.crop, spec.crop))
        found[name] = tuple(features.shape[2:])
    return found


@pytest.mark.parametrize("way", ["head", "top"])
def test_the_small_ones_are_what_was_measured(way: str, tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("actions", ROOT / "benchmarks" / "actions.py")
    assert spec is not None
    assert spec.loader is not None
    benchmark: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    measured: list[TrainConfig] = []
    benchmark.fit = lambda folder, settings, clips, shared: measured.append(settings.train) or {}
    benchmark.answer_all = lambda *_: ()
    shared = {"seed": 0, "precision": "32-true", "workers": 2}
    arguments = Namespace(**shared, model="default", device="cpu", epochs_factor=1.0)
    benchmark.run_fold(way, Manifest(()), "fold1", tmp_path, tmp_path, arguments)
    assert measured == [make_config({**read_recipe(ROOT / f"weights/recipes/own_actions_{way}.yaml"), **shared})]
