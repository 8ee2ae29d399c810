"""The API of the page for programs, by `gradio_client`: named and documented endpoints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gradio as gr

from nonlocal_video.attention.contact_sheet import NUM_ARROWS
from nonlocal_video.attention.maps import AttentionMaps, QueryPoint
from nonlocal_video.errors import UsageError, VideoError
from nonlocal_video.inference.prediction import Failure, printable
from nonlocal_video.inference.recognizer import Recognizer
from nonlocal_video.inference.timeline import check_segment_rule
from nonlocal_video.inference.timeline_files import to_json

from . import texts
from .callbacks.timeline_updates import timeline_updates
from .choices import FAST, ONE_VIEW, PAPER, THOROUGH
from .messages import GONE, plain_errors, without_folder

NETWORK = "network"
"""Name of the queue for requests that run the network on one clip."""
LONG = "timeline"
"""Name of the queue for long videos: one runs at a time, and shares the network with others window by window."""
MAX_TOP_K = 400
METHODS = ["", "attention", "query", "evidence", "gradcam"]
"""Methods of /explain. By default query if there is a point, evidence if there is a label, otherwise attention; gradcam
is an alias of evidence."""
UPDATE_SECONDS = 5.0


@dataclass(frozen=True)
class Endpoints:
    """Functions of the endpoints."""

    recognizers: Mapping[str, Recognizer]
    """Recognizers by model name."""

    def classify(
        self, clip: str | None, model: str, views: str, top_k: float, region: str | None = None
    ) -> dict[str, Any]:
        """Handle /classify, see `texts.CLASSIFY`."""
        path = _uploaded(clip)
        with plain_errors(path.parent):
            try:
                how = {"fast": True} if views == FAST else {"views": views}
                row = self.recognizers[model].classify(path, **how, region=region).to_row(int(top_k))
            except VideoError as error:
                error = VideoError(error.code, without_folder(error.message, path.parent))
                row = Failure(clip or "", model, error).to_row()
            return _row(row, path)

    def explain(
        self,
        clip: str | None,
        model: str,
        fast: bool,
        method: str,
        query_seconds: float | None = None,
        query_x: float | None = None,
        query_y: float | None = None,
        label: str | None = None,
        layer: str | None = None,
        region: str | None = None,
    ) -> Iterator[tuple[dict[str, Any], str]]:
        """Handle /explain, see `texts.EXPLAIN`."""
        path = _uploaded(clip)
        with plain_errors(path.parent):
            given = [value for value in (query_seconds, query_x, query_y) if value is not None]
            if len(given) not in (0, 3):
                raise UsageError("A query point is query_seconds, query_x and query_y, all three.")
            query = QueryPoint(*given) if given else None
            explanation = self.recognizers[model].explain_all(
                path, fast=fast, around_seconds=None if query is None else query.seconds, region=region
            )
            maps = explanation.maps(method=method or None, query=query, label=label or None, layer=layer or None)  # type: ignore[arg-type]
            row = _row(explanation.prediction.to_row(), path)
            with TemporaryDirectory() as folder:
                # Gradio copies the file before it resumes this generator, which deletes the folder.
                yield {"prediction": row, **described(maps)}, str(maps.save_overlay(Path(folder) / "overlay.mp4"))

    def timeline(
        self,
        clip: str | None,
        model: str,
        fast: bool,
        window_seconds: float | None = None,
        stride_seconds: float | None = None,
        threshold: float = 0.0,
        min_seconds: float = 0.0,
        top_k: float = 5,
        region: str | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Handle /timeline, see `texts.TIMELINE`."""
        path = _uploaded(clip)
        rule = {"threshold": threshold, "min_seconds": min_seconds}
        with plain_errors(path.parent):
            check_segment_rule(**rule)
            steps = timeline_updates(
                self.recognizers[model],
                path,
                update_seconds=UPDATE_SECONDS,
                fast=fast,
                window_seconds=window_seconds,
                stride_seconds=stride_seconds,
                region=region,
            )
            with closing(steps):
                for timeline in steps:
                    yield _row(to_json(timeline, top_k=int(top_k), **rule), path)


def add_endpoints(recognizers: Mapping[str, Recognizer]) -> None:
    """Add the invisible endpoints /classify, /explain and /timeline to the page that is being built."""
    endpoints = Endpoints(recognizers)
    names = list(recognizers)
    with gr.Column(visible=False):
        clip = gr.File(label="clip")
        model = gr.Dropdown(names, value=names[0], label="model")
        views = gr.Dropdown([ONE_VIEW, FAST, THOROUGH, PAPER], value=ONE_VIEW, label="views")
        top_k = gr.Slider(1, MAX_TOP_K, 5, step=1, label="top_k")
        region = gr.Textbox("", label="region")
        row = gr.JSON(label="row")
        gr.Button().click(
            endpoints.classify,
            [clip, model, views, top_k, region],
            row,
            api_name="classify",
            api_description=texts.CLASSIFY,
            concurrency_id=NETWORK,
        )
        fast = gr.Checkbox(False, label="fast")
        method = gr.Dropdown(METHODS, value="", label="method")
        query = [gr.Number(None, label=f"query_{name}") for name in ("seconds", "x", "y")]
        label, layer = gr.Textbox("", label="label"), gr.Textbox("", label="layer")
        gr.Button().click(
            endpoints.explain,
            [clip, model, fast, method, *query, label, layer, region],
            [gr.JSON(label="explanation"), gr.File(label="overlay")],
            api_name="explain",
            api_description=texts.EXPLAIN,
            concurrency_id=NETWORK,
        )
        lengths = [gr.Number(None, label=f"{name}_seconds") for name in ("window", "stride")]
        rule = [gr.Number(0, label=name) for name in ("threshold", "min_seconds")]
        gr.Button().click(
            endpoints.timeline,
            [clip, model, fast, *lengths, *rule, top_k, region],
            gr.JSON(label="timeline"),
            api_name="timeline",
            api_description=texts.TIMELINE,
            concurrency_id=LONG,
        )


def _uploaded(clip: str | None) -> Path:
    if clip is None:
        raise gr.Error("Give a clip: handle_file(path).", print_exception=False)
    path = Path(clip)
    if not path.is_file():
        raise gr.Error(GONE, print_exception=False)
    return path


def _row(row: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the row with the clip's name as `file`, since gradio_client tries to download anything with a `path`."""
    return {"file": printable(path.name), **{name: value for name, value in row.items() if name != "path"}}


def described(maps: AttentionMaps) -> dict[str, Any]:
    """Return what is known of maps as JSON: method, layer, times, numbers and the strongest places."""
    return {
        "method": maps.method,
        "layer": maps.layer,
        "quantity": maps.quantity,
        "seconds": [float(second) for second in maps.seconds],
        "query": None if maps.query is None else asdict(maps.query),
        "entropy_nats": maps.entropy_nats,
        "maximum_entropy_nats": maps.maximum_entropy_nats,
        "temporal_spread_seconds": maps.temporal_spread_seconds,
        "strongest": [asdict(target) for target in maps.strongest(NUM_ARROWS)],
    }
