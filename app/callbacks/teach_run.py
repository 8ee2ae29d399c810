"""Callbacks of the tab for teaching: every change is learnt at once."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import gradio as gr

from nonlocal_video.errors import UsageError, VideoError
from nonlocal_video.inference.load import load
from nonlocal_video.teaching.lessons import TeachCallback

from ..messages import plain_errors, without_folder
from ..models import Models
from ..taught_classes import TaughtClasses, in_words
from ..told import told_by
from ..tool_texts import TEACH as WORDS
from ..visit_folders import Visits, uploaded
from .folder_files import FolderFiles
from .folder_rows import FolderRows

TOP_K = 5
MAX_VISITS = 20
"""Most visitors whose teaching is remembered; a model takes 50 MB on the disk."""
IN_THE_ARCHIVE = ("best.safetensors", "config.json", "report.json", "examples.csv", "README.md")


class Taught(NamedTuple):
    """Updates of the components, in the order in which the page lists its outputs."""

    shown: Any
    download: Any
    use: Any


@dataclass(frozen=True)
class Teaching:
    """Callbacks of the tab for teaching."""

    models: Models
    visits: Visits[TaughtClasses] = field(default_factory=lambda: Visits(TaughtClasses, max_visits=MAX_VISITS))

    def edit(self, event: gr.EventData, request: gr.Request) -> str:
        """Change classes or clips at once; `learn` follows."""
        visit = self.visits.of(request)
        with plain_errors(visit.folder):
            visit.edit(dict(event._data))
            return json.dumps(visit.to_json())

    def take(self, rows: FolderRows, event: gr.EventData, request: gr.Request) -> str:
        """Take the clips of a folder run whose labels were put right as examples; `learn` follows."""
        visit = self.visits.of(request)
        with plain_errors(visit.folder):
            files, corrected = rows.put_right(str(dict(event._data).get("run")), request.session_hash or "")
            try:
                visit.take(corrected, files.taken)
            except VideoError as error:
                raise VideoError(error.code, _without_root(error.message, files)) from None
            return json.dumps(visit.to_json())

    def learn(self, request: gr.Request) -> Iterator[Taught]:
        """Yield how far it is, then what was learnt."""
        visit = self.visits.of(request)
        with plain_errors(visit.folder), visit.learning:
            visit.is_busy, visit.says = True, WORDS["learning"]
            yield _shown(visit)
            try:
                learnt = None
                while learnt != (now := list(visit.examples())):  # what was changed meanwhile is learnt, too
                    for done, total in told_by(partial(_learn, visit, self.models)):
                        visit.says = WORDS["looking"].format(done=done, total=total)
                        yield _shown(visit)
                    learnt = now
                visit.says = in_words(visit.report) if visit.clips else WORDS["invitation"]
            except UsageError as error:  # such as a class without a clip that can be read
                visit.says = _without_folders(str(error), visit)
            finally:
                visit.is_busy = False
            yield _shown(visit)

    def ask(self, event: gr.EventData, request: gr.Request) -> str:
        """Recognise the taught classes in a clip."""
        visit = self.visits.of(request)
        with plain_errors(visit.folder), visit.learning:
            path = uploaded(dict(event._data).get("path"))
            if visit.session is None:
                raise UsageError(WORDS["one_more"])
            try:
                prediction = visit.session.classify(path)
            except VideoError as error:
                raise VideoError(error.code, without_folder(error.message, path.parent)) from None
            best = prediction.top(TOP_K)
            visit.answer = {
                "is_unknown": prediction.unknown,
                "top": [{"label": one.label, "score": one.score} for one in best],
            }
            return json.dumps(visit.to_json())

    def download(self, request: gr.Request) -> Iterator[Any]:
        """Yield an archive of the run's folder, in which clips have names and no places."""
        visit = self.visits.of(request)
        with plain_errors(visit.folder), visit.learning, TemporaryDirectory() as folder:
            run = self._saved(visit)
            target = Path(folder) / "taught-model.zip"
            with zipfile.ZipFile(target, "w") as archive:  # weights do not get smaller
                for name in IN_THE_ARCHIVE:
                    if name.endswith(".safetensors"):
                        archive.write(run / name, f"taught-model/{name}")
                    else:
                        text = (run / name).read_text("utf-8")
                        archive.writestr(f"taught-model/{name}", _without_folders(text, visit))
            yield gr.update(value=str(target), visible=True)  # Gradio copies it before it resumes this

    def use(self, request: gr.Request) -> tuple[Any, str]:
        """Offer the model to this visitor: the choice of models, and a sentence."""
        visit = self.visits.of(request)
        first = next(iter(self.models.values()))
        with plain_errors(visit.folder), visit.learning:
            recognizer = load(self._saved(visit), device=str(first.device), limits=first.options.limits)
            self.models.drop_taught(visit.served)
            visit.served = self.models.add_taught(recognizer)
        mine = (f"Mine: {', '.join(visit.clips)}"[:80], visit.served)
        return gr.update(choices=[mine, *self.models], value=visit.served, visible=True), WORDS["used"]

    def forget(self, request: gr.Request) -> None:
        """Delete what a visitor who closed the page has taught."""
        visit = self.visits.forget(request)
        self.models.drop_taught(visit.served if visit else None)

    def _saved(self, visit: TaughtClasses) -> Path:
        if visit.session is None:
            raise UsageError(WORDS["one_more"])
        return visit.session.save().path


class _Told(TeachCallback):
    """Tells the page how many clips were looked at."""

    def __init__(self, tell: Callable[[tuple[int, int]], None]) -> None:
        self._tell = tell

    def on_progress(self, done: int, total: int, error: VideoError | None) -> None:
        self._tell((done, total))


def _learn(visit: TaughtClasses, models: Models, tell: Callable[[tuple[int, int]], None]) -> None:
    visit.session_of(next(iter(models.values()))).learn(_Told(tell))


def _shown(visit: TaughtClasses) -> Taught:
    state = visit.to_json()
    button = gr.update(visible=state["is_ready"])
    return Taught(json.dumps(state), button, button)


def _without_root(message: str, files: FolderFiles) -> str:
    return message if files.root is None else without_folder(message, files.root)


def _without_folders(text: str, visit: TaughtClasses) -> str:
    for clip, _ in visit.examples():
        text = text.replace(f"{clip.parent}/", "")
    return text.replace(f"{visit.folder}/", "")
