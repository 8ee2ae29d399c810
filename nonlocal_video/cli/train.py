"""`nonlocal-video train`: labelled clips in, a model of one's own actions out."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nonlocal_video.cli import options
from nonlocal_video.cli.stopping import GentleStop
from nonlocal_video.errors import UsageError

if TYPE_CHECKING:
    from nonlocal_video.models.card import InputSpec
    from nonlocal_video.training.manifest import Manifest
    from nonlocal_video.training.run import RunClips, RunSettings
    from nonlocal_video.training.stills import StillRow

STATUS_INTERRUPTED = 130


class Stage(str, Enum):
    """What learns."""

    head = "head"
    top = "top"
    all = "all"


def train(
    output: Annotated[Path, typer.Option("--output", help="Folder of the run: weights, metrics, curves, model card.")],
    source: Annotated[
        str | None,
        typer.Argument(metavar="[DIR|CSV]", help="One folder of clips a class, a CSV, or a manifest that check wrote."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="What to begin with: a catalogue name, a weights file, or a run's folder.")
    ] = None,
    recipe: Annotated[Path | None, typer.Option(help="YAML file of settings; options given here go before it.")] = None,
    stage: Annotated[
        Stage | None, typer.Option(help="What learns: the new head, the last stage too, or everything.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Times that all clips are gone through; 20.")] = None,
    batch_size: Annotated[str | None, typer.Option(help="Clips in one step, or auto: as many as fit; 8.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="At its highest; 0.001.")] = None,
    progressive: Annotated[
        bool, typer.Option("--progressive", help="Non-local blocks join stage by stage: 4, 3, 2, 1.")
    ] = False,
    teacher: Annotated[
        str | None, typer.Option(help="Learn from this model's answers, too; its classes become the model's.")
    ] = None,
    unlabelled: Annotated[list[str] | None, typer.Option(help="Folder of clips for the teacher; repeatable.")] = None,
    stills: Annotated[list[str] | None, typer.Option(help="Folder of pictures for the teacher; repeatable.")] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="Any other setting, like augmentation.flip=0; repeatable.")
    ] = None,
    validation: Annotated[str, typer.Option(help="The split to measure on, as fold1 of check --folds.")] = "validation",
    validation_share: Annotated[
        float, typer.Option(help="Of clips that no list has divided yet, what is measured on.")
    ] = 0.2,
    fast: options.Fast = False,
    new_weights: Annotated[
        bool, typer.Option("--new-weights", help="Begin with random weights instead of the model's.")
    ] = False,
    device: options.Device = "auto",
    seed: Annotated[int | None, typer.Option(min=0, help="Of everything random; 0.")] = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes that load clips; 2.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --output, with its settings.")
    ] = False,
) -> None:
    """Train a model on labelled clips, or go on with a run that was cut off."""
    _check_installed()

    from nonlocal_video.training.config import MAY_DIFFER
    from nonlocal_video.training.manifest import Manifest
    from nonlocal_video.training.run import RunClips, make_fabric
    from nonlocal_video.training.run_folder import RunFolder

    folder = RunFolder(output)
    first = int(os.environ.get("RANK", "0")) == 0
    asked: dict[str, Any] = {
        "stage": stage.value if stage else None,
        "epochs": epochs,
        "learning_rate": learning_rate,
        "seed": seed,
        "workers": workers,
    }
    asked = {name: value for name, value in asked.items() if value is not None}
    if batch_size is not None:
        asked["batch_size"] = _batch_size(batch_size)
    with ExitStack() as stack:
        if resume:
            _refuse_beside_resume(source, recipe, model, teacher, unlabelled, stills, setting, asked, MAY_DIFFER)
            settings = _resumed(folder, asked)
            if first:
                stack.enter_context(folder.open(settings.to_dict(), command=sys.argv, may_differ=_dotted(MAY_DIFFER)))
                for note in folder.notes:
                    typer.echo(note, err=True)
        else:
            settings = _settings(
                recipe, model, asked, setting, teacher, progressive, fast, new_weights, validation, device
            )
            if first:
                spec = _spec(settings)
                labelled = _labelled(source, spec, validation_share, settings) if source else Manifest(())
                clips = RunClips(labelled, _unlabelled(unlabelled, spec, labelled), _stills(stills))
                stack.enter_context(folder.create(settings.to_dict(), labelled, command=sys.argv))
                clips.write(folder.path)
        fabric = make_fabric(settings.device, settings.train)
        fabric.barrier()
        _run(folder, settings, RunClips.read(folder), fabric, resume=resume, first=first)


def _run(folder: Any, settings: RunSettings, clips: RunClips, fabric: Any, *, resume: bool, first: bool) -> None:
    from nonlocal_video.cli.train_text import TrainProgress, say_result
    from nonlocal_video.training.run import train as train_run

    with GentleStop() as stop, TrainProgress(shown=first) as progress:
        result = train_run(
            folder,
            settings,
            clips,
            fabric,
            resume=resume,
            on_progress=progress.update,
            on_features=progress.features,
            say=progress.say,
            should_stop=lambda: stop.asked,
        )
    if first:
        say_result(folder, result)
    if not result.finished:
        raise typer.Exit(STATUS_INTERRUPTED)


def _check_installed() -> None:
    try:
        import lightning.fabric  # noqa: F401
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise UsageError(f"Training needs {error.name}: pip install 'nonlocal-video[train]'") from error


def _batch_size(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"batch-size = {text!r} should be a number from 1, or auto.")
    return int(text)


def _settings(
    recipe: Path | None,
    model: str | None,
    asked: dict[str, Any],
    setting: list[str] | None,
    teacher: str | None,
    progressive: bool,
    fast: bool,
    new_weights: bool,
    validation: str,
    device: str,
) -> RunSettings:
    """The recipe's settings, over which go `--set`, over which go the other options."""
    import yaml

    from nonlocal_video.training.config import make_config, read_recipe
    from nonlocal_video.training.run import RunSettings
    from nonlocal_video.training.starting_point import read_new_model

    values = read_recipe(recipe) if recipe is not None else {}
    of_recipe = values.pop("model", "default")
    for one in setting or ():
        name, equals, text = one.partition("=")
        if not equals:
            raise UsageError(f"--set {one!r} should be NAME=VALUE.")
        *parents, last = name.split(".")
        place = values
        for parent in parents:
            place[parent] = dict(place.get(parent) or {})
            place = place[parent]
        place[last] = yaml.safe_load(text)
    if teacher is not None:
        values["distillation"] = {**(values.get("distillation") or {}), "teacher": teacher}
        values.setdefault("stage", "all")
    if progressive:
        values["progressive"] = values.get("progressive") or {}
    chosen = model if model is not None else of_recipe
    if model is not None and model.endswith((".yaml", ".yml")):
        chosen = read_recipe(model)
    return RunSettings(
        model=chosen if isinstance(chosen, str) else read_new_model(chosen, str(recipe if model is None else model)),
        train=make_config({**values, **asked}),
        fast=fast,
        new_weights=new_weights,
        validation=validation,
        device=device,
        processes=int(os.environ.get("WORLD_SIZE", "1")),
    )


