"""Callbacks of the search tab: the moments that are most like one, and their files."""

from __future__ import annotations

import json
import secrets
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import gradio as gr

from nonlocal_video.errors import OutputError, UsageError, VideoError
from nonlocal_video.inference.segment_files import cut_clip
from nonlocal_video.retrieval.api import search
from nonlocal_video.retrieval.archive import open_archive
from nonlocal_video.retrieval.example import SearchExample, file_number
from nonlocal_video.retrieval.hit import Hit
from nonlocal_video.retrieval.result_files import cut_hits
from nonlocal_video.video.decode import VideoReader

from ..components.headline import DONE, WORKING, failed, said
from ..messages import GONE, plain_errors, refusal
from ..received import receive
from ..visit_folders import address_of, put_in, uploaded
from .search_hits import cards_of, found_words, hits_of, span_of
from .search_index import WORDS, SearchIndexes
from .search_visit import SearchVisit

TOP_K = 12
PREVIEW_SIDE = 320


class Found(NamedTuple):
    """Updates of the components after a search."""

    said: Any
    results: Any
    save: Any
    saved: Any


class Chosen(NamedTuple):
    """Updates of the components after the choice of an example."""

    said: Any
    player: Any
    buttons: Any


@dataclass(frozen=True)
class Searches(SearchIndexes):
    """Callbacks of the search tab."""

    def choose(self, name: str | None, request: gr.Request) -> Chosen:
        """Take a clip of the index as the example; the player gets a copy of it."""
        visit = self.visits.of(request)
        visit.begin()
        if not name:
            return Chosen(gr.skip(), "", gr.update(visible=False))
        folder = visit.folder
        try:
            if name not in visit.names:
                raise VideoError("not_found", GONE)
            folder = visit.names[name].parent
            copy = self._copied(visit.names[name], visit.folder / "examples" / secrets.token_urlsafe(8))
        except Exception as error:  # the page says why
            return Chosen(failed(error, folder), "", gr.update(visible=False))
        visit.example = visit.names[name]
        return Chosen(said(DONE, WORDS["play"], name), address_of(copy), gr.update(visible=True))

    def choose_upload(self, event: gr.EventData, request: gr.Request) -> Chosen:
        """Take an upload as the example."""
        visit = self.visits.of(request)
        visit.begin()
        try:
            (visit.example,) = map(uploaded, event._data["paths"])
        except UsageError as error:
            return Chosen(failed(error, Path()), "", gr.update(visible=False))
        words = said(DONE, WORDS["play"], visit.example.name)
        return Chosen(words, address_of(visit.example), gr.update(visible=True))

    def like_moment(self, seconds: float | None, label: str | None, request: gr.Request) -> Iterator[Found]:
        """Yield the moments most like one of the example; `previews` shows them."""
        visit = self.visits.of(request)
        example = None if visit.example is None else SearchExample(visit.example, at=seconds)
        yield from self._find(visit, example, label)

    def like_whole(self, label: str | None, request: gr.Request) -> Iterator[Found]:
        """Yield the moments most like the whole example."""
        yield from self.like_moment(None, label, request)

    def like_hit(self, label: str | None, request: gr.Request, event: gr.EventData) -> Iterator[Found]:
        """Yield the moments most like one that was found."""
        visit = self.visits.of(request)
        hits = hits_of(visit, event._data)
        if len(hits) != 1:
            raise refusal(WORDS["too_old"])
        yield from self._find(
            visit, SearchExample(hits[0].path, None, hits[0].start_seconds, hits[0].end_seconds), label
        )

    def save(self, chosen: str, request: gr.Request) -> Iterator[Any]:
        """Yield an archive of the chosen moments, each as an MP4 file."""
        visit = self.visits.of(request)
        hits = hits_of(visit, json.loads(chosen)) if chosen else []
        if not hits:
            raise refusal(WORDS["save_none"])
        # Not in the visitor's folder: Gradio copies no file that lies among the uploads, and this one is deleted.
        with plain_errors(visit.folder), TemporaryDirectory() as folder:
            copies = [
                Hit(hit.rank, str(self._copied(Path(hit.path), Path(folder) / str(hit.rank))), *span_of(hit))
                for hit in hits
            ]
            broken: list[VideoError] = []
            files = cut_hits(copies, Path(folder) / "cut", on_failure=lambda _, error: broken.append(error))
            if broken and not files:
                raise broken[0]
            target = Path(folder) / "moments.zip"
            with zipfile.ZipFile(target, "w") as archive:  # MP4 does not get smaller
                for file in files:
                    archive.write(file, file.name)
            yield gr.update(value=str(target), visible=True)  # copied before this is resumed

    def _find(self, visit: SearchVisit, example: SearchExample | None, label: str | None) -> Iterator[Found]:
        is_shown = visit.begin()
        try:
            if example is None:
                raise UsageError(WORDS["no_example"])
            if visit.table is None:
                raise UsageError(WORDS["no_index"])
            if not Path(example.path).is_file():
                raise VideoError("not_found", GONE)
            yield Found(said(WORKING, WORDS["searching"], can_stop=False), gr.skip(), gr.skip(), gr.skip())
            labels, archive = [label] if label else [], open_archive(visit.table)
            with TemporaryDirectory() as copies:
                if file_number(example.path, archive.windows) is None:  # it is read, and its name may lead elsewhere
                    example = replace(example, path=self._copied(Path(example.path), Path(copies)))
                result = search(archive, like=example, top_k=TOP_K, labels=labels, model=self.recognizer)
            if is_shown():
                visit.keep(result.hits)
                cards = cards_of(visit, result)
                words = found_words(visit, result, example, label)
                yield Found(words, json.dumps(cards), gr.update(visible=bool(cards)), gr.update(visible=False))
        except Exception as error:  # the page says why
            if not is_shown():
                return
            folder = visit.folder if example is None else Path(example.path).parent
            yield Found(failed(error, folder), gr.skip(), gr.skip(), gr.skip())

    def previews(self, request: gr.Request) -> Iterator[str]:
        """Yield the moments that were found, each time with one more preview."""
        visit = self.visits.of(request)
        hits = visit.hits
        if not hits:
            return
        cards = cards_of(visit, hits)
        folder = visit.folder / "previews" / secrets.token_urlsafe(8)
        folder.mkdir(parents=True)
        with self.recognizer.new_reader() as reader:
            for card, hit in zip(cards, hits, strict=True):
                if visit.hits is not hits or not folder.is_dir():  # others were found meanwhile, or the visitor left
                    return
                card["url"] = self._preview(reader, hit, folder)
                yield json.dumps(cards)

    def _preview(self, reader: VideoReader, hit: Hit, folder: Path) -> str:
        """Write a small copy of a moment, and return its address; nothing if its video cannot be read any more."""
        target = folder / f"{hit.rank}.mp4"
        try:
            with TemporaryDirectory(dir=folder) as copies:
                copy = self._copied(Path(hit.path), Path(copies))
                cut_clip(reader, str(copy), hit.start_seconds, hit.end_seconds, target, max_side=PREVIEW_SIDE)
        except (VideoError, UsageError, OutputError, OSError):  # the last two: the visitor left, their folder is gone
            return ""
        return address_of(target)

    def _copied(self, path: Path, folder: Path) -> Path:
        """Return a visitor's file, or a private copy of one of the offered folder, even if its name is a link now."""
        root = None if self.root is None else self.root.resolve()
        if root is None or not path.is_relative_to(root):
            if not path.is_file():
                raise VideoError("not_found", GONE)
            return path
        limit = self.recognizer.options.limits.max_bytes
        with receive(None, path.relative_to(root).as_posix(), root=root, max_bytes=limit) as clip:
            return put_in(folder, clip.path)
