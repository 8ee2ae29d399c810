"""`nonlocal-video train`: train a model on labelled clips."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nonlocal_video.cli import options
from nonlocal_video.cli.interrupt import STATUS_INTERRUPTED, GracefulInterrupt
from nonlocal_video.errors import UsageError

if TYPE_CHECKING:
    from nonlocal_video.datasets.manifest import Manifest
    from nonlocal_video.inference.file_kinds import PassedOver
    from nonlocal_video.models.card import InputSpec
    from nonlocal_video.training.images import ImageRow
    from nonlocal_video.training.run import RunSettings
    from nonlocal_video.training.run_data import RunData

TO_MEASURE_ON, SHARE_TO_MEASURE_ON = "validation", 0.2


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
        list[str] | None, typer.Option("--set", help="Any other setting, such as augmentation.flip=0; repeatable.")
    ] = None,
    validation: Annotated[
        str, typer.Option(help="Name of the validation split, such as fold1 of check --folds.")
    ] = TO_MEASURE_ON,
    validation_share: Annotated[
        float, typer.Option(help="Fraction of clips held out for validation, if they have no split.")
    ] = SHARE_TO_MEASURE_ON,
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
) -> None:
    """Train a model on labelled clips, or go on with a run that was cut off."""
    _check_installed()

    from nonlocal_video.datasets.manifest import Manifest
    from nonlocal_video.training.config import MAY_DIFFER
    from nonlocal_video.training.distributed import make_fabric, waiting_for_all
    from nonlocal_video.training.run_data import RunData, check_clips_fit
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
            given = {
                "DIR": source, "--model": model, "--recipe": recipe, "--progressive": progressive,
                "--teacher": teacher, "--unlabelled": unlabelled, "--stills": stills, "--fast": fast,
                "--new-weights": new_weights, "--validation": validation != TO_MEASURE_ON,
                "--validation-share": validation_share != SHARE_TO_MEASURE_ON, "--device": device != "auto",
                "--all-files": all_files, "--ignore-column": ignore_column,
            }  # fmt: skip
            changed = _values_of(setting) | asked
            _refuse_beside_resume([name for name, value in given.items() if value], changed)
            settings = _resumed(folder, changed)
            if first:
                stack.enter_context(folder.open(settings.to_dict(), command=sys.argv, may_differ=_dotted(MAY_DIFFER)))
                for note in folder.notes:
                    typer.echo(note, err=True)
        else:
            settings = _settings(
                recipe, model, asked, setting, teacher, progressive, fast, new_weights, validation, device
            )
        fabric = make_fabric(settings.device, settings.train)
        with waiting_for_all(fabric):
            if first and not resume:
                folder.refuse_occupied()  # this and the next before all clips are checked
                if settings.train.distillation is None and (unlabelled or stills):
                    raise UsageError("Unlabelled clips and stills want a teacher that says what they show: --teacher.")
                spec = _spec(settings)
                rule: dict[str, Any] = {"all_files": all_files, "ignore_columns": ignore_column or ()}
                labelled = _labelled(source, spec, validation_share, settings, rule) if source else Manifest(())
                more = _unlabelled(unlabelled, spec, labelled, all_files=all_files)
                clips = RunData(labelled, more, _stills(stills, all_files=all_files))
                check_clips_fit(settings.train, clips, validation=settings.validation)
                created = folder.create(
                    settings.to_dict(),
                    labelled,
                    command=sys.argv,
                    write_more=lambda: clips.write_unlabelled(folder),
                )
                stack.enter_context(created)
        _run(folder, settings, RunData.read(folder), fabric, resume=resume, first=first)


def _run(folder: Any, settings: RunSettings, clips: RunData, fabric: Any, *, resume: bool, first: bool) -> None:
    from nonlocal_video.cli.train_text import TrainProgress, print_result
    from nonlocal_video.training.run import train as train_run

    with GracefulInterrupt() as stop, TrainProgress(shown=first) as progress:
        try:
            result = train_run(
                folder,
                settings,
                clips,
                fabric,
                resume=resume,
                on_progress=progress.update,
                on_features=progress.features,
                notify=progress.notify,
                should_stop=lambda: stop.requested,
            )
        except KeyboardInterrupt:  # the second one
            progress.notify("Stopped at once. The same command with --resume continues after the last saved step.")
            raise typer.Exit(STATUS_INTERRUPTED) from None
    if first:
        print_result(folder, result)
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
    from nonlocal_video.training.config import make_config, read_recipe
    from nonlocal_video.training.initialization import read_new_model
    from nonlocal_video.training.run import RunSettings

    values = read_recipe(recipe) if recipe is not None else {}
    of_recipe = values.pop("model", "default")
    for name, value in _values_of(setting).items():
        *parents, last = name.split(".")
        place = values
        for parent in parents:
            inner = place.get(parent) or {}
            if not isinstance(inner, dict):
                raise UsageError(f"--set {name}: {parent} is {inner!r} and has no settings of its own.")
            place[parent] = place = dict(inner)
        place[last] = value
    if teacher is not None:
        values["distillation"] = {**(values.get("distillation") or {}), "teacher": teacher}
        values.setdefault("stage", "all")
    if progressive:
        values["progressive"] = values.get("progressive") or {}
    config = make_config({**values, **asked})
    if config.distillation is not None:
        found = replace(config.distillation, teacher=_from_anywhere(config.distillation.teacher))
        config = replace(config, distillation=found)
    chosen: Any = of_recipe if model is None else model
    where = str(recipe)
    if isinstance(chosen, str) and chosen.endswith((".yaml", ".yml")):
        chosen, where = read_recipe(chosen), chosen
    if fast and not isinstance(chosen, str):
        raise UsageError(f"--fast is the cheaper view of a model that has two; {where} describes one. Leave it away.")
    return RunSettings(
        model=_from_anywhere(chosen) if isinstance(chosen, str) else read_new_model(chosen, where),
        train=config,
        fast=fast,
        new_weights=new_weights,
        validation=validation,
        device=device,
        processes=int(os.environ.get("WORLD_SIZE", "1")),
    )


def _from_anywhere(model: str) -> str:
    """A path as a run that is resumed from another folder finds it; a name as it is."""
    from nonlocal_video.zoo.catalogue import EMBEDDED, entries

    is_name = model in ("default", *EMBEDDED, *entries()) or not Path(model).exists()
    return model if is_name else os.path.abspath(model)


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


def _resumed(folder: Any, asked: dict[str, Any]) -> RunSettings:
    from nonlocal_video.training.config import make_config
    from nonlocal_video.training.run import RunSettings

    settings = RunSettings.from_dict(folder.read_settings())
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    return replace(settings, train=make_config({**settings.train.to_dict(), **asked}), processes=processes)


def _refuse_beside_resume(given: list[str], changed: dict[str, Any]) -> None:
    from nonlocal_video.training.config import MAY_DIFFER

    wrong = [*given, *(name for name in changed if name not in MAY_DIFFER)]
    if wrong:
        raise UsageError(
            f"--resume continues with the run's own clips and settings; leave {', '.join(wrong)} away. Beside --output "
            f"it takes --set of {', '.join(MAY_DIFFER)}."
        )


def _dotted(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"train.{name}" for name in names)


def _spec(settings: RunSettings) -> InputSpec:
    """The view for which clips are checked: that of the model, or one from which a teacher's can be made, too."""
    from nonlocal_video.models.checkpoint import read_card
    from nonlocal_video.training.distillation.alignment import viewing_spec
    from nonlocal_video.zoo.catalogue import entries, find

    if isinstance(settings.model, str):
        known = entries().get(settings.model)
        card = known.card if known is not None else read_card(find(settings.model))
        spec = card.view(fast=settings.fast)
    else:
        spec = settings.model.input
    distillation = settings.train.distillation
    return spec if distillation is None else viewing_spec(spec, read_card(find(distillation.teacher)).input)


