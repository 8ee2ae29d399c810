"""`nonlocal-video train`: train a model on labelled clips."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from nonlocal_video.cli import options
from nonlocal_video.cli.interrupt import GracefulInterrupt
from nonlocal_video.cli.settings_table import print_settings
from nonlocal_video.cli.terminal import STATUS_INTERRUPTED
from nonlocal_video.errors import UsageError

VALIDATION_SPLIT, VALIDATION_SHARE = "validation", 0.2


class Stage(StrEnum):
    """Trainable parts of the network."""

    head = "head"
    top = "top"
    all = "all"


def train(
    output: Annotated[Path, typer.Option("--output", help="Folder of the run: weights, metrics, curves, model card.")],
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[DIR|CSV]", help="Folder with one subfolder of clips per class, a CSV, or a manifest of check."
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Model to start from: catalogue name, weights file, or folder of a run.")
    ] = None,
    recipe: Annotated[Path | None, typer.Option(help="YAML file of settings; other options override it.")] = None,
    stage: Annotated[
        Stage | None, typer.Option(help="Trainable part: the head, also the last stage (top), or all (default: head).")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Number of epochs (default: 20).")] = None,
    batch_size: Annotated[
        str | None, typer.Option(help="Clips per forward pass, or auto for the most that fit (default: 8).")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate (default: 0.001).")] = None,
    progressive: Annotated[
        bool, typer.Option("--progressive", help="Open the non-local blocks stage by stage: 4, 3, 2, 1.")
    ] = False,
    teacher: Annotated[
        str | None, typer.Option(help="Model to distil from; its classes become those of the new model.")
    ] = None,
    unlabelled: Annotated[
        list[str] | None, typer.Option(help="Folder of unlabelled clips for distillation; repeatable.")
    ] = None,
    stills: Annotated[list[str] | None, typer.Option(help="Folder of images for distillation; repeatable.")] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any other setting, such as augmentation.flip=0 (see --list-settings); repeatable."),
    ] = None,
    list_settings: Annotated[
        bool,
        typer.Option(
            "--list-settings",
            is_eager=True,
            callback=print_settings,
            help="Print name, type, default and meaning of all settings, and exit.",
        ),
    ] = False,
    validation: Annotated[
        str, typer.Option(help="Name of the validation split, such as fold1 of check --folds.")
    ] = VALIDATION_SPLIT,
    validation_share: Annotated[
        float, typer.Option(help="Fraction of clips held out for validation, if they have no split.")
    ] = VALIDATION_SHARE,
    region: options.Region = None,
    fast: options.Fast = False,
    new_weights: Annotated[
        bool, typer.Option("--new-weights", help="Start from random weights instead of the model's.")
    ] = False,
    device: options.Device = "auto",
    seed: Annotated[int | None, typer.Option(min=0, help="Random seed (default: 0).")] = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Number of data loading processes (default: 2).")] = None,
    all_files: options.AllFiles = False,
    ignore_column: options.IgnoreColumn = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume an interrupted run in --output, with its settings.")
    ] = False,
    frames_per_second: options.FramesPerSecond = None,
) -> None:
    """Train a model on labelled clips, or continue an interrupted run."""
    from nonlocal_video.cli.train_text import CONTINUES, TrainProgress, print_result
    from nonlocal_video.training.api import train as train_model

    first = int(os.environ.get("RANK", "0")) == 0
    with GracefulInterrupt() as stop, TrainProgress(shown=first) as progress:
        try:
            run = train_model(
                source,
                output=output,
                model=model,
                recipe=recipe,
                stage=stage.value if stage else None,
                epochs=epochs,
                batch_size=None if batch_size is None else _batch_size(batch_size),
                learning_rate=learning_rate,
                region=region,
                seed=seed,
                workers=workers,
                settings=_values_of(setting),
                progressive=progressive,
                teacher=teacher,
                unlabelled=unlabelled or (),
                images=stills or (),
                validation=validation,
                validation_share=validation_share,
                fast=fast,
                new_weights=new_weights,
                device=device,
                all_files=all_files,
                ignore_columns=ignore_column or (),
                resume=resume,
                callback=progress,
                should_stop=lambda: stop.requested,
            )
        except KeyboardInterrupt:
            progress.notify(
                f"Stopped at once. {CONTINUES} after the last saved step."
                if (output / "config.json").is_file()
                else "Stopped; nothing was written."
            )
            raise typer.Exit(STATUS_INTERRUPTED) from None
    if first:
        print_result(run)
    if not run.result.finished:
        raise typer.Exit(STATUS_INTERRUPTED)


def _batch_size(text: str) -> int | Literal["auto"]:
    if text == "auto":
        return "auto"
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"batch-size = {text!r} should be a number from 1, or auto.")
    return int(text)


def _values_of(setting: list[str] | None) -> dict[str, Any]:
    """Parse the values of `--set`, by dotted name."""
    import yaml

    values = {}
    for one in setting or ():
        name, equals, text = one.partition("=")
        if not equals:
            raise UsageError(f"--set {one!r} should be NAME=VALUE.")
        try:
            values[name] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UsageError(f"--set {one!r} has no value: {error}") from error
    return values
