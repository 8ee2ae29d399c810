"""The recognizer, which runs a model on clips; the page, the command line and Python all use it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nonlocal_video.attention.maps import AttentionMaps, Method, QueryPoint
from nonlocal_video.errors import UsageError
from nonlocal_video.inference import live
from nonlocal_video.inference.batch_run import BatchProgress, FolderOptions, FolderResult, run_folder
from nonlocal_video.inference.context import Context, FolderContext
from nonlocal_video.inference.explanation import Explanation
from nonlocal_video.inference.feature_stream import window_features
from nonlocal_video.inference.files import Selection
from nonlocal_video.inference.object_storage import is_folder
from nonlocal_video.inference.prediction import Prediction
from nonlocal_video.inference.predictor import Predictor
from nonlocal_video.inference.preprocessing import ClipSource
from nonlocal_video.inference.request import ClipOptions, ClipRequest, SpanOptions, ViewOptions, lists_options
from nonlocal_video.inference.runtimes.device import choose_devices
from nonlocal_video.inference.sliding import last_of, slide
from nonlocal_video.inference.timeline import Timeline

Stage = Literal["reading", "network"]


class Recognizer(Predictor):
    """Runs a model on video clips; safe to call from several threads, which take turns.

    `network` is the trained module: normalised clips (N, 3, T, H, W) to logits (N, classes). Inference uses a copy with
    folded batch norms, in the chosen `runtime` (see `load`).
    """

    @lists_options
    def classify(
        self,
        source: ClipSource,
        *,
        on_stage: Callable[[Stage], None] = lambda stage: None,
        **options: Unpack[ViewOptions],
    ) -> Prediction:
        """Recognise the action of a clip; calling the recognizer does the same.

        Args:
            source: Path or URL (https://, s3://, ...) of a video file, its bytes, or frames as uint8 (T, H, W, 3) RGB.
            views: Number of views, CLIPSxCROPS; the softmax is averaged over them. One clip is the middle of the video.
            fast: Whether to use the cheaper input of the model card.
            start_seconds: Start of the part to use.
            end_seconds: End of the part to use.
            frames_per_second: Rate of frames given as an array; None assumes the model's rate, with a note.
            region: Region of the frame to use, (x0, y0, x1, y1) in fractions, or as text; see `Region`.
            on_stage: Called at the start of each stage.

        Raises:
            VideoError: The clip cannot be read.
            UsageError: An argument has a value that is not allowed, or the source is a folder.
            ModelError: The network gave something that is not a number.

        Example:
            >>> prediction = recognizer.classify("cello.mp4", views="3x1")
            >>> prediction.top1.label
            'playing cello'
        """
        request = ClipRequest.parse(**options)
        self._refuse_folder(source)
        on_stage("reading")
        clip = self.load_clip(source, request)
        on_stage("network")
        return self.predict([clip])[0]

    __call__ = classify

    @lists_options
    def preprocess(self, source: ClipSource, **options: Unpack[ViewOptions]) -> Tensor:
        """Return the input of the network in `classify`: (V, 3, T, S, S) float32, normalised, on the CPU.

        The V views are ordered by time, and then by crop from left to right or top to bottom. Arguments and errors are
        those of `classify`.

        Example:
            >>> views = recognizer.preprocess("cello.mp4", views="3x1")
            >>> logits = recognizer.network(views.to(recognizer.device))
        """
        request = ClipRequest.parse(**options)
        self._refuse_folder(source)
        clip = self.load_clip(source, request)
        return torch.cat([clip.network_input(v, c) for v in range(len(clip.views)) for c in range(len(clip.crops))])

    @lists_options
    def classify_folder(
        self,
        paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        output: str | os.PathLike[str] | None = None,
        resume: bool = False,
        views: str = "1x1",
        top_k: int = 5,
        workers: int | None = None,
        batch_size: int | None = None,
        devices: str | Sequence[str] = (),
        selection: Selection | None = None,
        context: FolderContext = "none",
        on_progress: Callable[[BatchProgress], None] = lambda progress: None,
        **options: Unpack[SpanOptions],
    ) -> FolderResult:
        """Recognise the action in each of many clips, as the command `classify` does, with a row for every file.

        `fast`, `start_seconds`, `end_seconds` and `region` are those of `classify`.

        Args:
            paths: Files, folders (searched through), glob patterns, addresses; one or several.
            output: Table to write, .csv, .jsonl or .parquet. None writes none, and keeps all outcomes in memory.
            resume: Take up an earlier run with this output: only files without a row, or changed since, are read.
            views: As for `classify`.
            top_k: Classes in a row.
            workers: Decoding processes beside the network; None is as many as suit the device.
            batch_size: Views in one forward pass; None is as many as suit the device.
            devices: `cuda:all`, or names like `cuda:1`: a process each, in place of this recogniser's device.
            selection: Which of the files count; None is all of them.
            context: `folder` refines each clip's answer by the clips like it, once all are read.
            on_progress: Called after each row; in a context with the clip's own answer, which is not the final one.

        Raises:
            UsageError: An argument is invalid, or the output cannot be resumed.
            OutputError: The table cannot be written; the rows so far are kept beside it.
            DeviceError: The device has failed; `resume` does the rest.

        Example:
            >>> table = recognizer.classify_folder("clips/", output="actions.csv")
            >>> [row["path"] for row in table if row["status"] == "error"]
            ['clips/note.mp4']
        """
        names = [paths] if isinstance(paths, (str, os.PathLike)) else paths
        chosen = choose_devices(devices, runtime=self.options.runtime) if isinstance(devices, str) else devices
        how = FolderOptions(output, resume, top_k, workers, batch_size, chosen, selection or Selection(), context)
        request = ClipRequest.parse(views=views, **options)
        return run_folder(self, names, request, how, on_progress=on_progress, keep_outcomes=output is None)

    @lists_options
    def explain_all(
        self,
        source: ClipSource,
        *,
        around_seconds: float | None = None,
        on_stage: Callable[[Stage], None] = lambda stage: None,
        **options: Unpack[ClipOptions],
    ) -> Explanation:
        """Recognise one view of a clip and keep its features, from which maps are made.

        The other arguments are those of `classify`, without `views`; a folder is no source.

        Args:
            source: As for `classify`.
            around_seconds: Use the span around this time if the default one does not contain it.
            on_stage: Called when a stage begins.
        """
        on_stage("reading")
        request = ClipRequest.parse(**options)
        if around_seconds is not None and request.start_seconds is None and request.end_seconds is None:
            spec = self.card.view(fast=request.fast)
            start, end = self._loader.span_around(source, around_seconds, spec, request.frames_per_second)
            request = replace(request, start_seconds=start, end_seconds=end)
        originals: list[NDArray[np.uint8]] = []
        clip = self.load_clip(source, request, originals)
        on_stage("network")
        return self.explain_loaded(clip, originals)

    @lists_options
    def explain(
        self,
        source: ClipSource,
        *,
        method: Method | None = None,
        query: tuple[float, float, float] | None = None,
        label: str | int | None = None,
        layer: str | None = None,
        **options: Unpack[ClipOptions],
    ) -> AttentionMaps:
        """Return maps of where the network looked, for every sampled frame.

        The other arguments are those of `classify`, without `views`; maps, queries and overlays still refer to the
        whole frame where a `region` is given.

        Args:
            source: As for `classify`, except a folder.
            method: `attention` (received in a non-local block), `query` (what one point attends to) or `evidence`
                (class evidence: the exact class activation map at the last layer, Grad-CAM at another). None is
                `query` if a query is given, `evidence` if a label is, else `attention`.
            query: (seconds, x, y); seconds from the clip's beginning, fractions of the frame's width and height.
                If the default span does not contain this time, the span around it is used.
            label: Class for `evidence`, by name or index; None is the top class.
            layer: Dotted name of a non-local block (attention, query) or of any layer (evidence).
        """
        point = None if query is None else QueryPoint.parse(query)
        explanation = self.explain_all(source, around_seconds=None if point is None else point.seconds, **options)
        return explanation.maps(method=method, query=point, label=label, layer=layer)

    @lists_options
    def timeline(
        self,
        path: str | os.PathLike[str],
        *,
        window_seconds: float | None = None,
        stride_seconds: float | None = None,
        batch_size: int | None = None,
        context: Context = "nonlocal",
        **options: Unpack[SpanOptions],
    ) -> Timeline:
        """Return the timeline of a long video; `inference.sliding.slide` yields it window by window.

        `fast`, `start_seconds`, `end_seconds` and `region` are those of `classify`.

        Args:
            path: A video file.
            window_seconds: Length of a window; None is the model's own span.
            stride_seconds: From one window to the next; None is half a window.
            batch_size: Windows in one forward pass; None is as many as suit the device.
            context: `nonlocal` refines each window's answer by the windows like it; `none` leaves it alone.

        Returns:
            The timeline. Where the video breaks after some windows, it has these, `is_complete` is False, `error` says
            why, and Python's `warnings` tell it.

        Raises:
            VideoError: Not even one window can be read.
            UsageError: An argument has a value that is not allowed.
        """
        lengths = {"window_seconds": window_seconds, "stride_seconds": stride_seconds}
        return last_of(slide(self, path, **lengths, batch_size=batch_size, context=context, **options))

    features = window_features
    watch = live.watch

    def _refuse_folder(self, source: ClipSource) -> None:
        """Refuse a folder, unless folders of JPEGs are clips."""
        frames_are_clips = self.options.limits.frames_per_second is not None
        if not frames_are_clips and isinstance(source, (str, os.PathLike)) and is_folder(os.fspath(source)):
            raise UsageError(f"{os.fspath(source)!r} is a folder; use recognizer.classify_folder(...) for its clips.")