def _labelled(source: str, spec: InputSpec, share: float, settings: RunSettings, rule: dict[str, Any]) -> Manifest:
    """The manifest itself, or one made of clips that were not checked yet."""
    from rich.console import Console

    from nonlocal_video.cli.check import check_with_progress, print_source
    from nonlocal_video.cli.check_text import print_report
    from nonlocal_video.datasets.labelled import read_source
    from nonlocal_video.datasets.manifest import is_manifest, read_manifest
    from nonlocal_video.datasets.report import make_report
    from nonlocal_video.datasets.splits import SplitPlan
    from nonlocal_video.video.decode import VideoReader

    found = None if is_manifest(source) else read_source(source, **rule).to_divide(settings.validation)
    clips = [] if found is None else found.clips
    if share != SHARE_TO_MEASURE_ON and all(clip.split for clip in clips):
        raise UsageError(f"The clips of {source!r} are divided already; leave --validation-share away.")
    if found is None:
        return read_manifest(source)
    print_source(found)
    typer.echo(f"Checking {source} first; `nonlocal-video check` shows more and can be run before.", err=True)
    plan = SplitPlan(share, None, settings.train.seed)
    readers = [VideoReader() for _ in range(min(2, len(clips)))]
    checked = check_with_progress(clips, readers, every_frame=False)
    report = make_report(checked, spec, plan)
    print_report(report, spec, Console(width=None if sys.stdout.isatty() else 140), every_frame=False)
    if report.undivided:
        raise UsageError(f"{source!r} cannot be divided into clips to learn from and to measure on: {report.undivided}")
    return report.manifest


def _unlabelled(paths: list[str] | None, spec: InputSpec, labelled: Manifest, *, all_files: bool) -> Manifest:
    from nonlocal_video.datasets.manifest import Manifest
    from nonlocal_video.inference.file_kinds import PassedOver
    from nonlocal_video.inference.files import Selection
    from nonlocal_video.training.unlabelled import check_unlabelled
    from nonlocal_video.video.decode import VideoReader

    if not paths:
        return Manifest(())
    passed_over = PassedOver()
    report = check_unlabelled(
        paths,
        spec,
        [VideoReader() for _ in range(2)],
        selection=Selection(all_files=all_files),
        passed_over=passed_over,
        labelled=labelled.usable,
    )
    problems = [(row.path, row.problem) for row in report.manifest.rows if row.problem]
    _say_problems(len(report.manifest.rows), problems, passed_over)
    return report.manifest


def _stills(paths: list[str] | None, *, all_files: bool) -> tuple[ImageRow, ...]:
    from nonlocal_video.inference.file_kinds import PassedOver
    from nonlocal_video.inference.files import Selection
    from nonlocal_video.training.images import check_images

    if not paths:
        return ()
    passed_over = PassedOver()
    rows = check_images(paths, selection=Selection(all_files=all_files, pictures=True), passed_over=passed_over)
    _say_problems(len(rows), [(row.path, row.problem) for row in rows if row.problem], passed_over)
    return tuple(rows)


def _say_problems(count: int, problems: list[tuple[str, str]], passed_over: PassedOver) -> None:
    for path, problem in problems:
        typer.echo(f"not used: {path}: {problem}", err=True)
    typer.echo(f"{count - len(problems)} of {count} files without labels can be used.", err=True)
    if passed_over:
        typer.echo(passed_over.sentence(), err=True)
