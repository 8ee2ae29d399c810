"""The settings of training as a table: `nonlocal-video train --list-settings`."""

from __future__ import annotations

import typer

from nonlocal_video.cli.terminal import table_console


def print_settings(asked: bool) -> None:
    """Print all settings of training and end the program, where `--list-settings` asks for them."""
    if not asked:
        return
    from rich.markup import escape
    from rich.table import Table

    from nonlocal_video.training.settings_list import list_settings

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("setting", "type", "default", "meaning"):
        table.add_column(title, no_wrap=title == "setting", overflow="fold")
    for one in list_settings():
        table.add_row(*(escape(text) for text in (one.name, one.type, one.default, one.meaning)))
    table_console(160).print(table)
    typer.echo("\nA line of --recipe FILE.yaml, or --set NAME=VALUE. `none` is written null: --set patience=null.")
    raise typer.Exit
