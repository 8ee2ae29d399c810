"""The commands, and the exit status of errors. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import os
import sys

import typer

from nonlocal_video import __version__
from nonlocal_video.cli.analyze import app as analyze
from nonlocal_video.cli.annotations import app as annotation_verbs
from nonlocal_video.cli.benchmark import benchmark
from nonlocal_video.cli.check import check
from nonlocal_video.cli.classify import classify
from nonlocal_video.cli.doctor import doctor
from nonlocal_video.cli.evaluate import evaluate
from nonlocal_video.cli.explain import explain
from nonlocal_video.cli.export import export
from nonlocal_video.cli.features import features
from nonlocal_video.cli.import_set import import_set
from nonlocal_video.cli.search import search
from nonlocal_video.cli.serve import serve
from nonlocal_video.cli.teach import teach
from nonlocal_video.cli.terminal import STATUS_USAGE, report_error, telling_runtime
from nonlocal_video.cli.timeline import timeline
from nonlocal_video.cli.train import train
from nonlocal_video.cli.watch import watch
from nonlocal_video.cli.weights import app as weights
from nonlocal_video.errors import NonlocalVideoError

app = typer.Typer(
    name="nonlocal-video",
    help="Recognise actions in video, and show which regions and moments decided the answer.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(classify)
app.command()(explain)
app.command()(timeline)
app.command()(watch)
app.command()(features)
app.command()(search)
app.command()(teach)
app.command()(train)
app.command()(evaluate)
app.command()(check)
app.command("import")(import_set)
app.command()(export)
app.command()(serve)
app.command()(doctor)
app.add_typer(analyze, name="analyze")
app.add_typer(annotation_verbs, name="annotations")
app.add_typer(benchmark, name="benchmark")
app.add_typer(weights, name="weights")


@app.callback(invoke_without_command=True)
def _options(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    if version:
        typer.echo(f"nonlocal-video {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line.

    Exit status: 0 success, 1 some inputs failed, 2 wrong usage, 3 the device failed.
    """
    _open_standard_streams()
    try:
        os.getcwd()
    except OSError:  # importing torch would end the process, as MKL does not find its own files
        typer.echo("The working directory was deleted; change to one that exists, and try again.", err=True)
        sys.exit(STATUS_USAGE)
    try:
        with telling_runtime():
            app()
    except (NonlocalVideoError, ImportError, OSError, RuntimeError) as error:
        sys.exit(report_error(error))


def _open_standard_streams() -> None:
    """Open descriptors 0 to 2 where the caller closed them.

    Otherwise the next opened file, perhaps the results, would get such a number, and with it all output of C libraries.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number
