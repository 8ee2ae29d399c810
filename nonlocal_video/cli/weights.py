"""`nonlocal-video weights`: download, verify, convert and publish weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nonlocal_video.cli.terminal import STATUS_FAILED, progress_bar, table_console
from nonlocal_video.errors import ModelError, UsageError
from nonlocal_video.io import check_new

if TYPE_CHECKING:
    from nonlocal_video.zoo.transfer import ProgressCallback

app = typer.Typer(help="Published weights: list, pull, verify, show, convert, push.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="Names from `nonlocal-video weights list`.")]


class StateLayout(StrEnum):
    """Layouts of parameter names."""

    pyslowfast = "pyslowfast"
    mmaction2 = "mmaction2"


@app.command("list")
def list_weights(
    recommended: Annotated[
        bool, typer.Option("--recommended", help="A short list: which to take and why, licence first.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List installed and available weights, with size, accuracy and licence."""
    from nonlocal_video.cli.weights_text import accuracy_in_words
    from nonlocal_video.zoo.catalogue import EMBEDDED, entries
    from nonlocal_video.zoo.listing import embedded_row, entry_row, recommended_rows

    rows = recommended_rows() if recommended else [*map(embedded_row, EMBEDDED), *map(entry_row, entries().values())]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    from rich.markup import escape
    from rich.table import Column, Table

    console = table_console(150)
    if recommended:
        table = Table("licence", Column("name", overflow="fold"), "why", show_lines=True)
        for row in rows:
            table.add_row(escape(_licence_in_words(row)), row["name"], escape(row["why"]))
        console.print(table)
        console.print("To get one: nonlocal-video weights pull NAME. To try one: make demo MODEL=NAME")
        return
    longest = max(len(row["name"]) for row in rows)
    name = Column(
        "name", min_width=longest if console.width > 2 * longest else None, overflow="fold"
    )  # so that it can be copied
    table = Table(name, "size", "params", "GMAC", "top-1 / top-5", "licence")
    for row in rows:
        table.add_row(
            row["name"],
            _size_in_words(row),
            "" if row["parameters"] is None else f"{row['parameters'] / 1e6:.1f} M",
            "" if row["gmacs"] is None else f"{row['gmacs']:.1f}",
            accuracy_in_words(row["accuracy"]),
            escape(row["licence"].partition(" (weights:")[0]),
        )
    console.print(table)
    console.print(
        "Size: here if installed, else of the download; ~ is an estimate, 4 bytes per parameter, and files with "
        "optimizer state are larger. Accuracy in percent as published, views as CLIPSxCROPS; GMAC of one view, 1e9 "
        "multiply-accumulates. NC forbids commercial use. To download: nonlocal-video weights pull NAME, which for "
        "those with * says what to fetch by hand"
    )


@app.command()
def pull(
    names: Names,
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="Accept licences that forbid commercial use.")
    ] = False,
    keep_original: Annotated[
        bool, typer.Option("--keep-original", help="Keep the original file next to the converted one.")
    ] = False,
    offline: Annotated[
        bool,
        typer.Option(
            "--offline",
            help="Do not use the network, only files that are already there; also by NONLOCAL_VIDEO_OFFLINE=1.",
        ),
    ] = False,
) -> None:
    """Download, verify and convert weights, and print their paths. An interrupted download is resumed."""
    from nonlocal_video.zoo.catalogue import entry
    from nonlocal_video.zoo.download import check_licence
    from nonlocal_video.zoo.download import pull as pull_entry
    from nonlocal_video.zoo.store import weights_path

    rows = [None if _is_embedded(name) else entry(name) for name in names]
    for row in rows:  # all consents before the first long download
        if row is not None and not weights_path(row.name).is_file():
            check_licence(row, accepted=accept_licence)
    failed = 0
    for name, row in zip(names, rows, strict=True):
        if row is None:
            typer.echo(f"{name} comes with the package; there is nothing to download.", err=True)
            continue
        try:
            with _progress_bar(name) as progress:
                path = pull_entry(
                    row,
                    accept_licence=accept_licence,
                    keep_original=keep_original,
                    offline=offline,
                    progress=progress,
                    notify=lambda text: typer.echo(text, err=True),
                )
        except ModelError as error:
            typer.echo(f"{name}: {error}", err=True)
            failed += 1
        else:
            typer.echo(path)
    if failed:
        raise typer.Exit(STATUS_FAILED)


@app.command()
def verify(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME...]", help="Names (default: all installed weights).")
    ] = None,
) -> None:
    """Verify installed weights against published or recorded hashes, and load them strictly."""
    from nonlocal_video.models.checkpoint import load_checkpoint
    from nonlocal_video.zoo.catalogue import EMBEDDED, entries, entry, find
    from nonlocal_video.zoo.download import verify as verify_entry
    from nonlocal_video.zoo.store import weights_path

    installed = [*EMBEDDED, *(name for name in entries() if weights_path(name).is_file())]
    rows = {name: None if _is_embedded(name) else entry(name) for name in names or installed}
    failed = 0
    for name, row in rows.items():
        try:
            if row is None:
                load_checkpoint(find(name))
                seen = "comes with the package; all tensors load"
            else:
                seen = verify_entry(row)
        except ModelError as error:
            typer.echo(f"{name}: {error}", err=True)
            failed += 1
        else:
            typer.echo(f"{name}: {seen}")
    if failed:
        raise typer.Exit(STATUS_FAILED)