def _resumed(folder: Any, asked: dict[str, Any]) -> RunSettings:
    from dataclasses import replace

    from nonlocal_video.training.run import RunSettings

    settings = RunSettings.from_dict(folder.read_settings())
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    return replace(settings, train=replace(settings.train, **asked), processes=processes)


def _refuse_beside_resume(*given: Any) -> None:
    *others, asked, may_differ = given
    wrong = [one for one in others if one] or sorted(set(asked) - set(may_differ))
    if wrong:
        raise UsageError(
            f"--resume goes on with the run's own clips and settings; leave everything away but --output"
            f"{', '.join(['', '--workers'])} (given: {wrong[0]})."
        )


def _dotted(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"train.{name}" for name in names)


def _spec(settings: RunSettings) -> InputSpec:
    """The view for which clips are checked."""
    from nonlocal_video.models.checkpoint import read_card
    from nonlocal_video.zoo.catalogue import entries, find

    if not isinstance(settings.model, str):
        return settings.model.input
    known = entries().get(settings.model)
    card = known.card if known is not None else read_card(find(settings.model))
    return card.view(fast=settings.fast)


def _labelled(source: str, spec: InputSpec, share: float, settings: RunSettings) -> Manifest:
    """The manifest itself, or one made of clips that were not checked yet."""
    from rich.console import Console

    from nonlocal_video.cli.check import check_with_progress
    from nonlocal_video.cli.check_text import print_report
    from nonlocal_video.evaluation.labelled import read_labelled
    from nonlocal_video.training.manifest import is_manifest, read_manifest
    from nonlocal_video.training.report import make_report
    from nonlocal_video.training.splits import SplitPlan
    from nonlocal_video.video.decode import VideoReader

    if is_manifest(source):
        return read_manifest(source)
    typer.echo(f"Checking {source} first; `nonlocal-video check` shows more and can be run before.", err=True)
    clips = read_labelled(source)
    readers = [VideoReader() for _ in range(min(2, len(clips)))]
    checked = check_with_progress(clips, readers, every_frame=False)
    report = make_report(checked, spec, SplitPlan(share, None, settings.train.seed))
    print_report(report, spec, Console(width=None if sys.stdout.isatty() else 140), every_frame=False)
    if report.undivided:
        raise UsageError(f"{source!r} cannot be divided into clips to learn from and to measure on: {report.undivided}")
    return report.manifest


def _unlabelled(paths: list[str] | None, spec: InputSpec, labelled: Manifest) -> Manifest:
    from nonlocal_video.training.manifest import Manifest
    from nonlocal_video.training.unlabelled import check_unlabelled
    from nonlocal_video.video.decode import VideoReader

    if not paths:
        return Manifest(())
    report = check_unlabelled(paths, spec, [VideoReader() for _ in range(2)], measured_on=labelled.usable)
    _say_problems(len(report.manifest.rows), [(row.path, row.problem) for row in report.manifest.rows if row.problem])
    return report.manifest


def _stills(paths: list[str] | None) -> tuple[StillRow, ...]:
    from nonlocal_video.training.stills import check_stills

    if not paths:
        return ()
    rows = check_stills(paths)
    _say_problems(len(rows), [(row.path, row.problem) for row in rows if row.problem])
    return tuple(rows)


def _say_problems(count: int, problems: list[tuple[str, str]]) -> None:
    for path, problem in problems:
        typer.echo(f"not used: {path}: {problem}", err=True)
    typer.echo(f"{count - len(problems)} of {count} files without labels can be used.", err=True)
