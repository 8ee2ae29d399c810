"""Predictions as text on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nonlocal_video.inference.prediction import Outcome


def describe(outcome: Outcome, top_k: int) -> str:
    """Describe a prediction: file, top classes and views; or its error."""
    from nonlocal_video.inference.prediction import Failure

    name = shown(outcome.path)
    if isinstance(outcome, Failure):
        return f"{name}\n  {outcome.error.code}: {outcome.error.message}"
    scores = [f"  {scored.score:6.1%}  {scored.label}" for scored in outcome.top(top_k)]
    return "\n".join([name, *scores, f"  {outcome.summary}", *(f"  {note}" for note in outcome.notes)])


def describe_row(row: dict[str, Any]) -> str:
    """Return the lines that show a row of `classify --json`."""
    from nonlocal_video.inference.prediction import path_of_printable

    name = shown(path_of_printable(row["path"]))
    if row["error"]:
        return f"{name}\n  {row['error']['code']}: {row['error']['message']}"
    scores = [f"  {scored['score']:6.1%}  {scored['label']}" for scored in row["top"]]
    return "\n".join([name, *scores, *(f"  {note}" for note in row["notes"])])


def shown(path: str) -> str:
    r"""Return a file name for one line of a terminal: control characters are escaped as \x1b, \n and so on."""
    from nonlocal_video.inference.prediction import printable

    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in printable(path))
