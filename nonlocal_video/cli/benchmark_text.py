"""Results of `benchmark model` and `benchmark decode` as tables."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.table import Column, Table


def model_table(results: dict[str, Any]) -> Table:
    """Return a table with a row for each network, view and batch size."""
    hardware = results["device_name"] or results["machine"]["processor"]
    title = f"{results['device']}: {hardware}, threads: {results['threads']}, float32, median of {results['rounds']}"
    table = Table(
        Column("model", overflow="fold"),
        *("weights", "runtime", "view", "batch", "blocks", "GMAC", "s per view", "quartiles"),
        *("views/s", "GMAC/s", "time", "peak MiB"),
        title=escape(title),
        caption="Blocks: non-local blocks that run, of all; blocks that add exactly zero are skipped. Random weights:"
        " used where none are installed; the time does not depend on them. Time: per view, relative to the first row.",
    )
    for row in results["rows"]:
        table.add_row(
            escape(row["model"]),
            row["weights"],
            row["runtime"],
            f"{row['view']}, {row['num_frames']} x {row['crop']}²",
            str(row["batch_size"]),
            f"{row['nonlocal_blocks_run']} of {row['nonlocal_blocks']}",
            _number(row["gmacs_per_view"]),
            *(_measured(row) if row["fits"] else ["out of memory"]),
        )
    return table


def decode_table(results: dict[str, Any]) -> Table:
    """Return a table with a row for each file and decoder."""
    table = Table(
        Column("clip", overflow="fold"),
        *("asked", "decoder", "frames", "view cold, s", "view warm, s", "whole, frames/s"),
        title=escape(f"A view of {results['model']}: {results['view']}; median of {results['rounds']}"),
        caption="Cold: with the start of the decoding process.",
    )
    for row in results["rows"]:
        head = escape(row["path"]), row["asked_decoder"]
        if row["status"] == "error":
            table.add_row(*head, row["error"]["code"], escape(row["error"]["message"]))
        elif row["status"] == "skipped":
            table.add_row(*head, "not timed", row["reason"])
        else:
            table.add_row(*head, *_decoded(row))
    return table


def _measured(row: dict[str, Any]) -> list[str]:
    first, third = row["quartiles_of_seconds_per_view"]
    ratio, peak = row["time_of_first_row"], row["peak_mib"]
    return [
        f"{row['seconds_per_view']:.4f}",
        f"{first:.4f} to {third:.4f}",
        _number(row["views_per_second"]),
        _number(row["gmacs_per_second"]),
        "" if ratio is None else f"x{ratio:.2f}",
        "not measured" if peak is None else f"{peak:.0f}",
    ]


def _decoded(row: dict[str, Any]) -> list[str]:
    view, whole = row["view"], row["whole"]
    same = view["decoder"] == whole["decoder"]
    count, height, width, _ = whole["shape"]
    return [
        view["decoder"] if same else f"{view['decoder']}, whole file {whole['decoder']}",
        f"{view['shape'][0]} of {count}, {width} x {height} {row['video']['codec']}",
        f"{view['cold_seconds']:.3f}",
        f"{view['warm_seconds']:.3f}",
        _number(whole["frames_per_second"]),
    ]


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
