"""Request for a training run, and the settings that follow from it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nonlocal_video.errors import UsageError
from nonlocal_video.models.card import InputSpec
from nonlocal_video.models.checkpoint import read_card
from nonlocal_video.training.config import MAY_DIFFER, make_config, read_recipe
from nonlocal_video.training.distillation.alignment import viewing_spec
from nonlocal_video.training.initialization import read_new_model
from nonlocal_video.training.run import RunSettings
from nonlocal_video.training.run_folder import RunFolder
from nonlocal_video.zoo.catalogue import EMBEDDED, entries, find

VALIDATION_SPLIT, VALIDATION_SHARE = "validation", 0.2


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """The arguments of `train`, where each is described."""

    source: str | None = None
    model: str | None = None
    recipe: Path | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    """Settings by their dotted names, over the recipe's."""
    progressive: bool = False
    teacher: str | None = None
    unlabelled: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    validation: str = VALIDATION_SPLIT
    validation_share: float = VALIDATION_SHARE
    fast: bool = False
    new_weights: bool = False
    device: str = "auto"
    all_files: bool = False
    ignore_columns: tuple[str, ...] = ()

    def settings(self) -> RunSettings:
        """Return the settings of a new run.

        Raises:
            UsageError: A setting has a value that is not allowed, or two of them contradict each other.
            ModelError: There is no such model.
        """
        values = read_recipe(self.recipe) if self.recipe is not None else {}
        of_recipe = values.pop("model", "default")
        for name, value in self.values.items():
            _put(values, name, value)
        if self.teacher is not None:
            values["distillation"] = {**(values.get("distillation") or {}), "teacher": self.teacher}
            values.setdefault("stage", "all")
        if self.progressive:
            values["progressive"] = values.get("progressive") or {}
        config = make_config(values)
        if config.distillation is not None:
            teacher = replace(config.distillation, teacher=_from_anywhere(config.distillation.teacher))
            config = replace(config, distillation=teacher)
        chosen: Any = of_recipe if self.model is None else self.model
        where = str(self.recipe)
        if isinstance(chosen, str) and chosen.endswith((".yaml", ".yml")):
            chosen, where = read_recipe(chosen), chosen
        if self.fast and not isinstance(chosen, str):
            raise UsageError(f"--fast is the cheaper view of a model that has two; {where} describes one. Omit it.")
        return RunSettings(
            model=_from_anywhere(chosen) if isinstance(chosen, str) else read_new_model(chosen, where),
            train=config,
            fast=self.fast,
            new_weights=self.new_weights,
            validation=self.validation,
            device=self.device,
            processes=_num_processes(),
        )

    def resumed_settings(self, folder: RunFolder) -> RunSettings:
        """Return the settings of an earlier run, with those changed that may differ.

        Raises:
            UsageError: Something else than those was asked for.
        """
        given = {
            "DIR": self.source, "--model": self.model, "--recipe": self.recipe, "--progressive": self.progressive,
            "--teacher": self.teacher, "--unlabelled": self.unlabelled, "--stills": self.images, "--fast": self.fast,
            "--new-weights": self.new_weights, "--validation": self.validation != VALIDATION_SPLIT,
            "--validation-share": self.validation_share != VALIDATION_SHARE, "--device": self.device != "auto",
            "--all-files": self.all_files, "--ignore-column": self.ignore_columns,
        }  # fmt: skip
        wrong = [name for name, value in given.items() if value] + [n for n in self.values if n not in MAY_DIFFER]
        if wrong:
            raise UsageError(
                f"--resume continues with the run's own clips and settings; omit {', '.join(wrong)}. Besides "
                f"--output it takes --set of {', '.join(MAY_DIFFER)}."
            )
        settings = RunSettings.from_dict(folder.read_settings())
        config = make_config({**settings.train.to_dict(), **self.values})
        return replace(settings, train=config, processes=_num_processes())


def viewed_input(settings: RunSettings) -> InputSpec:
    """Return the input that clips are checked for: the model's, or one from which a teacher's can be made as well."""
    if isinstance(settings.model, str):
        known = entries().get(settings.model)
        card = known.card if known is not None else read_card(find(settings.model))
        spec = card.view(fast=settings.fast)
    else:
        spec = settings.model.input
    distillation = settings.train.distillation
    return spec if distillation is None else viewing_spec(spec, read_card(find(distillation.teacher)).input)


def _put(values: dict[str, Any], name: str, value: Any) -> None:
    """Set the value of a dotted name in nested settings."""
    *parents, last = name.split(".")
    inner = values
    for parent in parents:
        below = inner.get(parent) or {}
        if not isinstance(below, dict):
            raise UsageError(f"--set {name}: {parent} is {below!r} and has no settings of its own.")
        inner[parent] = inner = dict(below)
    inner[last] = value


def _from_anywhere(model: str) -> str:
    """Return a path as a run that is resumed from another folder finds it, and a name as it is."""
    is_name = model in ("default", *EMBEDDED, *entries()) or not Path(model).exists()
    return model if is_name else os.path.abspath(model)


def _num_processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))
