"""The README of a taught run: a model card with nothing but recorded facts."""

from __future__ import annotations

import shlex

from nonlocal_video.inference.prediction import printable
from nonlocal_video.models.card import ModelCard
from nonlocal_video.models.hub_front_matter import front_matter
from nonlocal_video.teaching.folder import TaughtFolder
from nonlocal_video.teaching.report import TeachReport
from nonlocal_video.video.region import Region


def readme(
    folder: TaughtFolder,
    card: ModelCard,
    start: ModelCard,
    report: TeachReport,
    *,
    views: str,
    region: Region | None = None,
) -> str:
    """Return the README as Markdown, with front matter for the Hugging Face Hub.

    Args:
        folder: Folder of the run, as the commands in the card name it.
        card: Card of the taught network.
        start: Card of the network that it started from.
        report: What teaching found.
        views: Views of each example.
        region: Part of the frame in which the examples were seen; None is the whole of it.
    """
    asked = "" if region is None else f" --region {region}"
    run = shlex.quote(printable(str(folder.path)))
    metrics = {} if report.accuracy is None else {"accuracy": report.accuracy}
    measured_on = f"{report.num_measured} examples, each left out with its group"
    parts = [
        front_matter(card, [start], tags=["few-shot"], metrics=metrics, measured_on=measured_on)
        + f"\n# Model card: {card.name}",
        f"Recognises {len(card.labels)} actions and says when a clip shows none of them. Taught by "
        f"`nonlocal-video teach` from {report.num_examples} examples (`examples.csv`): a new linear head "
        f"({report.head}) on the features of `{start.name}`, whose other layers are unchanged. It sees "
        f"{card.input.span_seconds:.2f} s of a clip a view; the examples were seen in {views} views"
        + ("." if region is None else f", in the part {region} of the frame only: ask with the same `--region`."),
        "## How to use it",
        f"```sh\nnonlocal-video classify clip.mp4 --model {run}{asked}\nnonlocal-video serve --model {run}\n```\n\n"
        f"In Python: `nonlocal_video.load({str(folder.path)!r})`.",
        "## How good it is",
        accuracy_in_words(report),
        "## Classes",
        "| class | examples |\n| --- | ---: |\n"
        + "\n".join(f"| {_cell(label)} | {count} |" for label, count in report.counts.items()),
        "## What to know",
        "\n".join(f"- {note}" for note in [*report.notes, *_limits(report)]),
        "## Licence",
        f"- {start.name}: {start.licence or 'its card names no licence'}.\n\nThis licence applies to the weights, in "
        f"addition to the terms of the owners of the examples.",
    ]
    return "\n\n".join(parts) + "\n"


def accuracy_in_words(report: TeachReport) -> str:
    """Return the accuracy and its interval as a sentence."""
    if report.accuracy is None:
        return "The accuracy is not known: no example could be left out."
    between = "" if report.interval is None else f" (95% interval {report.interval[0]:.1%} to {report.interval[1]:.1%})"
    return (
        f"{report.accuracy:.1%}{between} of {report.num_measured} examples are right when their group is left out. The "
        f"head was chosen by the same answers; clips that were never examples say more (`evaluate`)."
    )


def _limits(report: TeachReport) -> list[str]:
    unknown = f"likeness below {report.threshold:.3f}, from {report.threshold_from}"
    return [
        f"A clip is unknown if no class is like it enough ({unknown}); the classes are ranked all the same.",
        "It was taught the people, rooms and cameras of its examples.",
        "Do not use it to judge or identify people, or where a wrong answer causes harm.",
    ]


def _cell(text: str) -> str:
    return printable(text).replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
