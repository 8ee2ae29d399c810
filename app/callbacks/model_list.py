"""The models of this server and the recommended published ones, and the download of one where that is allowed."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any, NamedTuple

import gradio as gr

from nonlocal_video.errors import NonlocalVideoError
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.zoo.catalogue import recommended
from nonlocal_video.zoo.listing import recommended_rows
from nonlocal_video.zoo.models import pull

from .. import texts_more as texts
from ..messages import refusal
from ..texts import STAGE

MEGABYTE = 1e6


class Update(NamedTuple):
    """Updates of the components, in the order in which the page lists its outputs."""

    status: Any
    models: Any


@dataclass(frozen=True)
class ModelList:
    """Callbacks of the tab for models."""

    recognizers: Mapping[str, Recognizer]
    """Recognizers by model name."""
    allow_pull: bool = False
    """Whether visitors may download."""

    def as_html(self) -> str:
        """Return the list as HTML; its buttons have the name of their model."""
        words = texts.MODELS
        served = "".join(self._served(recognizer) for recognizer in self.recognizers.values())
        offered = "".join(self._offered(row) for row in recommended_rows() if row["name"] not in self.recognizers)
        notes = [words["use"], *([] if self.allow_pull else [words["not_allowed"]])]
        return (
            f"<h3>{words['served']}</h3><ul>{served}</ul><h3>{words['recommended']}</h3><ul>{offered}</ul>"
            f"<p class='note'>{escape(' '.join(notes))}</p>"
        )

    def pull(self, event: gr.EventData) -> Iterator[Update]:
        """Download a recommended model, and yield how far it is."""
        asked = getattr(event, "_data", None) or {}
        name = str(asked.get("name"))
        if not self.allow_pull:
            raise refusal(texts.MODELS["not_allowed"])
        if name not in recommended():
            raise refusal(texts.MODELS["unknown"])
        said: queue.Queue[tuple[int, int | None] | None] = queue.Queue()
        failed: list[Exception] = []

        def work() -> None:
            try:
                pull(name, accept_licence=asked.get("accepted") is True, progress=lambda *far: said.put(far))
            except Exception as error:
                failed.append(error)
            said.put(None)

        thread = threading.Thread(target=work, daemon=True)  # an unfinished download is taken up by the next one
        thread.start()
        yield Update(texts.MODELS["loading"].format(name=name, done=0), gr.skip())
        while (far := _last(said)) is not None:
            yield Update(_how_far(name, *far), gr.skip())
        if failed:
            if isinstance(failed[0], NonlocalVideoError):
                raise refusal(str(failed[0]))
            raise failed[0]
        yield Update(texts.MODELS["loaded"].format(name=name), self.as_html())

    def _served(self, recognizer: Recognizer) -> str:
        card = recognizer.card
        what = texts.MODELS["classes"].format(count=len(card.labels), frames=card.input.num_frames)
        notes = "".join(f"<p>{escape(note)}</p>" for note in card.notes)
        fold = f"<details><summary>{STAGE['details']}</summary>{notes}</details>" if notes else ""
        return _item(card.name, [what, card.licence], more=fold)

    def _offered(self, row: dict[str, Any]) -> str:
        words = texts.MODELS
        here = row["state"] in ("here", "in the package")
        size = words["size"].format(megabytes=row["download_mb"]) if row["download_mb"] and not here else ""
        state = words["here"] if here else words["by_hand"] if row["state"] == "by hand" else size
        rights = words["non_commercial" if row["non_commercial"] else "commercial"]
        accuracy = words["accuracy"].format(**row["accuracy"]) if row["accuracy"] else ""
        facts = [", ".join(filter(None, [row["licence"], rights])), state, accuracy]
        button = ""
        if self.allow_pull and row["state"] == "no":
            consent = f"<label><input type='checkbox'> {words['agree']}</label>" if row["non_commercial"] else ""
            label = escape(f"{words['get']} {row['name']}")
            button = (
                f"<div class='get'>{consent}<button type='button' data-name='{escape(row['name'])}' "
                f"aria-label='{label}'>{words['get']}</button></div>"
            )
        return _item(row["name"], [row["why"], *facts], button)


def _item(name: str, facts: list[str], button: str = "", more: str = "") -> str:
    first, *others = facts
    chips = "".join(f"<span>{escape(fact)}</span>" for fact in others if fact)
    return (
        f"<li><div><strong>{escape(name)}</strong><p>{escape(first)}</p><p class='facts'>{chips}</p>{more}</div>"
        f"{button}</li>"
    )


def _last(said: queue.Queue[tuple[int, int | None] | None]) -> tuple[int, int | None] | None:
    """Wait for news, and return the latest; None at the end."""
    news = said.get()
    while news is not None and not said.empty():
        news = said.get()
    return news


def _how_far(name: str, done: int, total: int | None) -> str:
    if total is None:
        return texts.MODELS["loading"].format(name=name, done=done / MEGABYTE)
    return texts.MODELS["loading_of"].format(name=name, done=done / MEGABYTE, total=total / MEGABYTE)
