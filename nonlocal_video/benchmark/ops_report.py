"""Results of `benchmark ops` as tables, on the screen and in docs/kernels.md between its markers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from nonlocal_video.errors import UsageError

BEGIN, END = "<!-- benchmark ops: begin -->", "<!-- benchmark ops: end -->"
_COMPARED = (
    "kernel",
    "channels",
    "positions",
    "naive ms",
    "ours ms",
    "time",
    "naive MiB",
    "ours MiB",
    "memory",
    "error",
)


def screen_tables(results: dict[str, Any]) -> list[Table]:
    """Return one table for each part of the results."""
    tables = []
    for title, header, rows in _parts(results):
        table = Table(*header, title=title)
        for row in rows:
            table.add_row(*row)
        tables.append(table)
    return tables


def markdown(results: dict[str, Any]) -> str:
    """Return the same tables for a documentation page, with the machine above them."""
    machine = results["machine"]
    lines = [
        f"{machine['processor']}, {machine['threads']} of {machine['cores']} cores, torch {machine['torch']}, float32.",
    ]
    for title, header, rows in _parts(results):
        aligned = ["---"] + ["---:"] * (len(header) - 1)
        lines += ["", f"**{title}**", ""]
        lines += [f"| {' | '.join(cells)} |" for cells in (header, aligned, *rows)]
    return "\n".join(lines)


def write_docs(results: dict[str, Any], page: Path) -> None:
    """Write the tables between the page's markers.

    Raises:
        UsageError: If the page does not have each marker once.
    """
    text = page.read_text("utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise UsageError(f"{page} should have the lines {BEGIN} and {END} once each, in this order.")
    head, tail = text[: text.index(BEGIN)], text[text.index(END) :]
    page.write_text(f"{head}{BEGIN}\n\n{markdown(results)}\n\n{tail}", "utf-8")


def _parts(results: dict[str, Any]) -> list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]:
    """Return title, header and rows of each table."""
    parts: list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]] = [
        ("Kernels alone, N = M", _COMPARED, [_compared(row) for row in results["kernels"]]),
        (
            "Exponents of N over these sizes",
            ("kernel", "time", "memory"),
            [(name, f"{fit['time']:.2f}", f"{fit['memory']:.2f}") for name, fit in results["scaling"].items()],
        ),
        ("Whole blocks, keys not pooled", _COMPARED, [_compared(row) for row in results["blocks"]]),
        (
            "One large block: highest memory beyond its input and weights",
            ("kernel", "positions", "keys", "matrix GiB", "peak MiB", "seconds"),
            [_large(row) for row in results["large"]],
        ),
    ]
    if results.get("variants"):
        parts.append(
            (
                f"Variants: y of eq. 1 on {results['variants']['features']}",
                ("variant", "max error", "RMS error", "ms", "time of the full block"),
                [_variant(row) for row in results["variants"]["rows"]],
            )
        )
    return parts


def _compared(row: dict[str, Any]) -> tuple[str, ...]:
    naive, ours = row["naive"], row["ours"]
    size = " x ".join(map(str, row["size"]))
    head = (row["kernel"], str(row["channels"]), size)
    error = f"{ours['error']:.1e}"
    if naive is None:
        skipped = f"not run: {row['naive_skipped']}"
        return (*head, skipped, _number(ours["milliseconds"]), "", "", _number(ours["peak_mib"]), "", error)
    return (
        *head,
        _number(naive["milliseconds"]),
        _number(ours["milliseconds"]),
        f"x{_number(row['time_ratio'])}",
        _number(naive["peak_mib"]),
        _number(ours["peak_mib"]),
        f"x{_number(row['memory_ratio'])}",
        f"{naive['error']:.1e}, {error}",
    )


def _large(row: dict[str, Any]) -> tuple[str, ...]:
    positions = " x ".join(map(str, row["size"]))
    matrix = _number(row["matrix_gib"])
    return (row["kernel"], positions, str(row["num_keys"]), matrix, f"{row['peak_mib']:.0f}", _number(row["seconds"]))


def _variant(row: dict[str, Any]) -> tuple[str, ...]:
    errors = (f"{row['error_max']:.1e}", f"{row['error_rms']:.1e}")
    return (row["variant"], *errors, _number(row["milliseconds"]), f"x{row['time_of_full']:.2f}")


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
