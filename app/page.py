"""Layout of the page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import gradio as gr

from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.samples import Sample
from nonlocal_video.video.limits import DecodeLimits

from . import texts, texts_more
from .api import add_endpoints
from .callbacks.folder_rows import FolderRows
from .callbacks.recognise import MAX_WAITING
from .callbacks.search_run import Searches
from .callbacks.similar import OPENED, SEARCHED, Similar
from .cleanup import KEEP_SECONDS, clean_every_seconds
from .components.buttons import UNQUEUED
from .gradio_bounds import under_way
from .models import Models
from .results.store import Results
from .tabs.api_tab import api_tab
from .tabs.folder_tab import folder_tab
from .tabs.live_tab import live_tab
from .tabs.models_tab import models_tab
from .tabs.recognise_tab import RecogniseTab, recognise_tab
from .tabs.search_tab import search_tab
from .tabs.teach_tab import teach_from, teach_tab
from .tabs.timeline_tab import timeline_tab

MOST_IN_QUEUE = 2 * MAX_WAITING
"""Maximum number of events in Gradio's queue: runs, which are bounded before, and long clips and programs."""
STYLE = sorted((Path(__file__).parent / "components").glob("*.css"))


def theme() -> gr.themes.Base:
    """Return the theme, with system fonts, as other fonts would be fetched from a foreign host."""
    return gr.themes.Default(
        primary_hue="indigo",
        secondary_hue="indigo",  # links have the accent, too
        neutral_hue="slate",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    ).set(
        # Gradio's defaults are too pale: text needs 4.5 times the background's luminance (WCAG 2.2, 1.4.3).
        body_text_color_subdued="*neutral_500",
        link_text_color_dark="*secondary_400",
        color_accent="*primary_600",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
    )


def limits_in_words(limits: DecodeLimits, max_upload_mb: int, keep_seconds: float) -> str:
    """Describe the limits of uploads and how long they are kept."""
    return texts.LIMITS.format(
        megabytes=max_upload_mb,
        hours=limits.max_duration_seconds / 3600,
        megapixels=limits.max_pixels / 1e6,
        minutes=keep_seconds / 60,
    )


def build_page(
    recognizers: Sequence[Recognizer],
    *,
    results: Results,
    rows: FolderRows,
    max_upload_mb: int,
    keep_seconds: float = KEEP_SECONDS,
    samples: Sequence[Sample] = (),
    folder_root: Path | None = None,
    allow_pull: bool = False,
    others: Callable[[], int] = lambda: 0,
) -> gr.Blocks:
    """Build the page.

    Args:
        recognizers: At least one; visitors choose by the names of their cards. The first is the default.
        results: Store of the results that visitors have links to.
        rows: Store of the rows of folder runs.
        max_upload_mb: Upload limit to show, in MB; the server enforces it.
        keep_seconds: Lifetime of uploads and overlays on the server.
        samples: Sample clips; without any, their row is left out.
        folder_root: Folder of the server that visitors may classify, with its subfolders; None offers none.
        allow_pull: Whether visitors may download the recommended published models.
        others: Returns how many programs wait for the same network.
    """
    limits = limits_in_words(recognizers[0].new_reader().limits, max_upload_mb, keep_seconds)
    by_name = Models(recognizers)
    with gr.Blocks(
        title="nonlocal-video",
        analytics_enabled=False,
        delete_cache=(clean_every_seconds(keep_seconds), keep_seconds),  # type: ignore[arg-type]  # fractions work
    ) as page:
        gr.Markdown(f"# {texts.TITLE}\n{texts.INTRODUCTION}", elem_id="title")
        with gr.Tabs(selected="recognise", elem_id="tabs"):
            with gr.Tab(texts.TABS["recognise"], id="recognise"):
                recognise = recognise_tab(
                    by_name,
                    samples,
                    limits,
                    results=results,
                    max_upload_mb=max_upload_mb,
                    others=others,
                    queued=partial(under_way, page),
                )
            with gr.Tab(texts.TABS["timeline"], id="timeline"):
                timelines = timeline_tab(by_name, samples, limits, max_upload_mb=max_upload_mb)
            with gr.Tab(texts.TABS["search"], id="search"):
                searches = search_tab(by_name, folder_root, limits, max_upload_mb=max_upload_mb)
            with gr.Tab(texts.TABS["teach"], id="teach"):
                teaching = teach_tab(by_name, recognise.model)
            with gr.Tab(texts.TABS["live"], id="live"):
                live_tab(by_name)
            with gr.Tab(texts.TABS["folder"], id="folder"):
                folders = folder_tab(by_name, rows, folder_root, limits, max_upload_mb=max_upload_mb)
                teach_from(folders.table, rows, teaching)
            with gr.Tab(texts_more.MODELS["tab"], id="models"):
                comparison = models_tab(by_name, results, max_upload_mb=max_upload_mb, allow_pull=allow_pull)
            with gr.Tab(texts.TABS["api"], id="api"):
                api_tab(page)
        _find_from_the_player(page, recognise, searches)
        add_endpoints(by_name)
        page.unload(recognise.recognition.forget)
        page.unload(timelines.leave)
        page.unload(folders.runs.leave)
        if comparison is not None:
            page.unload(comparison.leave)
        page.unload(searches.forget)
        page.unload(teaching.teaching.forget)
    return page.queue(max_size=MOST_IN_QUEUE, default_concurrency_limit=1, api_open=False)


def _find_from_the_player(page: gr.Blocks, recognise: RecogniseTab, searches: Searches) -> None:
    """Connect the button below an answer with the components of Search."""
    parts = {block.elem_id: block for block in page.blocks.values()}
    similar, seconds = Similar(recognise.recognition, searches), gr.State(0.0)
    opened, searched = ([parts[name] for name in names] for names in (OPENED, SEARCHED))
    recognise.keep.similar(similar.open, None, [*opened, seconds], **UNQUEUED).success(
        similar.find,
        seconds,
        searched,
        show_progress="hidden",
        concurrency_id="similar",  # of its own, or the moments of the clip that is asked about would come first
        api_visibility="private",
    )