@app.command()
def info(
    model: Annotated[
        str,
        typer.Argument(
            metavar="NAME|FILE|RUN|HF",
            help="Catalogue name, file of this project, folder of a run, or hf://owner/name.",
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Show details of weights: network, input, labels, accuracy, licence, source, hashes."""
    from dataclasses import asdict

    from nonlocal_video.models.checkpoint import read_card
    from nonlocal_video.zoo.catalogue import EMBEDDED_SIZES, entries, entry, find
    from nonlocal_video.zoo.hub import is_on_hub
    from nonlocal_video.zoo.own_network import is_function
    from nonlocal_video.zoo.store import read_record, weights_path

    row = entries().get(model)
    elsewhere = is_function(model) or is_on_hub(model) or (model and Path(model).exists())
    if row is None and not _is_embedded(model) and not elsewhere:
        entry(model)  # raises with suggestions
    record = None if row is None else read_record(row.name)
    path = weights_path(row.name) if row else find(model)
    card = read_card(path) if path.is_file() or row is None else row.card
    if as_json:
        values = {
            "name": card.name,
            "file": str(path) if path.is_file() else None,
            "card": asdict(card),
            "catalogue": row.to_dict() if row else None,
            "record": asdict(record) if record else None,
        }
        typer.echo(json.dumps(values, ensure_ascii=False))
        return
    from rich.markup import escape
    from rich.table import Table

    from nonlocal_video.cli.weights_text import card_in_words, entry_in_words, sizes_in_words

    sizes = EMBEDDED_SIZES[card.name] if _is_embedded(model) else None
    table = Table(show_header=False)
    for what, text in {
        **card_in_words(card),
        **(entry_in_words(row) if row else {}),
        **(sizes_in_words(*sizes) if sizes else {}),
        "file": str(path) if path.is_file() else "not installed",
        "seen at the download": f"SHA-256 {record.sha256}, {record.num_bytes:,} bytes" if record else "",
    }.items():
        if text:
            table.add_row(what, escape(text))
    table_console(150).print(table)


@app.command()
def convert(
    file: Annotated[Path, typer.Argument(help="Published weights: .pth, .pyth or .pkl; no code in the file is run.")],
    output: Annotated[Path, typer.Option(help=".safetensors file to write.")],
    as_name: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="Catalogue name, if it cannot be told from the file.")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="Class names of a fine-tuned network, one per line, in the order of the outputs."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Convert weights of PySlowFast, MMAction2, video-nonlocal-net, PyTorchVideo and others."""
    if output.suffix != ".safetensors":
        raise UsageError(f"output = {output} should end in .safetensors.")
    check_new(output)
    names = None if labels is None else _read_labels(labels)

    from nonlocal_video.zoo.convert import convert_file

    done = convert_file(file, output, name=as_name, labels=names)
    if as_json:
        values = {
            "name": done.name,
            "source": done.source,
            "output": str(done.output),
            "input_sha256": done.input_sha256,
            "tensors_used": done.tensors_used,
            "ignored": done.ignored,
        }
        typer.echo(json.dumps(values))
        return
    typer.echo(f"{done.output}: {done.name}, from {file} (SHA-256 {done.input_sha256})")
    typer.echo(f"{done.tensors_used} tensors used; ignored: {', '.join(done.ignored) or 'none'}")


@app.command("export-state")
def export_state(
    model: Annotated[str, typer.Argument(help="Catalogue name with installed weights, or a file of this project.")],
    layout: Annotated[StateLayout, typer.Option(help="Layout of the parameter names.")],
    output: Annotated[Path, typer.Option(help="PyTorch file to write, .pyth or .pth.")],
) -> None:
    """Export the weights of a 3D ResNet under the parameter names of PySlowFast or MMAction2."""
    check_new(output)

    from nonlocal_video.zoo.export_state import export_state as write_state

    typer.echo(write_state(model, output, layout=layout.value))


@app.command()
def push(
    run: Annotated[Path, typer.Argument(help="Folder of a run of `train` or `teach`.")],
    repository: Annotated[str, typer.Argument(metavar="REPO", help="owner/name on the Hugging Face Hub.")],
    public: Annotated[bool, typer.Option("--public", help="Let everybody see a new repository.")] = False,
) -> None:
    """Upload a run to the Hugging Face Hub: weights, card and figures, never clips or their names.

    The token is the one of `hf auth login`, or HF_TOKEN. Read README.md first: it is uploaded with its settings.
    """
    from nonlocal_video.zoo.hub_upload import push as push_run

    typer.echo(push_run(run, repository, public=public, notify=lambda text: typer.echo(text, err=True)))


def _is_embedded(name: str) -> bool:
    from nonlocal_video.zoo.catalogue import EMBEDDED

    return name == "default" or name in EMBEDDED


def _read_labels(path: Path) -> list[str]:
    from nonlocal_video.datasets.text_file import open_text

    try:
        with open_text(path) as file:
            names = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"labels = {path} cannot be read: {error}") from error
    if not all(name.strip() for name in names):
        raise UsageError(f"labels = {path} has an empty line; every line should be a class name.")
    return names


@contextmanager
def _progress_bar(name: str) -> Iterator[ProgressCallback]:
    """Show a download bar on standard error, if that is a terminal; yield its update function."""
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn(name), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with progress_bar(*columns) as bar:
        task = bar.add_task(name, total=None)
        yield lambda installed, total: bar.update(task, completed=installed, total=total)


def _size_in_words(row: dict[str, Any]) -> str:
    if row["bytes"] is not None:
        return f"here {row['bytes'] / 1e6:.0f} MB"
    from nonlocal_video.cli.weights_text import download_in_words

    size = download_in_words(row["download_mb"], is_stated=row["download_mb_is_stated"])
    return f"{size} *" if row["state"] == "by hand" else size or str(row["state"])


def _licence_in_words(row: dict[str, Any]) -> str:
    return str(row["licence"]) + (" (non-commercial)" if row["non_commercial"] else "")
