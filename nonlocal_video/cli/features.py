"""`nonlocal-video features`: write the features of the windows of videos, for models of one's own."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nonlocal_video.cli import options
from nonlocal_video.cli.interrupt import STATUS_INTERRUPTED, GracefulInterrupt
from nonlocal_video.cli.run_progress import RunProgressBar
from nonlocal_video.cli.terminal import naming_resume
from nonlocal_video.errors import UsageError

if TYPE_CHECKING:
    from nonlocal_video.features.extract import FeatureProgress, FeatureRun
    from nonlocal_video.inference.files import Selection

STATUS_SOME_FAILED = 1


class LayoutChoice(StrEnum):
    """Projects whose files are written."""

    npy = "npy"
    actionformer = "actionformer"
    ms_tcn = "ms-tcn"
    rtfm = "rtfm"
    bmn = "bmn"


class DtypeChoice(StrEnum):
    """Types of the numbers."""

    float32 = "float32"
    float16 = "float16"


def features(
    paths: Annotated[
        list[str],
        typer.Argument(
            help="Video files, folders (searched recursively), glob patterns, object storage URLs, parts such as "
            "match.mp4#t=3,5.5, or a CSV of clips or segments."
        ),
    ],
    output: Annotated[Path | None, typer.Option(help="Table to write, .parquet: a row for each window.")] = None,
    output_dir: Annotated[Path | None, typer.Option(help="Folder to write an array for each video to.")] = None,
    layout: Annotated[
        LayoutChoice | None, typer.Option(help="What reads the arrays of --output-dir (default: npy).")
    ] = None,
    layer: Annotated[
        str | None, typer.Option(help="Dotted name of the layer to pool (default: the one before the classifier).")
    ] = None,
    window_seconds: options.WindowSeconds = None,
    stride_seconds: Annotated[
        float | None,
        typer.Option(help="Seconds from one window to the next (default: half a window; with rtfm a window)."),
    ] = None,
    crops: Annotated[
        int | None, typer.Option(help="1 (the centre) or 10 (torchvision's TenCrop), for layout npy (default: 1).")
    ] = None,
    dtype: Annotated[DtypeChoice, typer.Option(help="Type of the features' numbers.")] = DtypeChoice.float32,
    model: options.Model = "default",
    device: options.Devices = "auto",
    runtime: options.Runtime = options.RuntimeChoice.auto,
    precision: options.Precision = options.PrecisionChoice.float32,
    fast: options.Fast = False,
    start_seconds: options.StartSeconds = None,
    end_seconds: options.EndSeconds = None,
    region: options.Region = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume an interrupted run, or add new and changed files.")
    ] = False,
    workers: options.Workers = None,
    batch_size: options.BatchSize = None,
    decoder: options.Decoder = options.DecoderChoice.auto,
    limit: options.Limit = None,
    include: options.Include = None,
    exclude: options.Exclude = None,
    all_files: options.AllFiles = False,
    shard: options.Shard = None,
    engine: options.EngineOption = options.Engine.local,
    ray_address: options.RayAddress = None,
    ray_actors: options.RayActors = None,
    ray_gpus: options.RayGpus = None,
    ray_cpus: options.RayCpus = None,
    frames_per_second: options.FramesPerSecond = None,
) -> None:
    """Write the features of sliding windows, with a row for every file, including unreadable ones."""
    target = output or output_dir
    if target is None or (output is not None and output_dir is not None):
        raise UsageError("Give either --output FILE.parquet, for a table, or --output-dir DIR, for arrays.")
    if output is not None and (layout is not None or crops is not None):
        raise UsageError("--layout and --crops are for the arrays of --output-dir; a table has a feature a window.")
    options.refuse_ray_options(engine, ray_address, ray_actors, ray_gpus, ray_cpus)

    from nonlocal_video.features.extract import extract_features
    from nonlocal_video.features.folder import extract_arrays
    from nonlocal_video.features.inputs import listed
    from nonlocal_video.inference.files import Selection
    from nonlocal_video.inference.load import load
    from nonlocal_video.inference.runtimes.device import choose_devices
    from nonlocal_video.video.limits import DecodeLimits

    selection = Selection.parse(include or (), exclude or (), shard, all_files=all_files)
    given = listed(paths)
    settings: dict[str, Any] = {
        "resume": resume,
        "layer": layer,
        "window_seconds": window_seconds,
        "stride_seconds": stride_seconds,
        "fast": fast,
        "start_seconds": start_seconds,
        "end_seconds": end_seconds,
        "region": region,
        "dtype": dtype.value,
        "workers": workers,
        "batch_size": batch_size,
        "selection": selection,
    }
    if output_dir is not None:
        settings |= {"layout": (layout or LayoutChoice.npy).value, "crops": crops}
    if engine is options.Engine.ray:
        from nonlocal_video.inference.ray.engine import Cluster

        settings |= {
            "cluster": Cluster(ray_address, ray_actors, ray_gpus, ray_cpus or 1.0, workers),
            "devices": (device,),
        }
        own_device = "cpu"  # the cluster's processes have the others
    else:
        settings["devices"] = devices = choose_devices(device, runtime=runtime.value)
        own_device = devices[0]
    with load(
        model,
        device=own_device,
        runtime=runtime.value,
        precision=precision.value,
        decoder=decoder.value,
        limits=DecodeLimits.parse(limit or ()),
    ) as recognizer:
        write = extract_features if output_dir is None else extract_arrays
        with naming_resume(keeps=True):
            done = _with_progress(
                lambda **hooks: write(recognizer, given, output=target, **settings, **hooks),
                given,
                selection,
            )
    _finish(done, paths)


def _with_progress(write: Callable[..., FeatureRun], paths: list[str], selection: Selection) -> FeatureRun:
    """Run with a line a file and a progress bar; an interrupt ends the command with status 130."""
    from nonlocal_video.inference.files import find_files

    num_done = 0
    with (
        GracefulInterrupt() as stop,
        RunProgressBar(lambda: sum(1 for _ in find_files(paths, selection=selection))) as bar,
    ):

        def show(progress: FeatureProgress) -> None:
            nonlocal num_done
            num_done += 1
            bar.update(progress.counts, progress.done_before.total())
            bar.row(_line(progress))

        try:
            return write(should_stop=lambda: stop.requested, on_progress=show)
        except KeyboardInterrupt:
            typer.echo(f"Stopped. {num_done} files are kept; the same command with --resume continues.", err=True)
            raise typer.Exit(STATUS_INTERRUPTED) from None


def _line(progress: FeatureProgress) -> str:
    from nonlocal_video.cli.text import shown
    from nonlocal_video.errors import VideoError

    result = progress.result
    if isinstance(result, VideoError):
        return f"{shown(progress.path)}\n  {result.code}: {result.message}"
    windows = f"{len(result)} window{'s' if len(result) > 1 else ''} of {result.features.shape[-1]} features"
    broke = f"\n  {result.error.code} after them: {result.error.message}" if result.error else ""
    return f"{shown(progress.path)}\n  {windows}, {result.starts[0]:.2f} - {result.ends[-1]:.2f} s{broke}"


def _finish(done: FeatureRun, paths: list[str]) -> None:
    together = done.counts + done.done_before
    if not together:
        passed = f" {done.passed_over.sentence()}" if done.passed_over else ""
        raise UsageError(f"There is no file in {', '.join(map(repr, paths))} that is to be used.{passed}")
    if done.passed_over:
        typer.echo(done.passed_over.sentence(), err=True)
    words = ", ".join(f"{number} {code}" for code, number in together.most_common())
    earlier = f" ({done.done_before.total()} of them done before)" if done.done_before else ""
    typer.echo(f"{done.output}: {together.total()} files: {words}{earlier}; {done.num_windows} windows", err=True)
    if together.total() > together["ok"]:
        raise typer.Exit(STATUS_SOME_FAILED)
